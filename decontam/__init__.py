"""Find benchmark text in training text: documents and references in, matches out.

The engine knows nothing of models or benchmarks: it takes plain strings and imports nothing of `qwen2eval`, no torch
and no lm-eval, so it can be used and tested alone.
"""

from decontam.errors import DecontamError
from decontam.index import Match, ReferenceIndex
from decontam.references import Reference, read_references
from decontam.results import Results, load_results
from decontam.rule import Rule
from decontam.scan import scan

__all__ = [
    "DecontamError",
    "Match",
    "Reference",
    "ReferenceIndex",
    "Results",
    "Rule",
    "load_results",
    "read_references",
    "scan",
]
