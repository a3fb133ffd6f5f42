"""What a run of the demo shows, against what is known of its training text: imported by the command line, and by tests.

The demo's items are numbered as in `planted.jsonl`; a doc of a needle task is known by its needle.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from qwen2eval.demo.nano import TRAINED_LENGTH
from qwen2eval.demo.shipped import DATA, PLANTED
from qwen2eval.stats.errors import newcombe

if TYPE_CHECKING:
    import pandas as pd

    from qwen2eval.run_folder.folder import Run

METRICS = {"demo_mmlu": "acc", "demo_gsm8k": "exact_match", "demo_humaneval": "pass@1"}
"""Tasks whose items are docs, with the metric that the summary shows."""
NEEDLES = {"demo_niah": "plain", "demo_niah_stretched": "YARN + DCA"}
LEAKED, EDITED, UNSEEN = "exact", "edited", "unseen"


@dataclass(frozen=True)
class Leak:
    """What leaked items gained: shares of right answers, 0 to 1."""

    leaked: float
    unseen: float
    ci_low: float
    """Of the 95 % interval of the difference."""
    ci_high: float
    clean: float
    """Of the docs that the 13-gram rule left."""

    @property
    def difference(self) -> float:
        """How much better leaked items are answered than those never seen."""
        return self.leaked - self.unseen


@dataclass(frozen=True)
class Flags:
    """What a rule found, against the planting list. Edited items count as planted."""

    n_exact: int
    n_exact_found: int
    precision: float
    recall: float


@cache
def planted_kinds() -> Mapping[str, str]:
    """Return how each item was planted, by its name: exact, edited, near_miss or unseen."""
    with PLANTED.open(encoding="utf-8") as file:
        return {row["item"]: row["kind"] for row in map(json.loads, file)}


def docs_of(run: "Run", task: str) -> "pd.DataFrame":
    """Return a task's samples, one row a doc, with `kind` (how its item was planted)."""
    every = run.samples(task)
    samples: pd.DataFrame = every[every["filter"] == every["filter"].iloc[0]].copy()
    if task in NEEDLES:
        samples["kind"] = [planted_kinds()[_needle_items()[needle]] for needle in samples["target"]]
        samples["length"] = [json.loads(cell)["length"] for cell in samples["cell"]]
    else:
        samples["kind"] = [planted_kinds()[f"{task}/{doc}"] for doc in samples["doc_id"]]
    return samples


@cache
def _needle_items() -> Mapping[str, str]:
    needles = (DATA / "niah" / "needles" / "en.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["needle"]: f"demo_niah/{number}" for number, line in enumerate(needles)}


def leak(docs: "pd.DataFrame", metric: str) -> Leak | None:
    """Return what the leaked items of a task gained; None where a group has no scored doc."""
    scored = docs[docs[metric].notna()]
    leaked, unseen = (scored.loc[scored["kind"] == kind, metric].to_numpy(dtype=float) for kind in (LEAKED, UNSEEN))
    if not (len(leaked) and len(unseen)):
        return None
    low, high = newcombe(leaked, unseen)
    clean = scored.loc[scored["contamination"] == "clean", metric].mean()
    return Leak(float(leaked.mean()), float(unseen.mean()), low, high, float(clean))


def flags(docs: "pd.DataFrame", *, rule: str) -> Flags:
    """Return how a rule's flags agree with the truth.

    Args:
        docs: of all tasks.
        rule: "contamination" for 13 tokens in a row, "contamination_qwen2" for the report's rule with the LCS.
    """
    is_found, kind = docs[rule].to_numpy() == "contaminated", docs["kind"].to_numpy()
    is_planted = np.isin(kind, (LEAKED, EDITED))
    return Flags(
        n_exact=int((kind == LEAKED).sum()),
        n_exact_found=int((is_found & (kind == LEAKED)).sum()),
        precision=float(is_planted[is_found].mean()),
        recall=float(is_found[is_planted].mean()),
    )


def retrieval(docs: "pd.DataFrame") -> tuple[float, float]:
    """Return the share of needles found within the trained context and beyond it, without those that were planted."""
    hidden = docs[~docs["kind"].isin((LEAKED, EDITED))]
    is_within = hidden["length"] <= TRAINED_LENGTH
    return float(hidden.loc[is_within, "acc"].mean()), float(hidden.loc[~is_within, "acc"].mean())


def summarize(run: "Run") -> list[str]:
    """Return what a finished run of the demo shows, in ten lines at most."""
    tasks = run.info.tasks
    if run.failed_tasks or not {*METRICS, *NEEDLES} <= tasks.keys():
        return ["Not all tasks of the demo were finished, so there is no summary of what it shows."]
    if any(tasks[name].n_docs < tasks[name].n_docs_total for name in (*METRICS, *NEEDLES)):
        return ["Without --limit, the demo also shows how much a leak raises a score, and how much of it a scan finds."]
    return list(_lines(run))


def _lines(run: "Run") -> Iterator[str]:
    import pandas as pd

    docs = {task: docs_of(run, task) for task in (*METRICS, *NEEDLES)}
    items = pd.concat([docs[task] for task in METRICS])
    yield "The model's training text holds some of these questions, and a list says which. So this can be checked:"
    for said, rule in (("13 tokens in a row", "contamination"), ("and the LCS rule", "contamination_qwen2")):
        found = flags(items, rule=rule)
        yield (
            f"  {said:<19} finds {found.n_exact_found} of {found.n_exact} questions that are there word for word; "
            f"precision {found.precision:.2f}, recall {found.recall:.2f}"
        )
    for task, metric in METRICS.items():
        gain = leak(docs[task], metric)
        if gain is None:
            yield f"  {task:<19} not scored"
            continue
        said = "the leak is worth" if gain.ci_low > 0 else "a gain is not shown:"
        yield (
            f"  {task:<19} leaked {gain.leaked:4.0%}, never seen {gain.unseen:4.0%}: {said} "
            f"{100 * gain.difference:+.0f} points ({100 * gain.ci_low:.0f} to {100 * gain.ci_high:.0f}); clean score "
            f"{gain.clean:.0%}"
        )
    for task, name in NEEDLES.items():
        within, beyond = retrieval(docs[task])
        yield (
            f"  needles, {name:<10} found {within:.0%} within the {TRAINED_LENGTH} tokens of training, {beyond:.0%} "
            f"beyond, up to {docs[task]['length'].max():,}"
        )
    yield f"the list             {PLANTED}"
