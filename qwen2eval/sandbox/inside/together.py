"""Program and tests in one process, for tests that can't be separated: they pass functions, or objects of the program.

This can be cheated: code in the same process can read whatever is there. What is done: the program runs before the
tests are read, the tests see the built-ins as they were before the program, and the verdict counts only with a token
that is read from a pipe after the tests have returned. An object with a lying `__eq__` still wins.
"""

import builtins
import os
from typing import Any

from qwen2eval.sandbox.inside import codec, tester
from qwen2eval.sandbox.inside.candidate import find_entry_point, load_program
from qwen2eval.sandbox.inside.wire import Message, read_all


def judge_together(source: bytes, tests_fd: int, token_fd: int, job: Message) -> Message:
    """Run program and tests and return verdict, detail and token.

    Args:
        tests_fd: file with setup and tests as `encode` wrote them, read when the program has been loaded.
        token_fd: pipe with 16 random bytes, read when the tests are done.
    """
    names_of_builtins, clean = vars(builtins), dict(vars(builtins))
    read, read_tests, decode = os.read, read_all, codec.decode
    run, fail = exec, tester.failure
    try:
        module = load_program(source, is_text=job["is_text"], name="program")
        entry = find_entry_point(module, job["entry_point"])
    except BaseException as err:  # noqa: BLE001  # programs may raise anything
        memory = isinstance(err, MemoryError)
        return {"verdict": "out_of_memory" if memory else "error", "detail": f"{type(err).__name__}: {err}"[:2000]}
    names_of_builtins.clear()
    names_of_builtins.update(clean)
    job.update(decode(read_tests(tests_fd)))
    try:
        code = tester.compile_tests(job)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        return {"verdict": "not_run", "detail": f"the tests are broken: {type(err).__name__}: {err}"[:2000]}
    names: dict[str, Any] = {**vars(module), "__builtins__": clean, "__name__": "tests"}
    try:
        if code[0] is not None:
            run(code[0], names)
        names.update({name: value for name, value in vars(module).items() if not name.startswith("__")})
        names[job["entry_point"].rpartition(".")[2]] = entry
        run(code[1], names)
        if job["defines_check"]:
            names["check"](entry)
    except BaseException as err:  # noqa: BLE001  # as above
        return fail(err, called=True, uncarried=set())
    return {"verdict": "passed", "detail": "", "token": read(token_fd, 16).hex()}
