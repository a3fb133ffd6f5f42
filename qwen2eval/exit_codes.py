"""The exit codes of the command line, each with the sentence that the docs give it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. The member's name, in words, is what `--help` shows; `meaning` is the line in the docs."""

    meaning: str

    OK = 0, "The command did what it was asked to do; of a run: all tasks are scored."
    MISSING_DATA = (
        3,
        "Data, a run folder or a store is missing or can't be read, or a training corpus was not read in full.",
    )
    USAGE = 64, "The command can't be used: an unknown task, model, flag or setting, or a folder that can't be written."
    INCOMPLETE = (
        70,
        (
            "A task failed, docs are missing from a score, or the report could not be written. The rest is scored; all "
            "finished answers are kept."
        ),
    )
    INTERRUPTED = 130, "Ctrl-C stopped the command. Finished answers are kept."

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """Make an integer with its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


def exit_codes_line() -> str:
    """Return all exit codes with their names in words, as every `--help` ends."""
    return "exit codes: " + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
