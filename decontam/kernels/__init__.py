"""The loops over bytes and tokens, compiled by numba: no types in their signatures, no objects inside.

Only the index and the matching import them. Compiled code is kept in `__pycache__`; the first call in a new
installation takes some seconds.
"""
