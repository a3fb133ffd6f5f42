"""Tasks whose prompts are built to a length in tokens of the model under test."""
