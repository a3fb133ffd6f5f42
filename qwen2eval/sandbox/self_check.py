"""What this machine can contain: the levels, tried, and a dozen attacks run on the spot with our own targets.

The attacks are few, and mild if they succeed; the project's tests have some 250. `contained` is judged from outside: a
file that is still as it was, a socket that nobody called, a process that lives, a verdict that is not `passed`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2eval.sandbox.execution import Execution
from qwen2eval.sandbox.levels import STRONG_LEVELS, uid_of_programs
from qwen2eval.sandbox.probe import Probe, fixes, probe
from qwen2eval.sandbox.sandbox import Sandbox

_MARKER = "what-no-program-may-see"
_ANSWER = 918_273
_TESTS = f"assert f(2) == {_ANSWER}"
_SEARCH = """
def f(x):
    import os, re
    for fd in range(64):
        try:
            found = re.search(rb"== (\\d{6})", os.pread(fd, 100000, 0))
        except OSError:
            continue
        if found:
            return int(found[1])
"""
N_ATTACKS = 15

_Attack = tuple[str, dict[str, Any], Callable[[Execution], bool]]


@dataclass(frozen=True)
class AttackResult:
    """One attack: what was tried, whether it was contained, and the verdict on the program."""

    name: str
    contained: bool
    verdict: str


@dataclass(frozen=True)
class SelfCheck:
    """What a machine offers.

    Attributes:
        level: the strongest that works; `None` if none does.
        probes: each level that was tried.
        attacks: run at `level`; empty without one.
        advice: what would help, a line each.
    """

    level: str | None
    probes: tuple[Probe, ...]
    attacks: tuple[AttackResult, ...]
    advice: tuple[str, ...]

    @property
    def is_contained(self) -> bool:
        return self.level is not None and all(attack.contained for attack in self.attacks)


@dataclass
class _Targets:
    folder: Path
    listener: socket.socket
    victim: "subprocess.Popen[bytes]"

    @property
    def file(self) -> Path:
        return self.folder / "file.txt"

    def is_untouched(self) -> bool:
        """Return whether nothing has been read into, written, deleted, called or killed."""
        with contextlib.suppress(BlockingIOError):
            self.listener.accept()[0].close()
            return False
        names = sorted(path.name for path in self.folder.iterdir())
        return names == ["file.txt", "socket"] and self.file.read_text() == _MARKER and self.victim.poll() is None


def check_machine(levels: tuple[str, ...] = STRONG_LEVELS) -> SelfCheck:
    """Try the levels, strongest first, and run the attacks at the first that works."""
    probes = tuple(probe(level) for level in levels)
    level = next((found.level for found in probes if found.works), None)
    advice = fixes([found.reason for found in probes if not found.works])
    attacks = run_attacks(level) if level else ()
    return SelfCheck(level, probes, attacks, tuple(advice))


def run_attacks(level: str) -> tuple[AttackResult, ...]:
    """Run the attacks at one level."""
    results = []
    os.environ["QWEN2EVAL_SELF_CHECK"] = _MARKER
    try:
        with Sandbox(level, workers=1) as sandbox:
            for number in range(N_ATTACKS):
                with _targets() as targets:
                    name, check, is_harmless = _attacks(targets)[number]
                    execution = sandbox.check(**{"timeout_seconds": 1, **check})
                    seen = _MARKER in execution.stdout + execution.stderr
                    contained = not seen and targets.is_untouched() and is_harmless(execution)
                results.append(AttackResult(name, contained, execution.verdict))
    finally:
        del os.environ["QWEN2EVAL_SELF_CHECK"]
    return tuple(results)


def _attacks(targets: _Targets) -> list[_Attack]:
    """Return each attack's name, check, and the test that it did no harm, besides the targets."""
    file, victim = str(targets.file), targets.victim.pid
    look = "text = str(os.environ) + open(f'/proc/{os.getppid()}/environ').read(); print(text)"
    connect = f"s = socket.socket(socket.AF_UNIX); s.connect({str(targets.folder / 'socket')!r})"
    # PTRACE_ATTACH
    trace = f"assert ctypes.CDLL(None).ptrace(16, {victim}, 0, 0) == 0"
    return [
        _act("reads a file", f"print(open({file!r}).read())"),
        _act("writes a file", f"open({file!r}, 'a').write('x')"),
        _act("deletes a file", f"os.unlink({file!r})"),
        _act("looks for keys in the environment", look),
        _act("opens a network socket", "socket.socket()"),
        _act("calls a local socket", connect),
        _act("forks", "os.fork() or os._exit(0)"),
        _act("kills a process of its user", f"os.kill({victim}, signal.SIGKILL)"),
        _act("traces a process of its user", trace),
        _fake("equals everything", "class A:\n  def __eq__(s, o): return True\ndef f(x): return A()"),
        _fake("ends with status 0", "import os\nos._exit(0)"),
        _fake("looks for the tests", _SEARCH),
        _use("allocates 100 GB", "x = bytearray(100 << 30)", "out_of_memory"),
        _use("prints without end", "while True: print('x' * 100000)", "output_limit"),
        _use("spins without end", "while True: pass", "timed_out"),
    ]


def _act(name: str, line: str) -> _Attack:
    tried = f"try:\n    {line}\nexcept Exception as err: print(err)\nelse: print('DONE')"
    check = {"program": "import ctypes, os, signal, socket\n" + tried}
    return name, check, lambda execution: "DONE" not in execution.stdout


def _fake(name: str, program: str) -> _Attack:
    return name, {"program": program, "entry_point": "f", "tests": _TESTS}, lambda execution: not execution.passed


def _use(name: str, program: str, verdict: str) -> _Attack:
    return name, {"program": program}, lambda execution: execution.verdict == verdict


@contextlib.contextmanager
def _targets() -> Iterator[_Targets]:
    """Make a directory, a file, a socket and a process that the programs' user may use."""
    # /bin/sleep whatever PATH says: the programs' user may not be able to enter its folders
    victim = subprocess.Popen(
        ["/bin/sleep", "600"], user=uid_of_programs(), start_new_session=True, stdout=subprocess.DEVNULL
    )
    folder, listener = Path(tempfile.mkdtemp(prefix="qwen2eval-self-check-")), socket.socket(socket.AF_UNIX)
    try:
        (folder / "file.txt").write_text(_MARKER)
        listener.bind(str(folder / "socket"))
        listener.listen()
        listener.setblocking(False)
        for path, mode in ((folder, 0o777), (folder / "file.txt", 0o666), (folder / "socket", 0o777)):
            path.chmod(mode)
        yield _Targets(folder, listener, victim)
    finally:
        listener.close()
        victim.kill()
        victim.wait()
        shutil.rmtree(folder, ignore_errors=True)
