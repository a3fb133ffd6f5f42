"""The seccomp filter by itself, without Landlock and namespaces, which would refuse much of this as well."""

import platform
import subprocess
import sys

import pytest

from qwen2eval.sandbox.inside.seccomp import ARCHITECTURES

SCRIPT = """
import ctypes, fcntl, os, resource, signal, socket, sys, threading
from qwen2eval.sandbox.inside.seccomp import Filter, build_filter
import platform
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0  # no new privileges
Filter(build_filter(machine=platform.machine(), landlock_abi=int(sys.argv[2]))).install()
other, (r, w) = os.getppid(), os.pipe()
try:
    print("done", eval(sys.argv[1]))
except OSError as err:
    print("refused", err.errno)
"""
REFUSED = {
    "signals": "os.kill(other, 0)",
    "signals to all": "os.kill(-1, 0)",
    "signals to a group": "os.kill(0, 0)",
    "owners of signals": "fcntl.fcntl(r, fcntl.F_SETOWN, other)",
    "kinds of signals": "fcntl.fcntl(r, 10, 9)",
    "leases": "fcntl.fcntl(r, 1024, 0)",
    "limits of others": "resource.prlimit(other, resource.RLIMIT_NOFILE)",
    "datagram pairs": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "sending to an address": "(lambda pair: pair[0].sendto(b'x', '/tmp/nowhere'))(socket.socketpair())",
    "file flags": "fcntl.ioctl(open('/dev/null'), 0x80086601, bytes(8))",
    "forks": "os.fork()",
    "programs": "os.execv('/bin/true', ['true'])",
    "sockets": "socket.socket()",
    "priorities": "os.setpriority(os.PRIO_PROCESS, 0, 5)",
}
ALLOWED = {
    "signals to itself": "os.kill(os.getpid(), 0)",
    "its limits": "resource.getrlimit(resource.RLIMIT_NOFILE)",
    "pairs": "(lambda pair: pair[0].send(b'x'))(socket.socketpair())",
    "terminals": "os.isatty(0)",
    "threads": "threading.Thread(target=len, args=('',)).start()",
    "flags": "fcntl.fcntl(r, fcntl.F_GETFL)",
    "modes, which stay": "os.chmod('/etc/passwd', 0)",
}

pytestmark = pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no filter for this processor")


def try_under_filter(what, abi="6"):
    done = subprocess.run([sys.executable, "-c", SCRIPT, what, abi], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    not_permitted, no_terminal = 1, 25  # the kernel's own objections are others
    assert try_under_filter(REFUSED[name]) == f"refused {no_terminal if name == 'file flags' else not_permitted}"


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    assert try_under_filter(ALLOWED[name]).startswith("done")


def test_truncating_by_path_needs_a_landlock_that_knows_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    assert try_under_filter(f"os.truncate({str(file)!r}, 0)", abi="2") == "refused 1"
    assert file.read_text() == "text"
    assert try_under_filter(f"os.truncate({str(file)!r}, 0)", abi="3") == "done None"
