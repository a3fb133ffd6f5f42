"""Metrics and answer extraction, one module a family of benchmarks."""
