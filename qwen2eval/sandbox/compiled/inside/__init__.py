"""What runs inside the sandbox of a compiled program: the standard library and `sandbox/inside` only."""
