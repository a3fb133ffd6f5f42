"""Find benchmark text in training text: documents and references in, matches out.

The engine knows nothing of models or benchmarks: it takes plain strings and imports nothing of `qwen2eval`, no torch
and no lm-eval, so it can be used and tested alone.
"""

__all__: list[str] = []
