"""The search as a step of Ray Data, Spark or datatrove: one module each, and no other imports its engine."""
