"""A whole program, as `python program.py` runs it: `__main__`, standard input, output and exit status."""

import atexit
import sys
import threading
import traceback
from types import ModuleType

MEMORY_STATUS = 120  # a label only: both this and any other status but 0 fail


def run_program(source: bytes, *, is_text: bool) -> int:
    """Run it to the end, with its threads and exit functions, and return its exit status."""
    main = ModuleType("__main__")
    main.__dict__.update({"__file__": "program.py", "__builtins__": __builtins__})
    sys.modules["__main__"] = main
    sys.argv = ["program.py"]
    status = _run(source, main, is_text=is_text)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter does at its end
        atexit._run_exitfuncs()
        sys.stderr.flush()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # a program's own exit functions; a closed stdout
        status = status or 1
    return status


def _run(source: bytes, main: ModuleType, *, is_text: bool) -> int:
    try:
        text: str | bytes = source.decode("utf-8") if is_text else source
        exec(compile(text, "program.py", "exec", dont_inherit=True), vars(main))  # noqa: S102  # what the sandbox is for
    except SystemExit as err:
        if err.code is None or isinstance(err.code, int):
            return (err.code or 0) & 0xFF
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
