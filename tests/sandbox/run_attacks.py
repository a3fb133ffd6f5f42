"""Runs all attacks at one level, as the user who calls it, and prints what came of each as JSON. Standard library only.

A process of its own, so that the tests can have another user run it. What must not happen is looked at from out here.
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from qwen2eval.sandbox import Sandbox
from qwen2eval.sandbox.inside import codec
from qwen2eval.sandbox.levels import uid_of_programs
from tests.sandbox.attacks import on_machine, on_resources, on_verdicts, right_programs

ATTACKS = [
    *on_verdicts.VERDICTS,
    *on_machine.FILES,
    *on_machine.SECRETS,
    *on_machine.NETWORK,
    *on_machine.PROCESSES,
    *on_machine.KERNEL,
    *on_resources.RESOURCES,
    *on_resources.BROKEN_TESTS,
    *right_programs.RIGHT,
    *right_programs.LEAVES,
]
ON_HOST = [*on_verdicts.VERDICTS, *on_resources.BROKEN_TESTS]
"""What the host judges, and so the same way whoever calls it."""
SECRET = "SECRET-31415926"
CANARY = "CANARY-27182818"
MAX_GROWTH_KB = 200 << 10


class Outside:
    """What attacks aim at, and how to see whether they hit."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary"
        self.canary.mkdir()
        self.canary.chmod(0o777)
        file = self.canary / "canary.txt"
        file.write_text(CANARY)
        file.chmod(0o666)
        self.abstract = f"qwen2eval-{os.getpid()}"
        self.tcp = self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.sockets = [
            self.tcp,
            self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", self.port)),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "unix")),
            self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "dgram")),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.abstract),
        ]
        for name in ("unix", "dgram"):
            (folder / name).chmod(0o777)
        self.folder = folder
        self.user = uid_of_programs() or os.getuid()
        # in a session of its own: a signal to our group must not be what hits it
        other = uid_of_programs()
        groups = {} if other is None else {"user": other, "group": other, "extra_groups": []}
        self.victim = subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True, **groups)

    @staticmethod
    def _listen(family, kind, address):
        sock = socket.socket(family, kind)
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        sock.setblocking(False)
        return sock

    def fill(self, text):
        marks = {
            "@CANARY@": str(self.canary),
            "@PORT@": str(self.port),
            "@UNIX@": str(self.folder / "unix"),
            "@DGRAM@": str(self.folder / "dgram"),
            "@ABSTRACT@": self.abstract,
            "@VICTIM@": str(self.victim.pid),
        }
        if isinstance(text, str):
            for mark, value in marks.items():
                text = text.replace(mark, value)
        return text

    def state(self):
        """Everything that no program may change."""
        victim = self.victim.pid
        files = {
            path.name: (path.read_text(), path.stat().st_mode, path.stat().st_mtime, path.stat().st_uid)
            for path in self.canary.iterdir()
        }
        temporary = [name for name in names_in("/tmp") if "escaped" in name]  # noqa: S108  # looked at, not used
        return {
            "canary": files,
            "canary mode": self.canary.stat().st_mode,
            "temporary files": temporary,
            "shared memory": names_in("/dev/shm", user=self.user),  # noqa: S108  # looked at, not used
            "system v": [system_v(name) for name in ("shm", "msg", "sem")],
            "mounts": mounts_of_sandboxes(),
            "sockets": [self._was_contacted(sock) for sock in self.sockets],
            "victim": [
                self.victim.poll(),
                os.getpriority(os.PRIO_PROCESS, victim),
                sorted(os.sched_getaffinity(victim)),
            ],
            "victim's limits": Path(f"/proc/{victim}/limits").read_text(),
            "own": [os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))],
            "interpreter": Path(os.__file__).stat().st_mtime,
            "sandbox": Path(codec.__file__).stat().st_mtime,
        }

    @staticmethod
    def _was_contacted(sock):
        try:
            sock.accept() if sock.type == socket.SOCK_STREAM else sock.recv(10)
        except BlockingIOError:
            return False
        return True

    def close(self):
        self.victim.kill()
        self.victim.wait()
        for sock in self.sockets:
            sock.close()


def names_in(folder, *, user=None):
    """The names of files, or of those of one user: others work on this machine, too."""
    names = []
    for path in Path(folder).iterdir():
        with contextlib.suppress(FileNotFoundError):
            if user is None or path.lstat().st_uid == user:
                names.append(path.name)
    return sorted(names)


def mounts_of_sandboxes():
    """Lines of the mount table that a sandbox, or a program in one, would add: others may mount meanwhile."""
    words = ("qwen2eval", "/box", "/newroot", "/oldroot", "/code", "/packages", " none ", "none /")
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if any(word in line for word in words)]


def system_v(name):
    """Objects of the key that attacks use."""
    lines = Path(f"/proc/sysvipc/{name}").read_text().splitlines()
    return [line for line in lines if line.split()[0] == "4242"]


def started_since(before):
    """Processes that are below us now and were not before, with their command names."""
    return {pid: name for pid, name in below(os.getpid()).items() if pid not in before}


def below(root):
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().rpartition(")")
                parents[int(entry.name)] = int(rest.split()[1])
                names[int(entry.name)] = name.partition("(")[2]
    found, growing = {root}, True
    while growing:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, growing = found | more, bool(more)
    return {pid: names[pid] for pid in found}


def resident_kb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def run_one(sandbox, attack, outside, processes):
    """Run one attack and return verdict and all that went wrong."""
    before, memory = outside.state(), resident_kb()
    check = {key: outside.fill(value) for key, value in attack.check.items()}
    execution = sandbox.check(**check)
    after = outside.state()
    wrong = [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
    if execution.verdict not in attack.verdicts:
        wrong.append(f"verdict {execution.verdict}, not {' or '.join(attack.verdicts)}")
    printed = execution.stdout + execution.stderr + execution.detail
    escaped = "ESCAPED" in execution.stdout
    if escaped != (sandbox.level in attack.seen_at):
        wrong.append("it succeeded" if escaped else "it was kept from what this level is said to allow")
    wrong += [f"it saw {secret}" for secret in (SECRET, CANARY) if secret in printed]
    # the worker itself may have been replaced; a process of another name, or more of them, is one too many
    if extra := {
        pid: name for pid, name in started_since(processes).items() if "python" not in name and "bwrap" not in name
    }:
        wrong.append(f"processes left: {extra}")
    if resident_kb() > memory + MAX_GROWTH_KB:
        wrong.append(f"memory grew from {memory} to {resident_kb()} KB")
    harmless = sandbox.check("def f(x): return x", entry_point="f", tests="assert f(5) == 5")
    if not harmless.passed:
        wrong.append(f"the check after it: {harmless.verdict}: {harmless.detail}")
    return {"name": attack.name, "wrong": wrong, **dataclasses.asdict(execution)}


def main():
    level, *only = sys.argv[1:]
    os.environ["QWEN2EVAL_SECRET"] = SECRET
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    folder = Path(tempfile.mkdtemp(prefix="qwen2eval-outside-"))
    folder.chmod(0o755)
    boxes = folder / "temporary"  # a place of its own: others may use sandboxes meanwhile
    boxes.mkdir()
    boxes.chmod(0o777)
    tempfile.tempdir = str(boxes)
    outside = Outside(folder)
    try:
        with Sandbox(level, workers=1) as sandbox:
            sandbox.check("print(1)")
            processes = below(os.getpid())
            wanted = [attack for attack in ATTACKS if attack.machine in ("", platform.machine())]
            chosen = [attack for attack in wanted if not only or attack.name in only]
            rows = [run_one(sandbox, attack, outside, processes) for attack in chosen]
            n_processes = len(below(os.getpid())) - len(processes)
        left = {name for pid, name in below(os.getpid()).items() if pid != os.getpid()} - {"sleep"}
        boxes_left = names_in(boxes)
    finally:
        outside.close()
        shutil.rmtree(folder, ignore_errors=True)
    result = {"level": sandbox.level, "uid": os.getuid(), "rows": rows, "more_processes": n_processes}
    sys.stdout.write(json.dumps({**result, "processes_left": sorted(left), "boxes_left": boxes_left}))


if __name__ == "__main__":
    main()
