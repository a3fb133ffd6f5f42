"""What the first bytes of a corpus file say: some files are not what their names promise, and would pass for read."""

from decontam.files import DAMAGED, Kind, open_binary
from decontam.records import BYTE_ORDER_MARK, Problem

_HEAD_BYTES, _POINTER_BYTES = 1_000, 1_024
_POINTER = b"version https://git-lfs.github.com/spec/"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def file_fault(path: str, kind: Kind, n_bytes: int) -> Problem | None:
    """Return why a file can't be read as its name says; None: it can, as far as its first bytes tell.

    Args:
        n_bytes: of the file, as it lies on the disk.
    """
    if n_bytes < _POINTER_BYTES and _head(path, is_packed=True).startswith(_POINTER):
        return Problem("unreadable", 0, "a git-lfs pointer, not the file itself: run git lfs pull")
    if kind.compression and not n_bytes:
        return Problem("truncated", 0, "an empty file, without even the header of a compressed one: get it again")
    if kind.format == "parquet":
        return None  # which says itself what is wrong with it
    head = _head(path)
    if _is_wide(head):
        return Problem("unreadable", 0, "UTF-16 or UTF-32, not UTF-8: convert it, as with iconv -f UTF-16 -t UTF-8")
    if kind.format == "jsonl":
        begin = head.removeprefix(BYTE_ORDER_MARK).lstrip()
        if begin.startswith(b"["):
            detail = "a JSON array, not one object a line: convert it with jq -c '.[]'"
            return Problem("not_json_lines", 0, detail)
        if begin.split(b"\n")[0].strip() == b"{":
            return Problem("not_json_lines", 0, "JSON in many lines, not one object a line: convert it with jq -c .")
    return None


def _head(path: str, *, is_packed: bool = False) -> bytes:
    """Return a file's first bytes, decompressed or not; what is wrong with it will be told by who reads it."""
    try:
        if is_packed:
            with open(path, "rb") as file:  # noqa: PTH123 - of 100,000 files
                return file.read(_HEAD_BYTES)
        with open_binary(path) as stream:
            return stream.read(_HEAD_BYTES)
    except (*DAMAGED, OSError):
        return b""


def _is_wide(head: bytes) -> bool:
    """Whether text has two or four bytes for each character; without a mark, those of Western text are mostly 0."""
    return head.startswith(_WIDE_MARKS) or 0.2 * len(head) < head.count(0) < 0.8 * len(head)
