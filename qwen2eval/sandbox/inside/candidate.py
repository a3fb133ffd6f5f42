"""The process in which a program's functions are called; it sees arguments, never tests or expected values.

Nothing in here decides anything: whatever the program does to this process, what it writes is a value, right or wrong.
"""

import sys
from types import ModuleType
from typing import Any

from qwen2eval.sandbox.inside.codec import UncarriedError, decode, encode, room_on_the_stack
from qwen2eval.sandbox.inside.wire import Channel

LOADED, LOAD_ERROR, RESULT, CHANGED, RAISED, UNCARRIED = b"L", b"E", b"R", b"M", b"X", b"U"
# Characters of an error message
MAX_TEXT = 2_000


def load_program(source: bytes, *, is_text: bool, name: str) -> ModuleType:
    """Run a program's source in a new module and return it. Raises whatever the program raises."""
    module = ModuleType(name)
    sys.modules[name] = module
    text: str | bytes = source.decode("utf-8") if is_text else source
    exec(compile(text, "<program>", "exec", dont_inherit=True), vars(module))  # noqa: S102  # what the sandbox is for
    return module


def find_entry_point(module: ModuleType, entry_point: str) -> Any:
    """Return the function named `entry_point`; of `Class.method`, the method of one new object.

    Raises:
        NameError: the program does not define it.
    """
    found: Any = module
    for name in entry_point.split("."):
        owner = found() if isinstance(found, type) else found
        try:
            found = getattr(owner, name)
        except AttributeError:
            raise NameError(f"the program does not define {entry_point!r}") from None
    if not callable(found):
        raise TypeError(f"{entry_point!r} is not callable")
    return found


def serve(channel: Channel, source: bytes, *, is_text: bool, entry_point: str) -> None:
    """Load the program, say so, and answer calls until the tests have no more."""
    try:
        function = find_entry_point(load_program(source, is_text=is_text, name="program"), entry_point)
    except BaseException as err:  # noqa: BLE001  # sys.exit() in a program is one, too
        _flush()
        channel.send(LOAD_ERROR, encode(_told(err)))
        return
    _flush()
    channel.send(LOADED, b"")
    while True:
        _, body = channel.receive()
        message = answer(function, body)
        # Before the answer: after the last one this process is ended
        _flush()
        channel.send(*message)


def answer(function: Any, body: bytes) -> tuple[bytes, bytes]:
    """Call the function with the arguments in `body` and return the message that answers."""
    with room_on_the_stack():
        number, args, kwargs = decode(body)
        before = encode((args, kwargs))
    try:
        value = function(*args, **kwargs)
        with room_on_the_stack():
            try:
                changed = encode((args, kwargs)) != before
            except UncarriedError:
                changed = True
            if changed:
                return CHANGED, encode((number, args, kwargs, value))
            return RESULT, encode((number, value))
    except UncarriedError as err:
        return UNCARRIED, encode((number, str(err)))
    except BaseException as err:  # noqa: BLE001  # as above
        return RAISED, encode((number, *_raised(err)))


def _raised(err: BaseException) -> tuple[str, tuple[object, ...], str, str]:
    """Return the nearest built-in class of an exception, its arguments and text, and the name of its own class."""
    nearest, text = _nearest(err), str(err)[:MAX_TEXT]
    # Not by the exception's own `args`, which its class may override
    args = BaseException.__dict__["args"].__get__(err)
    try:
        encode(args)
    except UncarriedError:
        args = (text,)
    return nearest.__name__, args, text, type(err).__name__


def _nearest(err: BaseException) -> type:
    return next(kind for kind in type(err).__mro__ if kind.__module__ == "builtins")


def _told(err: BaseException) -> tuple[str, str]:
    """Return the name of the nearest built-in class of an exception, and its text."""
    nearest = _nearest(err)
    text = f"{err}" if type(err) is nearest else f"{type(err).__name__}: {err}"
    return nearest.__name__, text[:MAX_TEXT]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112  # a program may have put anything there, or closed it
            continue
