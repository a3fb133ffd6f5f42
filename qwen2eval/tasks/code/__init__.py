"""Benchmarks whose answers are programs, run in the sandbox."""
