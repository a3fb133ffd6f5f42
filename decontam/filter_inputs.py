"""Which files a filter copies where, and that the scan read them: what was not read is refused, or told.

A record that the scan could not read is copied and counted; a file of which nothing, or not all, could be read is an
error, since its copy would pass for clean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decontam.errors import DecontamError
from decontam.files import DATASET_PREFIX, SUMMARIES
from decontam.filter_plan import FilterOptions
from decontam.results import Results
from decontam.walk import Unread, base_of, expand

_REMEDIES = {
    "truncated": "repair it, or leave it out",
    "unreadable": "repair it, or leave it out",
    "missing_column": "scan again with the --text_field that it has, or leave it out",
    "not_json_lines": "convert it and scan again, or leave it out",
}
"""What to do about problems that concern a whole file."""


@dataclass(frozen=True)
class FilterInputs:
    """What a filter works on."""

    targets: Mapping[str, Path]
    """Where the copy of each file goes."""
    n_records: Mapping[str, int]
    """Of each file, read or not; blank lines don't count."""
    unread: tuple[Unread, ...]
    """Files and folders of the corpus that no scan reads: they have no copy."""
    again: tuple[str, ...]
    """Links to files that have a copy under another name."""
    folders: Mapping[Path, Path]
    """What folders below the output are copies of."""
    n_left_out: int
    """Files that were scanned, and that this filter was not given."""


def find_inputs(names: Sequence[str], results: Results, options: FilterOptions, *, output: Path) -> FilterInputs:
    """Return what a filter works on.

    Args:
        names: files, folders or patterns.
        output: folder of the copies.

    Raises:
        DecontamError: a file that wasn't scanned, was not read in full, or has changed since; two files with one
            name; a scan that can't say what is asked for.
    """
    if options.rule == "qwen2" and not (
        results.manifest["rule"]["min_lcs"] or results.manifest["rule"]["min_lcs_ratio"]
    ):
        raise DecontamError(
            f"{results.path} was scanned by the strict rule, so it doesn't say which documents match by the qwen2 "
            "rule: give --rule strict, or scan again"
        )
    if data_sets := [name for name in names if name.startswith(DATASET_PREFIX)]:
        raise DecontamError(
            f"{data_sets[0]}: only files can be filtered: save the data set as parquet or jsonl, and scan that"
        )
    found = expand(names, skip=output)
    targets, folders = dict[str, Path](), dict[Path, Path]()
    for name in names:
        base = base_of(name)
        for path in set(found.files).intersection(expand([name], skip=output).files):
            targets[path] = target = output / Path(path).relative_to(base)
            for copy, folder in zip(_up_to(output, target.parent), _up_to(base, Path(path).parent), strict=True):
                folders[copy] = min(folders.get(copy, folder), folder, key=_rights_of_others)
    targets = {path: targets[path] for path in found.files}
    _check_targets(targets, output)
    n_records = _check_scanned(targets, results)
    n_left_out = len(results.shards.keys() - targets.keys())
    return FilterInputs(targets, n_records, found.unread, found.again, folders, n_left_out)


def _rights_of_others(folder: Path) -> int:
    return (folder.stat().st_mode & 0o077).bit_count()


def _up_to(top: Path, folder: Path) -> list[Path]:
    """Return a folder and those above it, as far as `top`."""
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))] if folder != top else [top]


def _check_targets(targets: Mapping[str, Path], output: Path) -> None:
    taken: dict[Path, str] = {}
    for path, target in targets.items():
        if taken.setdefault(target, path) != path:
            raise DecontamError(f"{path} and {taken[target]} would both become {target}")
        if target.exists() and target.samefile(path):
            raise DecontamError(f"{path} would be overwritten: give another --output")
        if target.parent == output and target.name in SUMMARIES:
            raise DecontamError(f"{path}: {target} is where the filter's own summary goes: rename it, and scan again")


def _check_scanned(targets: Mapping[str, Path], results: Results) -> dict[str, int]:
    """Return how many records each file has."""
    stamps = {entry["path"]: list(entry["stamp"]) for entry in results.manifest["inputs"]}
    problems = results.problems[results.problems.kind != "invalid_utf8"]  # such a record was read
    of_files = problems[problems.kind.isin(list(_REMEDIES))]
    broken = {path: (detail, _REMEDIES[kind]) for path, kind, detail in of_files[["path", "kind", "detail"]].to_numpy()}
    n_unread = problems.drop_duplicates(["path", "row"]).path.value_counts().to_dict()
    n_records: dict[str, int] = {}
    for path in targets:
        if path not in stamps:
            raise DecontamError(f"{path} is not among the files of {results.path}: scan it first")
        if path in broken:
            detail, remedy = broken[path]
            raise DecontamError(f"{path} could not be read to its end ({detail}): {remedy}")
        n_read = int(results.shards[path]["n_documents"])
        if path in n_unread and not n_read:
            detail = problems[problems.path == path].detail.iloc[0]
            raise DecontamError(
                f"{path}: none of its {n_unread[path]:,} records could be read (the first: {detail}): scan again with "
                "the --text_field that it has, or leave it out"
            )
        info = Path(path).stat()
        if [info.st_size, info.st_mtime_ns] != stamps[path]:
            raise DecontamError(f"{path} has changed since the scan: scan again")
        n_records[path] = n_read + n_unread.get(path, 0)
    return n_records
