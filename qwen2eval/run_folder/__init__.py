"""A finished run on disk, as plain tables; independent of tasks and models."""
