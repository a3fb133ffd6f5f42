"""Answers of models: the response store, and asking for what it lacks."""
