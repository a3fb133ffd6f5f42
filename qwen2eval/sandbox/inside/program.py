"""A whole program, as `python program.py` runs it: `__main__`, standard input, output and exit status."""

import atexit
import builtins
import gc
import io
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import Any

_STREAMS = {f"/dev/{name}": number for number, name in enumerate(("stdin", "stdout", "stderr"))}
_STREAMS |= {f"{folder}/fd/{number}": number for folder in ("/dev", "/proc/self") for number in range(3)}
# A label only: both this and any other status but 0 fail
MEMORY_STATUS = 120


def run_program(source: bytes, *, is_text: bool) -> int:
    """Run it to the end, with its threads and exit functions, and return its exit status."""
    builtins.open = io.open = _opens_standard_streams(builtins.open)
    main = ModuleType("__main__")
    main.__dict__.update({"__file__": "program.py", "__builtins__": builtins})
    sys.modules["__main__"] = main
    sys.argv = ["program.py"]
    status = _run(source, main, is_text=is_text)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter does at its end
        atexit._run_exitfuncs()
        _flush(sys.stderr, sys.stdout)
        del main
        sys.modules.pop("__main__", None)
        # Objects have their `__del__`, with all globals still there; files that are open are written
        gc.collect()
        _flush(sys.__stderr__, sys.__stdout__)
    except BaseException:  # noqa: BLE001  # a program's own exit functions; a stream that can't be written
        status = status or 1
    return status


def _opens_standard_streams(real: Any) -> Any:
    """Return an `open` for which `/dev/stdin` and its like are the descriptors: the sandbox has no such files."""

    def open_file(file: Any, *args: Any, **kwargs: Any) -> Any:
        name = os.fspath(file) if isinstance(file, str | os.PathLike) else None
        return real(os.dup(_STREAMS[name]) if name in _STREAMS else file, *args, **kwargs)

    return open_file


def _flush(*streams: Any) -> None:
    for stream in streams:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _run(source: bytes, main: ModuleType, *, is_text: bool) -> int:
    try:
        text: str | bytes = source.decode("utf-8") if is_text else source
        exec(compile(text, "program.py", "exec", dont_inherit=True), vars(main))  # noqa: S102  # what the sandbox is for
    except SystemExit as err:
        if err.code is None or isinstance(err.code, int):
            code = err.code or 0
            return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
        sys.stderr.write(f"{err.code}\n")
        return 1
    except BaseException as err:  # noqa: BLE001  # programs may raise anything
        try:
            traceback.print_exception(err, limit=-50)
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  # a program may have put anything there
            return 1
        return MEMORY_STATUS if isinstance(err, MemoryError) else 1
    return 0
