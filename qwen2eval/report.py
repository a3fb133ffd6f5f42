"""The report of a finished run: made from its folder alone, the same whether a run, `score` or `report` writes it.

A fault in here (a figure, a template, a library) never costs the run: its folder is whole before anything is shown.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import RunFolderError
from qwen2eval.finished_run import Run

FORMATS = ("html", "md")


class Report(NamedTuple):
    """The result of writing one run's report."""

    paths: tuple[Path, ...] = ()
    """Files that were written; none after a fault."""
    fault: str | None = None
    """Why it could not be written, and what to do; None: it was."""
    exit_code: int = 0
    """3: a file of the run is missing or damaged; 70: the report itself failed."""


def write_report(run: Run, *, formats: Sequence[str] = FORMATS) -> Report:
    """Write the report and the figures of a finished run into its folder. Whatever fails is returned, never raised.

    Args:
        formats: "html", "md" or both.
    """
    try:
        from qwen2eval.reporting.render import write_pages

        return Report(write_pages(run, formats=formats))
    except RunFolderError as err:
        return Report(fault=str(err), exit_code=err.exit_code)
    # a library or a setting of it (MPLBACKEND), a template, a value that nobody foresaw: none is worth a run
    except Exception as err:  # noqa: BLE001
        reason = " ".join(str(err).split())
        fault = (
            f"the report of {str(run.path)!r} can't be written: {type(err).__name__}: {reason}. The run itself is "
            f"complete; `qwen2eval report {run.path}` does it again"
        )
        return Report(fault=fault, exit_code=70)


def with_report(run: Run) -> Run:
    """Write the report of a run that has just been finished or scored, and return the run with the fault, if any."""
    return replace(run, report_fault=write_report(run).fault)
