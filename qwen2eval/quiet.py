"""The libraries that we use, without their log lines, warnings and progress bars on stderr."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TextIO

from qwen2eval.offline import forbid_network

NOISY = (
    "lm_eval",
    "lm_eval.api.registry",
    "datasets",
    "transformers",
    "huggingface_hub",
    "accelerate",
    "torch",
    "httpx",
    "urllib3",
    "filelock",
)


@contextmanager
def prepared_libraries(*, offline: bool) -> Iterator[None]:
    """Run the block with the libraries quiet and, if asked, the network forbidden."""
    with quiet_libraries(), forbid_network() if offline else contextlib.nullcontext():
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log lines, warnings and bars of the libraries off stderr; `LMEVAL_LOG_LEVEL` brings the log lines back."""
    if os.environ.get("LMEVAL_LOG_LEVEL"):
        yield
        return
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        # These log what is reported anyway: a broken file, an unknown metric
        says_twice = name in ("datasets", "lm_eval.api.registry")
        logging.getLogger(name).setLevel(logging.CRITICAL if says_twice else logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(_nowhere()):
            warnings.simplefilter("ignore")
            with _no_bars():
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@cache
def _nowhere() -> TextIO:
    """Return a file that swallows text; never closed, since log handlers made meanwhile keep it."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Switch off the bars of libraries that are already imported; libraries imported later read the variables."""
    with contextlib.ExitStack() as back:
        datasets, transformers = sys.modules.get("datasets"), sys.modules.get("transformers.utils.logging")
        if datasets is not None and not datasets.are_progress_bars_disabled():
            datasets.disable_progress_bars()
            back.callback(datasets.enable_progress_bars)
        if transformers is not None and transformers.is_progress_bar_enabled():
            transformers.disable_progress_bar()
            back.callback(transformers.enable_progress_bar)
        yield
