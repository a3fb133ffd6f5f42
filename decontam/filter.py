"""The cleaned corpus: documents that hold benchmark items dropped, or only what was found cut out or masked.

Files keep format and compression, and what isn't acted on stays as it was, byte for byte. A file appears when it is
complete; a filter that was stopped resumes with the files that are left.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from decontam.errors import DecontamError
from decontam.files import (
    DAMAGED,
    DATASET_PREFIX,
    DONE_FOLDER,
    SUMMARIES,
    create_binary,
    kind_of,
    open_binary,
)
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
from decontam.walk import base_of, expand

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
        DecontamError: a file that wasn't scanned, was broken, or has changed since; one that can't be written.
    """
    options, folder = options or FilterOptions(), Path(output)
    outputs = _outputs([str(path) for path in paths], folder)
    targets = find_targets(results, options)
    _check_inputs(outputs, results)
    try:
        (folder / DONE_FOLDER).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            work = [
                pool.submit(_filter_once, path, target, targets.get(path, {}), results, options, folder)
                for path, target in outputs.items()
            ]
            try:
                wait(work, return_when=FIRST_EXCEPTION)
            finally:
                for future in work:
                    future.cancel()  # after an error, or when stopped, what has not begun
            # files begin in order, so what failed comes before what was cancelled
            files = tuple(future.result() for future in work)
        problems = results.problems
        is_copied = problems.path.isin(outputs) & (problems.kind != "invalid_utf8")
        summary = FilterSummary(files, options, int(is_copied.sum()))
        _write_summary(folder, summary)
    except OSError as err:
        raise DecontamError(f"{folder}: {err.strerror or err}: what was finished is kept; filter again") from err
    return summary


def _outputs(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the copy of each file."""
    found: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for name in names:
        if name.startswith(DATASET_PREFIX):
            raise DecontamError(
                f"{name}: only files can be filtered: save the data set as parquet or jsonl, and scan that"
            )
        base = base_of(name)
        for path in expand([name]).files:
            target = folder / Path(path).relative_to(base)
            if taken.setdefault(target, path) != path:
                raise DecontamError(f"{path} and {taken[target]} would both become {target}")
            found[path] = target
    for path, target in found.items():
        if target.exists() and target.samefile(path):
            raise DecontamError(f"{path} would be overwritten: give another --output")
        if target.parent == folder and target.name in SUMMARIES:
            raise DecontamError(f"{path}: {target} is where the filter's own summary goes: rename it, and scan again")
    return found


def _check_inputs(outputs: Mapping[str, Path], results: Results) -> None:
    stamps = {entry["path"]: list(entry["stamp"]) for entry in results.manifest["inputs"]}
    broken = results.problems[results.problems.kind.isin(["truncated", "unreadable"])]
    details = dict(zip(broken.path, broken.detail, strict=True))
    for path in outputs:
        if path not in stamps:
            raise DecontamError(f"{path} is not among the files of {results.path}: scan it first")
        if path in details:
            raise DecontamError(f"{path} could not be read to its end ({details[path]}): repair it, or leave it out")
        info = Path(path).stat()
        if [info.st_size, info.st_mtime_ns] != stamps[path]:
            raise DecontamError(f"{path} has changed since the scan: scan again")


def _write_summary(folder: Path, summary: FilterSummary) -> None:
    files = [asdict(file) for file in summary.files]
    by_benchmark, by_rule = summary.by_benchmark, summary.by_rule
    content = {
        "options": asdict(summary.options),
        "totals": summary.totals,
        "by_benchmark": by_benchmark,
        "by_rule": by_rule,
        "files": files,
    }
    tables = [
        [{"option": name, "value": value} for name, value in asdict(summary.options).items()],
        [summary.totals],
        [{"benchmark": name, "n_documents": n} for name, n in by_benchmark.items()],
        [{"rule": name, "n_documents": n} for name, n in by_rule.items()],
        [{name: value for name, value in file.items() if not isinstance(value, dict)} for file in files],
    ]
    write_text(folder / SUMMARIES[0], json.dumps(content, indent=1, ensure_ascii=False))
    write_text(folder / SUMMARIES[1], "\n".join(as_markdown(table) for table in tables if table))


def _filter_once(
    path: str,
    target: Path,
    targets: Mapping[int, Target],
    results: Results,
    options: FilterOptions,
    folder: Path,
) -> FileSummary:
    """Filter a file unless that was done before."""
    info, text_field = Path(path).stat(), results.manifest["options"]["text_field"]
    inputs = [path, str(target), info.st_size, info.st_mtime_ns, text_field, asdict(options)]
    inputs += [results.manifest["index"], sorted((row, *one) for row, one in targets.items())]
    key = _hash(json.dumps(inputs))
    # one for each copy: a filter with other options makes it void
    marker = folder / DONE_FOLDER / f"{_hash(str(target.relative_to(folder)))}.json"
    if (done := _read_marker(marker, key, target)) is not None:
        return done
    target.parent.mkdir(parents=True, exist_ok=True)
    summary = FileSummary(path, str(target))
    for one in targets.values():
        summary.by_rule[one.rule] = summary.by_rule.get(one.rule, 0) + 1
        for benchmark in one.benchmarks:
            summary.by_benchmark[benchmark] = summary.by_benchmark.get(benchmark, 0) + 1
    try:
        match kind_of(path).format:
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
    with open_binary(path) as lines, create_binary(target) as out:
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
    if 0 in targets:
        spans = spans_to_cut(plain_text(data, 0, []), targets[0], options)
        if options.action == "drop":
            target.unlink(missing_ok=True)  # an earlier filter with other options may have kept it
            summary.n_documents_dropped, summary.output = 1, None
            return
        count_edited(summary, spans)
        data = edited_bytes(data, spans, mask=options.mask if options.action == "mask" else "")
    else:
        summary.n_documents_kept += bool(data)
    with create_binary(target) as out:
        out.write(data)
