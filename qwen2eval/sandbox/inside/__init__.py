"""What runs inside the sandbox: the standard library and these modules, nothing else of qwen2eval."""
