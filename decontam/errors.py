"""What went wrong, in words for the user."""


class DecontamError(Exception):
    """Input, options or files that can't be used; the message says what, which, and what to do."""
