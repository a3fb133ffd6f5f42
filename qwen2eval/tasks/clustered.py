"""An lm-eval task whose few-shot examples come from the doc's own cluster.

lm-eval needs one YAML a subject for this (`mmlu_anatomy`, `mmlu_astronomy` …). Here the task is one, its docs carry the
subject in the column that `metadata.cluster` names, and the prompts stay byte for byte the same.
"""

from collections import defaultdict
from typing import Any, cast

from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from qwen2eval.requests import Doc
from qwen2eval.typed_json import JsonObject


class ClusteredTask(ConfigurableTask):
    """A task with `metadata.cluster: <column>`; YAML selects it with `class:`."""

    def __init__(self, config: JsonObject) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        super().__init__(config=config)
        column = self.config.metadata["cluster"]
        pools: dict[str, list[dict[str, Any]]] = defaultdict(list)
        sampler = cast(ContextSampler, self.__dict__["sampler"])
        for fewshot_doc in sampler.df:
            pools[fewshot_doc[column]].append(fewshot_doc)
        self._cluster_column = column
        self._samplers: dict[str, ContextSampler] = {
            cluster: type(sampler)(pool, rnd=None) for cluster, pool in pools.items()
        }

    @property
    def cluster_samplers(self) -> list[ContextSampler]:
        """The samplers of all clusters."""
        return list(self._samplers.values())

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Seed every cluster's sampler alike, as lm-eval seeds one task a subject."""
        super().set_fewshot_seed(seed)
        for sampler in self._samplers.values():
            sampler.set_rnd(seed)

    def fewshot_context(self, doc: Doc, *args: Any, **kwargs: Any) -> str | list[str]:
        """Render the prompt of `doc` with examples of its cluster."""
        if sampler := self._samplers.get(doc[self._cluster_column]):
            self.sampler = sampler
        context: str | list[str] = super().fewshot_context(doc, *args, **kwargs)
        return context
