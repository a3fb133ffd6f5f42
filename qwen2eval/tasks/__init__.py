"""Benchmarks as a run sees them: the registry, one adapter over lm-eval, what a metric measures."""
