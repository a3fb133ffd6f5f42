"""A second model that judges finished answers."""
