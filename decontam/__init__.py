"""Find benchmark text in training text: documents and references in, matches out.

The engine knows nothing of models or benchmarks: it takes plain strings and imports nothing of `qwen2eval`, no torch
and no lm-eval, so it can be used and tested alone.
"""

from decontam.errors import DecontamError
from decontam.index import Match, ReferenceIndex
from decontam.references import Reference, read_references
from decontam.rule import Rule

__all__ = ["DecontamError", "Match", "Reference", "ReferenceIndex", "Rule", "read_references"]
