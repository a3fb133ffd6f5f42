"""The cleaned corpus: documents that hold benchmark items dropped, or only what was found cut out or masked.

Files keep format and compression, and what isn't acted on stays as it was, byte for byte. A file appears when it is
whole; a filter that was stopped goes on with the files that are left.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from decontam.errors import DecontamError
from decontam.files import create_binary, expand, kind_of, open_binary
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
from decontam.json_edit import edited_line, edited_text
from decontam.records import Problem, ReadOptions, json_text
from decontam.results import Results, as_markdown, write_text

DONE_FOLDER, SUMMARY = ".done", "summary.json"


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
        output: folder of the copies, which keep their names below the folder that was given.
        workers: files at a time; None: one for each core.

    Raises:
        DecontamError: a file that wasn't scanned, or has changed since; one that can't be written.
    """
    options, folder = options or FilterOptions(), Path(output)
    names = [str(path) for path in paths]
    outputs = _outputs(names, folder)
    targets = find_targets(results, options)
    _check_inputs(outputs, results)
    try:
        (folder / DONE_FOLDER).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
            work = [
                pool.submit(_filter_once, path, target, targets.get(path, {}), results, options, folder)
                for path, target in outputs.items()
            ]
            files = tuple(future.result() for future in work)
    except OSError as err:
        raise DecontamError(f"{folder}: {err.strerror or err}: what was finished is kept; filter again") from err
    summary = FilterSummary(files, options)
    told = {"options": asdict(options), "totals": summary.totals, "by_benchmark": summary.by_benchmark}
    write_text(folder / SUMMARY, json.dumps({**told, "files": [asdict(file) for file in files]}, indent=1))
    write_text(folder / "summary.md", as_markdown([asdict(file) for file in files]))
    return summary


def _outputs(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the copy of each file."""
    found: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for name in names:
        base = Path(os.path.abspath(name))  # noqa: PTH100 - links stay as they are
        for path in expand([name]).files:
            place = Path(path).relative_to(base) if base.is_dir() else Path(Path(path).name)
            if taken.setdefault(folder / place, path) != path:
                raise DecontamError(f"{path} and {taken[folder / place]} would both become {folder / place}")
            found[path] = folder / place
    for path, target in found.items():
        if target.exists() and target.samefile(path):
            raise DecontamError(f"{path} would be overwritten: give another --output")
    return found


def _check_inputs(outputs: Mapping[str, Path], results: Results) -> None:
    stamps = {entry["path"]: list(entry["stamp"]) for entry in results.manifest["inputs"]}
    for path in outputs:
        if path not in stamps:
            raise DecontamError(f"{path} is not among the files of {results.path}: scan it first")
        info = Path(path).stat()
        if [info.st_size, info.st_mtime_ns] != stamps[path]:
            raise DecontamError(f"{path} has changed since the scan: scan again")


def _filter_once(
    path: str,
    target: Path,
    targets: Mapping[int, Target],
    results: Results,
    options: FilterOptions,
    folder: Path,
) -> FileSummary:
    """Filter a file unless that was done before."""
    info = Path(path).stat()
    told = [path, str(target), info.st_size, info.st_mtime_ns, asdict(options)]
    told += [results.manifest["index"], sorted((row, *one) for row, one in targets.items())]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    marker = folder / DONE_FOLDER / f"{key}.json"
    if marker.exists():
        return FileSummary(**json.loads(marker.read_text(encoding="utf-8")))
    target.parent.mkdir(parents=True, exist_ok=True)
    text_field = results.manifest["options"]["text_field"]
    summary = FileSummary(path, str(target))
    for one in targets.values():
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
    write_text(marker, json.dumps(asdict(summary)))
    return summary


def _filter_lines(
    path: str,
    target: Path,
    targets: Mapping[int, Target],
    options: FilterOptions,
    text_field: str,
    summary: FileSummary,
) -> None:
    with open_binary(path) as lines, create_binary(target) as out:
        for row, line in enumerate(lines):
            if row not in targets:
                out.write(line)
            elif options.action == "drop":
                summary.n_documents_dropped += 1
            else:
                out.write(_edited_json(line, targets[row], options, text_field, summary))


def _edited_json(line: bytes, target: Target, options: FilterOptions, text_field: str, summary: FileSummary) -> bytes:
    problems: list[Problem] = []
    text = json_text(line.rstrip(b"\r\n"), 0, ReadOptions(text_field=text_field), problems)
    if text is None:
        raise DecontamError("a document that was found has no text any more: scan again")
    spans = spans_to_cut(text, target, options)
    if problems:  # bytes that are no UTF-8: no place in the text is a place in the line
        summary.n_documents_dropped += 1
        summary.n_not_editable += 1
        return b""
    count_edited(summary, spans)
    return edited_line(line, text_field, spans, mask=options.mask if options.action == "mask" else "")


def _filter_text(
    path: str, target: Path, targets: Mapping[int, Target], options: FilterOptions, summary: FileSummary
) -> None:
    with open_binary(path) as file:
        data = file.read()
    if 0 in targets:
        if options.action == "drop":
            summary.n_documents_dropped, summary.output = 1, None
            return
        text = data.decode("utf-8", "replace")
        spans = spans_to_cut(text, targets[0], options)
        count_edited(summary, spans)
        mask = options.mask if options.action == "mask" else ""
        data = edited_text(text, spans, mask=mask).encode("utf-8")
    with create_binary(target) as out:
        out.write(data)
