"""`--model local-completions` and `local-chat-completions`: OpenAI-compatible servers."""
