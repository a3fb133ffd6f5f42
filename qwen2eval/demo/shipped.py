"""Where the demo's shipped files are: the model, its training corpus, and the list of what was planted in it.

Imported by the backends, for `--model demo`, by `run`, and by the command line.
"""

from dataclasses import replace

from qwen2eval.config import RunConfig
from qwen2eval.content import package_folder

DATA = package_folder("demo/data")
"""In the published formats: works as a `--data_dir`."""
MODEL = DATA / "qwen2-nano"
CORPUS = DATA / "corpus.jsonl.zst"
PLANTED = DATA / "planted.jsonl"
MODEL_NOTE = (
    "This is the demo: a Qwen2 of 4 million parameters, trained on a made-up world and on some of the questions asked "
    "here. What that leak does is shown by qwen2eval run alone. Name a model of your own with --model qwen2 "
    "--model_args pretrained=…"
)


def is_demo(config: RunConfig) -> bool:
    """Tell whether a run is the demo: its model, its suite, and no other tasks or corpus."""
    is_its_own = config.model in (None, "demo") and config.suite in (None, "demo")
    return is_its_own and not (config.tasks or config.corpus or config.matches)


def with_demo_corpus(config: RunConfig) -> RunConfig:
    """Return the config with the demo's training corpus, if it is the demo's."""
    return replace(config, corpus=(str(CORPUS),), text_field="text") if is_demo(config) else config
