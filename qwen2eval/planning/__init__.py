"""What a run will ask: requests of all docs, built, counted and checked before any weights are loaded."""
