"""The `qwen2eval` command: each verb parses, makes one call of the library, and prints."""
