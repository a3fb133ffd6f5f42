"""The cleaned corpus: documents that hold benchmark items dropped, or only what was found cut out or masked.

Files keep format and compression, and what isn't acted on stays as it was, byte for byte. A file appears when it is
complete; a filter that was stopped resumes with the files that are left.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from decontam.errors import DecontamError
from decontam.files import DAMAGED, DONE_FOLDER, SUMMARIES, beside, create_binary, kind_of, open_binary, take_mode
from decontam.filter_inputs import FilterInputs, find_inputs
from decontam.filter_plan import (
    FileSummary,
    FilterOptions,
    FilterSummary,
    Target,
    count_edited,
    find_targets,
    spans_to_cut,
)
from decontam.filter_tables import filter_parquet
from decontam.json_edit import edited_bytes, edited_line
from decontam.records import ReadOptions, json_text, plain_text
from decontam.results import Results, as_markdown, write_text

_PIECE_BYTES = 1 << 24
"""Longer lines are copied in pieces, so that memory doesn't grow with them."""


def filter_corpus(
    paths: Sequence[str | Path],
    results: Results,
    *,
    output: str | Path,
    options: FilterOptions | None = None,
    workers: int | None = None,
) -> FilterSummary:
    """Write a cleaned copy of a corpus.

    Args:
        paths: the files, folders or patterns that were scanned, or some of them.
        results: the scan.
        output: folder of the copies, which keep their names below the folder that was given, or that of the pattern.
        workers: files at a time; None: one for each core.

    Raises:
        DecontamError: a file that wasn't scanned, was not read in full, or has changed since; one that can't be
            written; a scan that doesn't say what is asked for.
    """
    options, folder = options or FilterOptions(), Path(output)
    inputs, targets = (
        find_inputs([str(path) for path in paths], results, options, output=folder),
        find_targets(results, options),
    )
    try:
        _make_folders(inputs.folders)
        (folder / DONE_FOLDER).mkdir(exist_ok=True)
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            work = [
                pool.submit(_filter_once, path, targets.get(path, {}), inputs, results, options, folder)
                for path in inputs.targets
            ]
            try:
                wait(work, return_when=FIRST_EXCEPTION)
            finally:
                for future in work:
                    future.cancel()  # after an error, or when stopped, what has not begun
            # files begin in order, so what failed comes before what was cancelled
            files = tuple(future.result() for future in work)
        problems = results.problems
        is_copied = problems.path.isin(inputs.targets) & (problems.kind != "invalid_utf8")
        summary = FilterSummary(
            files,
            options,
            int(is_copied.sum()),
            inputs.unread,
            inputs.again,
            inputs.n_left_out,
            _n_weaker(results, targets, inputs),
        )
        _write_summary(folder, summary)
    except OSError as err:
        raise DecontamError(f"{folder}: {err.strerror or err}: what was finished is kept; filter again") from err
    return summary


def _n_weaker(results: Results, targets: Mapping[str, Mapping[int, Target]], inputs: FilterInputs) -> int:
    """Return how many documents with a match are kept."""
    found = zip(results.matches.document_path, results.matches.document_row.tolist(), strict=True)
    return len({(path, row) for path, row in found if path in inputs.targets and row not in targets.get(path, {})})


def _make_folders(folders: Mapping[Path, Path]) -> None:
    """Make the folders of the copies, none open to more users than the folder that it is a copy of."""
    for folder in sorted(folders):
        if not folder.exists():
            folder.mkdir(0o700, parents=True)
            take_mode(folder, folders[folder].stat(), at_least=0o700)


def _write_summary(folder: Path, summary: FilterSummary) -> None:
    files = [asdict(file) for file in summary.files]
    by_benchmark, by_rule = summary.by_benchmark, summary.by_rule
    content = {
        "options": asdict(summary.options),
        "totals": summary.totals,
        "by_benchmark": by_benchmark,
        "by_rule": by_rule,
        "files": files,
        "not_copied": [one._asdict() for one in summary.unread],
        "links_not_copied": list(summary.again),
        "n_scanned_files_left_out": summary.n_left_out,
        "n_documents_with_weaker_matches": summary.n_weaker,
    }
    tables = [
        [{"option": name, "value": value} for name, value in asdict(summary.options).items()],
        [summary.totals],
        [{"benchmark": name, "n_documents": n} for name, n in by_benchmark.items()],
        [{"rule": name, "n_documents": n} for name, n in by_rule.items()],
        [{name: value for name, value in file.items() if not isinstance(value, dict)} for file in files],
        [{"not copied": one.path, "why": one.detail} for one in summary.unread],
    ]
    write_text(folder / SUMMARIES[0], json.dumps(content, indent=1, ensure_ascii=False))
    write_text(folder / SUMMARIES[1], "\n".join(as_markdown(table) for table in tables if table))


def _filter_once(
    path: str,
    targets: Mapping[int, Target],
    inputs: FilterInputs,
    results: Results,
    options: FilterOptions,
    folder: Path,
) -> FileSummary:
    """Filter a file unless that was done before; one without anything to act on is copied as it is."""
    target = inputs.targets[path]
    info, text_field = Path(path).stat(), results.manifest["options"]["text_field"]
    decisive = [path, str(target), info.st_size, info.st_mtime_ns, text_field, asdict(options)]
    decisive += [results.manifest["index"], sorted((row, *one) for row, one in targets.items())]
    key = _hash(json.dumps(decisive))
    # one for each copy: a filter with other options makes it void
    marker = folder / DONE_FOLDER / f"{_hash(str(target.relative_to(folder)))}.json"
    if (done := _read_marker(marker, key, target)) is not None:
        return done
    summary = FileSummary(path, str(target))
    for one in targets.values():
        summary.by_rule[one.rule] = summary.by_rule.get(one.rule, 0) + 1
        for benchmark in one.benchmarks:
            summary.by_benchmark[benchmark] = summary.by_benchmark.get(benchmark, 0) + 1
    try:
        match kind_of(path).format:
            case _ if not targets:
                _copy(path, target)
                summary.n_documents_kept = inputs.n_records[path]
            case "parquet":
                filter_parquet(path, target, targets, options, text_field, summary)
            case "text":
                _filter_text(path, target, targets, options, summary)
            case _:
                _filter_lines(path, target, targets, options, text_field, summary)
    except DecontamError as err:
        raise DecontamError(f"{path}: {err}") from err
    except DAMAGED as err:
        raise DecontamError(f"{path}: broken or cut compressed file ({err}): repair it, or leave it out") from err
    write_text(marker, json.dumps({"key": key, "stamp": _stamp(target), "summary": asdict(summary)}))
    return summary


def _copy(path: str, target: Path) -> None:
    with beside(target, like=path) as scratch, Path(path).open("rb") as file, scratch.open("wb") as out:
        shutil.copyfileobj(file, out, _PIECE_BYTES)
        out.flush()
        os.fsync(out.fileno())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stamp(target: Path) -> list[int] | None:
    if not target.exists():
        return None
    info = target.stat()
    return [info.st_size, info.st_mtime_ns]


def _read_marker(marker: Path, key: str, target: Path) -> FileSummary | None:
    """Return what was done with a file if its copy is still the one that this filter made."""
    try:
        recorded = json.loads(marker.read_text(encoding="utf-8"))
        return (
            FileSummary(**recorded["summary"])
            if (recorded["key"], recorded["stamp"]) == (key, _stamp(target))
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or the machine went down before it was on the disk


def _filter_lines(
    path: str,
    target: Path,
    targets: Mapping[int, Target],
    options: FilterOptions,
    text_field: str,
    summary: FileSummary,
) -> None:
    with open_binary(path) as lines, create_binary(target, like=path) as out:
        row = 0
        while piece := lines.readline(_PIECE_BYTES):
            if row in targets:
                line = piece + _rest_of_line(lines, piece)
                out.write(_acted_on(line, targets[row], options, text_field, summary))
            else:
                summary.n_documents_kept += not piece.isspace()
                out.write(piece)
                while piece and not piece.endswith(b"\n"):
                    piece = lines.readline(_PIECE_BYTES)
                    out.write(piece)
            row += 1


def _rest_of_line(lines: BinaryIO, piece: bytes) -> bytes:
    return b"" if piece.endswith(b"\n") else lines.readline()


def _acted_on(line: bytes, target: Target, options: FilterOptions, text_field: str, summary: FileSummary) -> bytes:
    """Return what is left of a line."""
    text = json_text(line.rstrip(b"\r\n"), 0, ReadOptions(text_field=text_field), [])
    if text is None:
        raise DecontamError("a document that was found has no text any more: scan again")
    spans = spans_to_cut(text, target, options)
    if options.action != "drop":
        try:
            edited = edited_line(line, text_field, spans, mask=options.mask if options.action == "mask" else "")
        except DecontamError:
            summary.n_not_editable += 1
        else:
            count_edited(summary, spans)
            return edited
    summary.n_documents_dropped += 1
    return b""


def _filter_text(
    path: str, target: Path, targets: Mapping[int, Target], options: FilterOptions, summary: FileSummary
) -> None:
    with open_binary(path) as file:
        data = file.read()
    spans = spans_to_cut(plain_text(data, 0, []), targets[0], options)
    if options.action == "drop":
        target.unlink(missing_ok=True)  # an earlier filter with other options may have kept it
        summary.n_documents_dropped, summary.output = 1, None
        return
    count_edited(summary, spans)
    data = edited_bytes(data, spans, mask=options.mask if options.action == "mask" else "")
    with create_binary(target, like=path) as out:
        out.write(data)
