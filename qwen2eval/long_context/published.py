"""A long-context task whose docs come from published files: only its prompts depend on the model under test.

So its docs can be read without a model: to score a finished run again, or to look for them in training text.
"""

from qwen2eval.long_context.task import Docs, LongContextTask
from qwen2eval.typed_json import JsonObject


class PublishedTask(LongContextTask):
    """A subclass overrides `read_docs`, and `make_docs` or `build_docs` to get ready for a model."""

    def __init__(self, config: JsonObject) -> None:
        # a run's own metadata is taken out again once its tasks are loaded
        metadata = config["metadata"]
        self.package_data: str | None = metadata.get("package_data")
        self.data_dir: str | None = metadata.get("data_dir")
        self.offline = bool(metadata.get("offline"))
        super().__init__(config)

    def read_docs(self) -> Docs:
        """Return all docs, and note in `dataset` where they are from.

        Raises:
            MissingDataError: a file is in none of the places.
            DataFileError: a file is broken or holds too little.
        """
        raise NotImplementedError

    @property
    def eval_docs(self) -> Docs:
        """The docs; where no model was given yet, all that there are."""
        if self._docs is None and self._is_initialised:
            self._docs = self.read_docs()
        return super().eval_docs
