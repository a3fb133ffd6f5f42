"""The embedded default: sample benchmarks, and the model that `qwen2eval run` uses when none is named."""
