"""Standard errors and intervals of scores."""
