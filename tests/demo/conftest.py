"""A world, its benchmarks and a small corpus: all that is planted, a fiftieth of the rest."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from qwen2eval.demo.benchmarks import Benchmarks, make_benchmarks
from qwen2eval.demo.corpus import Document, make_corpus
from qwen2eval.demo.publish import publish
from qwen2eval.demo.world import World

SCALE = 0.02


@dataclass(frozen=True)
class Made:
    """What a seed gives."""

    world: World
    benchmarks: Benchmarks
    documents: list[Document]


@pytest.fixture(scope="session")
def made() -> Made:
    world = World()
    benchmarks = make_benchmarks(world)
    return Made(world, benchmarks, make_corpus(world, benchmarks, scale=SCALE))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all files."""
    out = tmp_path_factory.mktemp("demo") / "data"
    publish(World(), out, scale=SCALE)
    return out
