"""The engine: how many requests that share prefixes become few batches, on the model of `qwen2eval.model`.

To read in this order: `engine.py` (what a backend calls), `tree.py` (requests -> prefix tree), `kv.py` (what is kept of
tokens, within a budget), `packed.py` (one forward pass over pieces of many texts), `score.py` (log-probabilities),
`generate.py` with `decode.py` and `sampling.py` (text). It knows token ids only; text, stop strings and lm-eval's
conventions belong to the backend.
"""

from qwen2eval.engine.engine import Engine, EngineOptions
from qwen2eval.engine.sampling import GenerationParams

__all__ = ["Engine", "EngineOptions", "GenerationParams"]
