"""Showing finished runs: made from their folders alone, the same whether a run, `score` or `report` writes it.

A fault in here (a figure, a template, a library) never costs a run: its folder is complete before anything is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import Qwen2EvalError
from qwen2eval.exit_codes import ExitCode
from qwen2eval.reporting.markup import FORMATS
from qwen2eval.run_folder.folder import Run


class Report(NamedTuple):
    """The result of writing a report."""

    paths: tuple[Path, ...] = ()
    """Files that were written; none after a fault."""
    fault: str | None = None
    """Why it could not be written, and what to do; None: it was."""
    exit_code: ExitCode = ExitCode.OK
    """MISSING_DATA: a file of a run is missing or damaged; INCOMPLETE: the report itself failed."""


def write_report(run: Run, *, formats: Sequence[str] = FORMATS) -> Report:
    """Write the report and the figures of a finished run into its folder. Errors are returned, never raised.

    Args:
        run: its folder is complete.
        formats: "html", "md" or both.
    """

    def write() -> tuple[Path, ...]:
        from qwen2eval.reporting.render import write_pages

        return write_pages(run, formats=formats)

    remedy = f"The run itself is complete; `qwen2eval report {run.path}` does it again"
    return _reported(f"the report of {str(run.path)!r}", remedy, write)


def write_together(runs: Sequence[Run], folder: Path, *, formats: Sequence[str] = FORMATS) -> Report:
    """Write one page of several runs. Errors are returned, never raised.

    Args:
        runs: in the order in which they are shown.
        folder: of the page and its figures.
        formats: "html", "md" or both.
    """

    def write() -> tuple[Path, ...]:
        from qwen2eval.reporting.side_by_side import write_side_by_side

        return write_side_by_side([(run.info, run.score_rows()) for run in runs], folder, formats=formats)

    return _reported(f"the page {str(folder)!r}", "The runs themselves are complete", write)


def with_report(run: Run) -> Run:
    """Write the report of a run that has just been finished or scored, and return the run with the fault, if any."""
    return replace(run, report_fault=write_report(run).fault)


def _reported(what: str, remedy: str, write: Callable[[], tuple[Path, ...]]) -> Report:
    try:
        return Report(write())
    except Qwen2EvalError as err:
        return Report(fault=str(err), exit_code=err.exit_code)
    # A library or its setting (MPLBACKEND), a template, an unforeseen value: no such error may cost a finished run
    except Exception as err:  # noqa: BLE001
        reason = " ".join(str(err).split())
        return Report(
            fault=f"{what} can't be written: {type(err).__name__}: {reason}. {remedy}", exit_code=ExitCode.INCOMPLETE
        )
