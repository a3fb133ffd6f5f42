"""How attacks are written down. All of them were written for this project; they need the standard library only.

Marks in the sources are replaced by what `run_attacks.py` has set up outside: @CANARY@ a directory that anybody may
write, @PORT@ a TCP and UDP port, @UNIX@, @DGRAM@ and @ABSTRACT@ sockets, @VICTIM@ a process of the same user. `ESCAPED`
in what a program prints is a success of the attack; all else is looked at from outside.
"""

from dataclasses import dataclass
from typing import Any

ANSWER = 918_273  # what tests expect of `f(2)`: no program can know it
TESTS = f"def check(candidate):\n    assert candidate(2) == {ANSWER}\n"
ASSERTS = f"class Own: pass\nassert f(2) == {ANSWER} and f is not Own\n"  # tests that can't be separated
NOT_PASSED = ("failed", "error", "crashed", "timed_out")
ENDED = ("passed", "error")
X86 = "x86_64"


@dataclass(frozen=True)
class Attack:
    """A check, the verdicts that are right, levels that let it through, and the machine that it is for."""

    name: str
    check: dict[str, Any]
    verdicts: tuple[str, ...]
    seen_at: tuple[str, ...] = ()
    machine: str = ""


def fake(name, program, *verdicts, tests=TESTS, **settings):
    """An attack on the verdict of a function."""
    check = {"program": program, "entry_point": "f", "tests": tests, "timeout_seconds": 2, **settings}
    return Attack(f"fake-{name}", check, verdicts or NOT_PASSED)


def act(name, body, *verdicts, seen_at=(), machine="", **settings):
    """An attack on the machine: the body either raises or has succeeded."""
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    program = (
        "import ctypes, fcntl, mmap, os, resource, shutil, signal, socket, subprocess, sys, threading, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(number, *arguments):\n"
        "    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]\n"
        "    result = libc.syscall(ctypes.c_long(number), *arguments)\n"
        "    if result < 0:\n"
        "        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "    return result\n"
        f"def attack():\n{lines}\n"
        "try:\n    attack()\n"
        "except BaseException as err:\n    print('refused', type(err).__name__, str(err)[:200])\n"
        "else:\n    print('ESCAPED')\n"
    )
    check = {"program": program, "timeout_seconds": 2, **settings}
    return Attack(f"act-{name}", check, verdicts or ("passed",), seen_at, machine)


def use(name, program, *verdicts, **settings):
    """An attack on resources, or a program that is merely broken; whole programs."""
    return Attack(f"use-{name}", {"program": program, "timeout_seconds": 0.5, **settings}, verdicts)


def right(name, program, **settings):
    """A right program, which must pass whatever it uses."""
    return Attack(f"right-{name}", {"program": program, "timeout_seconds": 10, **settings}, ("passed",))
