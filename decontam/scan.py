"""The scan of a corpus: parts in, matches out.

Parts are independent: `scan_part` is all that a worker does, whichever engine runs it. A part's result is a file that
appears when the part is done, so a killed scan resumes where it was, and what is written at the end depends neither on
the number of workers nor on their order.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decontam.columns import Ints
from decontam.corpus import chunks, list_parts
from decontam.errors import DecontamError
from decontam.index import ReferenceIndex
from decontam.normalize import TEXT_VERSION
from decontam.part_result import FORMAT, Documents, PartResult, add_ngram_counts, read_part_result, read_problems
from decontam.records import Chunk, Part, Problem, ReadOptions, json_text, plain_text
from decontam.results import MANIFEST, Results, finish, load_results
from decontam.walk import expand

PART_BYTES = 64 << 20
_BATCH_CHARACTERS = 1 << 18
"""Of texts that are searched at once."""
MOST_MATCHES = 16
"""Items of one document, for each size of n-grams, of which evidence is kept, besides the best of each benchmark and
of each set of places: a document with a template of a benchmark shares n-grams with a thousand items. All of them are
counted."""


class Progress(NamedTuple):
    """How far a scan is."""

    n_bytes: int
    """Of the files, as they lie on the disk; those of parts that are done."""
    n_bytes_total: int
    n_documents: int
    n_matches: int


Runner = Callable[[Callable[[Part], PartResult], Sequence[Part]], Iterator[PartResult]]
"""Calls a function for each part, in any order and anywhere."""


def scan(
    paths: Sequence[str | Path],
    index: ReferenceIndex,
    *,
    output: str | Path,
    text_field: str = "text",
    workers: int | None = None,
    strict_input: bool = False,
    max_line_mb: int = 256,
    part_bytes: int = PART_BYTES,
    on_progress: Callable[[Progress], None] | None = None,
    runner: Runner | None = None,
) -> Results:
    """Search a corpus for the items of an index, and write what was found to a folder.

    Args:
        paths: files, folders or patterns: jsonl and text, plain, .gz, .zst, .bz2 or .xz, and parquet.
        output: the folder; a scan that was stopped resumes with the parts that are left.
        text_field: where a record's text is, as for `text_of`.
        workers: threads; None: one for each core.
        strict_input: stop at the first record that can't be read, instead of counting it.
        max_line_mb: longer lines (1e6 bytes) are left out, and counted.
        part_bytes: of files that are scanned at once; doesn't change what is found.
        runner: another engine than threads.

    Raises:
        DecontamError: no such files, a folder that holds another scan, or one that can't be written.
    """
    begin = time.monotonic()
    files = expand([str(path) for path in paths], skip=output)
    _check_names(files.files)
    if strict_input and files.unread:
        raise DecontamError(f"{files.unread[0].path}: {files.unread[0].kind}: {files.unread[0].detail}")
    options = ReadOptions(text_field=text_field, max_line_bytes=max_line_mb * 1_000_000)
    scanned = {
        "text_version": TEXT_VERSION,
        "index": index.fingerprint,
        "options": asdict(options),
        "references": len(index.references),
    }
    folder = Path(output)
    try:
        _prepare(folder, scanned)
        parts = list_parts(sorted(files.files), part_bytes=part_bytes)
        done = {part: folder / "parts" / f"{_key(part, scanned)}.parquet" for part in parts}
        work = partial(scan_part, index=index, options=options, strict_input=strict_input)
        run = runner or partial(run_in_threads, workers=workers)
        _run_rest(run, work, done, on_progress or (lambda _: None), strict_input=strict_input)
        read = partial(read_part_result, n_items=len(index.references), n_ngrams=index.n_ngrams)
        return finish(
            folder,
            index,
            map(read, done.values()),
            _sum_of_counts(done.values(), index.n_ngrams),
            scanned,
            files=files,
            begin=begin,
        )
    except OSError as err:
        raise DecontamError(f"{folder}: {err.strerror or err}: what was finished is kept; scan again") from err


def scan_part(part: Part, *, index: ReferenceIndex, options: ReadOptions, strict_input: bool = False) -> PartResult:
    """Search one part.

    Raises:
        DecontamError: with `strict_input`, the first record that can't be read.
    """
    result = PartResult.empty(part, n_items=len(index.references), n_ngrams=index.n_ngrams)
    for one in result.files:
        _scan_file(one, index, options, strict_input=strict_input)
    return result


def _scan_file(result: PartResult, index: ReferenceIndex, options: ReadOptions, *, strict_input: bool) -> None:
    """Search the part's stretch of one file."""
    part = result.part
    for chunk in chunks(part, options, result.problems):
        if chunk.is_json and "." in options.text_field:
            # the kernel finds a field at the top level only: nested ones are parsed first
            texts = _texts(chunk, range(len(chunk.begins)), result.problems, options)
            result.n_documents += len(texts)
            texts = _flagged(texts, index)
        else:
            if chunk.is_json:
                flags = index.flag_json_lines(chunk.buffer, chunk.begins, chunk.ends, options.text_field.encode())
            else:
                flags = index.flag_texts(chunk.buffer, chunk.begins, chunk.ends)
            texts = _texts(chunk, np.flatnonzero(flags).tolist(), result.problems, options)
            result.n_documents += len(flags) - int(flags.sum()) + len(texts) - chunk.n_missing
        _search(chunk, texts, result, index)
        result.n_rows = chunk.first_row + len(chunk.begins)
        result.n_bytes += int((chunk.ends - chunk.begins).sum())
        if strict_input and result.problems:
            break
    # long lines are reported before the others of their chunk, and chunks depend on parts
    result.problems.sort(key=lambda problem: problem.row)
    if strict_input and result.problems:
        kind, row, detail = result.problems[0]
        where = f"record {row} of its part from byte {part.begin}" if part.begin else f"record {row}"
        raise DecontamError(f"{part.path}, {where}: {kind}: {detail}")


def run_in_threads(
    work: Callable[[Part], PartResult], parts: Sequence[Part], *, workers: int | None = None
) -> Iterator[PartResult]:
    """Call a function for each part in threads; the search lets other threads run meanwhile."""
    n_workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(n_workers) as pool:
        waiting, running = iter(parts), set[Future[PartResult]]()
        try:
            while True:
                # few at a time, so that an error is seen before all else is done
                for part in waiting:
                    running.add(pool.submit(work, part))
                    if len(running) > n_workers:
                        break
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        finally:
            for future in running:
                future.cancel()


def _run_rest(
    run: Runner,
    work: Callable[[Part], PartResult],
    done: dict[Part, Path],
    on_progress: Callable[[Progress], None],
    *,
    strict_input: bool,
) -> None:
    """Scan the parts that have no result yet."""
    rest = [part for part, path in done.items() if not _is_done(path, strict_input=strict_input)]
    n_total = sum(one.n_bytes for part in done for one in part.files)
    n_bytes, n_documents, n_matches = n_total - sum(one.n_bytes for part in rest for one in part.files), 0, 0
    for result in run(work, rest):
        # the file is the mark that the part is done: a scan that is killed after this line does not repeat it
        result.write(done[result.part])
        n_bytes += sum(one.part.n_bytes for one in result.files)
        n_documents += sum(one.n_documents for one in result.files)
        n_matches += sum(one.n_matches for one in result.files)
        on_progress(Progress(n_bytes, n_total, n_documents, n_matches))


def _is_done(path: Path, *, strict_input: bool) -> bool:
    """Whether a part's result can be used; what could not be read may be readable by now."""
    try:
        problems = read_problems(path)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # not there, or the machine went down before it was on the disk
    return not any(strict_input or problem.kind == "unreadable" for problem in problems)


def _texts(chunk: Chunk, rows: Iterable[int], problems: list[Problem], options: ReadOptions) -> dict[int, str]:
    """Read the texts of some records of a chunk; those that can't be read go to `problems`."""
    texts: dict[int, str] = {}
    for i in rows:
        data, row = chunk.buffer[int(chunk.begins[i]) : int(chunk.ends[i])].tobytes(), chunk.first_row + i
        text = json_text(data, row, options, problems) if chunk.is_json else plain_text(data, row, problems)
        if text is not None:
            texts[i] = text
    return texts


def _flagged(texts: dict[int, str], index: ReferenceIndex) -> dict[int, str]:
    """Return the texts that must be searched."""
    # half a surrogate pair is no UTF-8, so such a text is flagged
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts.values()]
    ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    begins = np.concatenate((np.zeros(min(1, len(ends)), np.int64), ends[:-1]))
    flags = index.flag_texts(np.frombuffer(b"".join(encoded), np.uint8), begins, ends)
    return {i: text for (i, text), is_flagged in zip(texts.items(), flags.tolist(), strict=True) if is_flagged}


def _search(chunk: Chunk, texts: dict[int, str], result: PartResult, index: ReferenceIndex) -> None:
    """Search the texts of some of a chunk's records."""
    for batch in _batches(texts):
        places = np.array(batch, np.int64)
        rows, begins, ends = (
            chunk.first_row + places,
            *(at[places] + chunk.first_byte for at in (chunk.begins, chunk.ends)),
        )
        if chunk.first_byte < 0:
            begins = ends = np.full(len(places), -1)
        documents = Documents([texts[i] for i in batch], rows, begins, ends)
        result.add(index.find_in_texts(documents.texts, limit=MOST_MATCHES), documents)


def _batches(texts: dict[int, str]) -> Iterator[list[int]]:
    """Yield the keys of texts of together about so many characters as are searched at once."""
    batch, size = list[int](), 0
    for key, text in texts.items():
        batch.append(key)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_names(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            # tables can't hold it, and the filter would not find it again
            raise DecontamError(f"{path!r}: the name is not UTF-8: rename the file") from None


def _sum_of_counts(paths: Iterable[Path], n_ngrams: int) -> Ints:
    total = np.zeros(n_ngrams, np.int64)
    for path in paths:
        add_ngram_counts(path, total)
    return total


def _prepare(folder: Path, scanned: dict[str, object]) -> None:
    """Make the folder, or see that the one that is there belongs to the same scan."""
    manifest = folder / MANIFEST
    if manifest.exists():
        results = load_results(folder)
        before = results.manifest
        if results.is_older:
            raise DecontamError(
                f"{folder} holds a scan by another version of this program, which read some texts in another way: "
                "scan again into another --output"
            )
        if any(before.get(name) != value for name, value in scanned.items()):
            raise DecontamError(f"{folder} holds a scan for other references, rule or options: give another --output")
        manifest.unlink()  # it means that all is done
    (folder / "parts").mkdir(parents=True, exist_ok=True)


def _key(part: Part, scanned: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps([FORMAT, part, scanned], sort_keys=True).encode()).hexdigest()[:32]
