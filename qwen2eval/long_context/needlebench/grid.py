"""NeedleBench's settings: which context lengths, depths and buffers, by version (OpenCompass at commit a5acc4bb)."""

from collections.abc import Mapping
from dataclasses import dataclass

from qwen2eval.errors import ConfigError
from qwen2eval.long_context.needlebench.scoring import Part

N_REPEATS: Mapping[Part, int] = {"single": 10, "reasoning": 10, "retrieval": 25}
N_FACTS = (2, 3, 4, 5)
"""Needles of one multi-needle reasoning."""
FACT_GAP_PERCENT = 10
"""Distance between two facts of one reasoning, percent of the haystack."""
_FINE_DEPTHS = (0, 5, 10, 15, 21, 26, 31, 36, 42, 47, 52, 57, 63, 68, 73, 78, 84, 89, 94, 100)
_COARSE_DEPTHS = (0, 10, 21, 31, 42, 52, 63, 73, 84, 94, 100)
_EVEN_DEPTHS = tuple(range(0, 101, 10))
_CHINESE_BUFFER = 200


@dataclass(frozen=True)
class Setting:
    """One named setting of one version."""

    lengths: tuple[int, ...]
    """Tokens of context."""
    depths: tuple[int, ...]
    """Percent from the start."""
    buffers: Mapping[Part, int]
    """Tokens that the original keeps free for the rest of the prompt and the answer, in English."""

    def buffer(self, part: Part, language: str) -> int:
        """Return the buffer of a part in a language."""
        return self.buffers[part] if language == "English" else _CHINESE_BUFFER


def setting(version: int, name: str) -> Setting:
    """Return a setting by the benchmark's version (1, 2) and its name.

    Raises:
        ConfigError: there is no such version or setting.

    >>> setting(1, "32k").lengths
    (9000, 13000, 17000, 21000, 25000, 29000, 31000, 32000)
    """
    if version not in _SETTINGS:
        raise ConfigError(f"NeedleBench has no version {version!r}: `benchmark` in the task's metadata is 1 or 2")
    if name not in _SETTINGS[version]:
        raise ConfigError(f"NeedleBench has no setting {name!r}; there are {', '.join(_SETTINGS[version])}")
    return _SETTINGS[version][name]


def _buffers(single: int, retrieval: int, reasoning: int) -> dict[Part, int]:
    return {"single": single, "retrieval": retrieval, "reasoning": reasoning}


_LONG_1, _LONG_2 = _buffers(600, 3000, 600), _buffers(3000, 3000, 3000)
_SETTINGS: dict[int, dict[str, Setting]] = {
    1: {
        "4k": Setting((1000, 2000, 3000, 4000), _FINE_DEPTHS, _buffers(600, 1000, 600)),
        "8k": Setting((5000, 6000, 7000, 8000), _FINE_DEPTHS, _buffers(800, 1300, 1000)),
        "32k": Setting((9000, 13000, 17000, 21000, 25000, 29000, 31000, 32000), _COARSE_DEPTHS, _LONG_2),
        "128k": Setting(tuple(range(16000, 128001, 16000)), _COARSE_DEPTHS, _LONG_1),
        "200k": Setting((16000, 48000, 80000, 112000, 128000, 144000, 176000, 200000), _COARSE_DEPTHS, _LONG_1),
        "256k": Setting((32000, 128000, 256000), _COARSE_DEPTHS, _LONG_1),
        "1000k": Setting(tuple(range(20000, 1000001, 140000)), _COARSE_DEPTHS, _LONG_1),
    },
    2: {
        "4k": Setting((1000, 2000, 3000, 4000), _EVEN_DEPTHS, _buffers(500, 500, 500)),
        "8k": Setting(tuple(range(1000, 8001, 1000)), _EVEN_DEPTHS, _buffers(500, 500, 500)),
        "32k": Setting((1000, *range(4000, 32001, 4000)), _EVEN_DEPTHS, _LONG_2),
        "128k": Setting(tuple(1000 * 2**k for k in range(8)), _EVEN_DEPTHS, _LONG_2),
        "200k": Setting((1000, *range(25000, 200001, 25000)), _EVEN_DEPTHS, _LONG_2),
        "256k": Setting((32000, 128000, 256000), _EVEN_DEPTHS, _LONG_2),
        "1000k": Setting((1000, *range(125000, 1000001, 125000)), _EVEN_DEPTHS, _LONG_2),
    },
}
