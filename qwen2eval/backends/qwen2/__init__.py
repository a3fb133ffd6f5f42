"""`--model qwen2`: the bundled architecture on the bundled engine."""
