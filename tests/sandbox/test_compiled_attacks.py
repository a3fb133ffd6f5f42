"""Compiled programs that attack the machine, judged from outside: files, sockets, processes, memory.

Written for this project. `ESCAPED` in what a program prints is a success of the attack.
"""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from qwen2eval.sandbox.compiled import CompiledSandbox
from qwen2eval.sandbox.compiled.inside.supervisor import MAX_FILES
from qwen2eval.sandbox.levels import BWRAP
from tests.sandbox.conftest import NOBODY, REPOSITORY, readable_python, skip_without

SECRET = "what-no-program-may-see"
CALLS = """
#include <cstdio>
#include <cerrno>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/sched.h>
static void attempt(const char *name, long result) {
  if (result >= 0) std::printf("ESCAPED %s\\n", name); else std::printf("refused %s %d\\n", name, errno);
}
int main() {
  char page[4096] = {0};
  struct clone_args { unsigned long flags, rest[10]; } arguments = {CLONE_NEWUSER};
  attempt("socket", syscall(SYS_socket, 2, 1, 0));
  attempt("unix socket", syscall(SYS_socket, 1, 1, 0));
  attempt("netlink", syscall(SYS_socket, 16, 3, 0));
  attempt("inet pair", syscall(SYS_socketpair, 2, 1, 0, page));
  attempt("ptrace", syscall(SYS_ptrace, 16, 1, 0, 0));
  attempt("unshare", syscall(SYS_unshare, CLONE_NEWUSER));
  attempt("clone", syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0));
  attempt("clone3", syscall(435, &arguments, sizeof arguments));
  attempt("setns", syscall(SYS_setns, 0, 0));
  attempt("mount", syscall(SYS_mount, "none", "/box", "tmpfs", 0, 0));
  attempt("fsopen", syscall(430, "tmpfs", 0));
  attempt("bpf", syscall(SYS_bpf, 0, page, 64));
  attempt("keyctl", syscall(SYS_keyctl, 0, -3, 1));
  attempt("add_key", syscall(SYS_add_key, "user", "name", "x", 1, -3));
  attempt("perf", syscall(SYS_perf_event_open, page, 0, -1, -1, 0));
  attempt("userfaultfd", syscall(SYS_userfaultfd, 1));
  attempt("io_uring", syscall(425, 4, page));
  attempt("memfd", syscall(SYS_memfd_create, "x", 0));
  attempt("memfd_secret", syscall(447, 0));
  attempt("shmget", syscall(SYS_shmget, 0, 1 << 20, 01600));
  attempt("vm_readv", syscall(SYS_process_vm_readv, 1, page, 1, page, 1, 0));
  attempt("open_by_handle", syscall(SYS_open_by_handle_at, -100, page, 0));
  attempt("chroot", syscall(SYS_chroot, "/"));
  attempt("pidfd_getfd", syscall(438, 0, 0, 0));
  attempt("setuid", syscall(SYS_setuid, 0));
  attempt("mknod", syscall(SYS_mknodat, -100, "disk", 060600, 0x800));
  attempt("syslog", syscall(SYS_syslog, 3, page, 4096));
  attempt("clock", syscall(SYS_clock_settime, 0, page));
}
"""
NETWORK = {
    "js": "require('net').connect(@PORT@, '127.0.0.1').on('error', e => console.log(e.code))",
    "java": """
class Problem {
  public static void main(String[] a) {
    try { new java.net.Socket("127.0.0.1", @PORT@); System.out.println("ESCAPED"); }
    catch (Exception e) { System.out.println(e); }
  }
}
""",
    "pl": "use IO::Socket::INET; print IO::Socket::INET->new('127.0.0.1:@PORT@') ? 'ESCAPED' : 'no';",
    "rb": """
require 'socket'
begin
  TCPSocket.new('127.0.0.1', @PORT@)
  puts 'ESCAPED'
rescue => err
  puts err
end
""",
    "rs": """
fn main() {
  let called = std::net::TcpStream::connect("127.0.0.1:@PORT@");
  println!("{}", if called.is_ok() {"ESCAPED"} else {"no"});
}
""",
}
SHARED_MEMORY = """
#include <sys/mman.h>
#include <string.h>
int main() {
  const long size = 4L << 30;
  char *all = (char *)mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (long at = 0; at < size; at += 4096) all[at] = 1;
}
"""


@pytest.fixture(scope="module")
def sandbox():
    skip_without(BWRAP)
    os.environ["QWEN2EVAL_SELF_CHECK"] = SECRET
    yield CompiledSandbox()
    del os.environ["QWEN2EVAL_SELF_CHECK"]


@pytest.fixture
def secret_file(tmp_path):
    path = Path(f"/var/tmp/{tmp_path.name}-{os.getpid()}.txt")  # noqa: S108  # as far as /var is seen at all
    path.write_text(SECRET)
    path.chmod(0o666)
    yield path
    assert path.read_text() == SECRET
    path.unlink()


def running(mark):
    """Return the numbers of processes that have `mark` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def run(sandbox, language, program, **options):
    if why := sandbox.why_not(language):
        pytest.skip(why)
    execution = sandbox.check(program, language=language, **{"timeout_seconds": 5, **options})
    assert "ESCAPED" not in execution.stdout, execution.stdout
    assert SECRET not in execution.stdout + execution.stderr + execution.detail
    return execution


def test_calls_of_the_kernel(sandbox):
    execution = run(sandbox, "cpp", CALLS)
    assert execution.verdict == "passed", execution.stderr
    assert len(execution.stdout.splitlines()) == 28


@pytest.mark.parametrize(
    "line",
    [
        "cat {file}",
        "echo x >> {file}",
        "echo x > {folder}/new",
        "rm {file}",
        "chmod 600 {file}",
        "cat /etc/passwd",
        "cat /etc/shadow",
        "ls /root",
        "ls /home",
        "ls {repository}",
        "ls /var/tmp",
        "cat /compiled/supervisor.py",
        "ls /code",
        "echo x > /usr/x",
        "echo x > /etc/x",
        "mkdir /new",
        "echo x > /dev/new",
        "echo x > /proc/sys/kernel/core_pattern",
        "cat /proc/sys/kernel/random/boot_id > /proc/sysrq-trigger",
        "cat /proc/1/environ && [ -s /proc/1/environ ]",
        "ls /proc/1/fd",
        "head -c1 /proc/1/mem",
        "cat /proc/1/maps",
        "ls /proc/1/root/",
        "unshare -U true",
        "mount -t tmpfs none /box",
        "su -c true",
        "[ $(ls /proc/self/fd | wc -l) -gt 4 ]",
        "[ $(ls -d /proc/[0-9]* | wc -l) -gt 8 ]",
        "exec 3<>/dev/tcp/127.0.0.1/{port}",
        "exec 3<>/dev/udp/127.0.0.1/{port}",
        "kill -9 1; sleep 0.2; [ ! -d /proc/1 ]",
    ],
)
def test_what_a_shell_tries(sandbox, secret_file, line):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        line = line.format(file=secret_file, folder=secret_file.parent, repository=REPOSITORY, port=port)
        execution = run(sandbox, "sh", f"if ( {line} ); then echo ESCAPED; else echo refused; fi")
        assert execution.stdout.endswith("refused\n"), (execution.detail, execution.stderr)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_a_shell_may_do(sandbox):
    script = "echo 1 > /tmp/x; cat /tmp/x <(echo 2) /dev/stdin; cat <<< 3; mkfifo p; (echo 4 > p &); cat p"
    execution = run(sandbox, "sh", script)
    assert (execution.verdict, execution.stdout) == ("passed", "1\n2\n3\n4\n")


def test_the_environment_is_empty(sandbox):
    execution = run(sandbox, "sh", "env; cat /proc/*/environ")
    assert SECRET not in execution.stdout
    names = {line.partition("=")[0] for line in execution.stdout.splitlines() if "=" in line and "\0" not in line}
    assert names == {"PATH", "HOME", "TMPDIR", "LANG", "PWD", "SHLVL", "_"}


@pytest.mark.parametrize("language", NETWORK)
def test_the_network_of_each_language(sandbox, language):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        program = NETWORK[language].replace("@PORT@", str(server.getsockname()[1]))
        execution = run(sandbox, language, program, timeout_seconds=10)
        assert execution.verdict == "passed", execution.stderr
        assert execution.stdout
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("cpp", '#include "{file}"\nint main() {{}}'),
        ("cpp", '#include "/etc/passwd"\nint main() {{}}'),
        ("rs", 'fn main() {{ println!("{{}}", include_str!("{file}")); }}'),
        ("rs", 'fn main() {{ println!("{{}}", env!("QWEN2EVAL_SELF_CHECK")); }}'),
    ],
)
def test_compilers_see_no_files_either(sandbox, secret_file, language, program):
    execution = run(sandbox, language, program.format(file=secret_file))
    assert execution.verdict == "error"
    assert execution.detail.startswith("it does not compile")


@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("cpp", "#include <vector>\nint main() { std::vector<char> a; for (;;) a.resize(a.size() + (1 << 20), 1); }"),
        ("cpp", SHARED_MEMORY),
        ("js", "const a = []; for (;;) a.push(new Array(100000).fill(1));"),
        ("pl", "my @a; push @a, 'x' x 1000000 while 1;"),
        ("rb", "a = []\nloop { a << 'x' * 1000000 }"),
        ("rs", "fn main() { let mut a: Vec<Vec<u8>> = vec![]; loop { a.push(vec![1; 1 << 20]); } }"),
        ("sh", "a=x; while :; do a=$a$a; done"),
        ("sh", "for n in 1 2 3 4 5 6 7 8; do perl -e '$a = \"x\" x (60 << 20); sleep 100' & done; wait"),
    ],
    ids=["cpp", "shared", "js", "pl", "rb", "rs", "sh", "many-processes"],
)
def test_memory_is_limited_in_sum(sandbox, language, program):
    execution = run(sandbox, language, program, memory_mb=300, timeout_seconds=10)
    assert execution.verdict == "out_of_memory", (execution.detail, execution.stderr)
    assert execution.max_rss_mb < 3_000


def test_a_compiler_that_does_not_end(sandbox):
    endless = "constexpr int f() { int s = 0; for (long n = 0; ; n++) s += n & 1; return s; }\nstatic_assert(f());"
    execution = run(sandbox, "cpp", endless + "\nint main() {}")
    assert execution.verdict in ("error", "timed_out", "out_of_memory")
    huge = "int a[1 << 28] = {1};\nint main() { return a[0] - 1; }"
    assert run(sandbox, "cpp", huge).verdict in ("error", "timed_out", "out_of_memory")


@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("sh", "b() { b | b & b; }; b; wait; exec -a bomb-mark sleep 100"),
        ("cpp", "#include <unistd.h>\nint main() { for (;;) fork(); }"),
        ("pl", "fork while 1;"),
        ("rb", "loop { fork rescue nil }"),
    ],
    ids=["sh", "cpp", "pl", "rb"],
)
def test_fork_bombs_end(sandbox, language, program):
    started = time.monotonic()
    execution = run(sandbox, language, program, timeout_seconds=2)
    assert execution.verdict in ("error", "timed_out", "out_of_memory")
    assert time.monotonic() - started < 300
    assert sandbox.check("echo well", language="sh").stdout == "well\n"


def test_nothing_is_left_behind(sandbox):
    mark = f"left-{os.getpid()}"
    script = f"(trap '' HUP TERM INT; setsid bash -c 'exec -a {mark} sleep 600' &) ; sleep 0.2; echo done"
    execution = run(sandbox, "sh", script)
    assert (execution.verdict, execution.stdout) == ("passed", "done\n")
    assert running(mark) == []
    execution = run(sandbox, "sh", f"bash -c 'exec -a {mark} sleep 600' & exec -a {mark} sleep 600", timeout_seconds=1)
    assert execution.verdict == "timed_out"
    assert running(mark) == []


def test_output_and_files_are_limited(sandbox):
    started = time.monotonic()
    execution = run(sandbox, "sh", "yes", timeout_seconds=30)
    assert execution.verdict == "output_limit"
    assert len(execution.stdout) <= 256 << 10
    assert run(sandbox, "sh", "yes >&2", timeout_seconds=30).verdict == "output_limit"
    assert run(sandbox, "pl", "open F, '>f'; print F 'x' x 1000000 for 1..1000;").verdict == "output_limit"
    execution = run(sandbox, "sh", "for n in $(seq 20); do head -c 50000000 /dev/zero > f$n || exit 3; done")
    assert execution.verdict == "error"
    many = f'for my $n (1..{2 * MAX_FILES}) {{ open F, ">f$n" or exit 3; close F }} sleep 100'
    assert run(sandbox, "pl", many, timeout_seconds=30).verdict == "output_limit"
    assert time.monotonic() - started < 300


def test_a_signal_to_all_ends_only_the_program(sandbox):
    assert run(sandbox, "sh", "kill -9 -1; echo still").verdict in ("crashed", "passed")
    assert run(sandbox, "cpp", "#include <signal.h>\nint main() { kill(1, SIGINT); kill(1, SIGTERM); }").passed


def test_closed_and_waiting_programs(sandbox):
    assert run(sandbox, "sh", "exec >&- 2>&- <&-; exit 0").passed
    assert run(sandbox, "sh", "cat; read x; exit 0").passed
    assert run(sandbox, "cpp", "#include <signal.h>\nint main() { raise(SIGSTOP); }", timeout_seconds=1).verdict == (
        "timed_out"
    )


SCRIPT = """
import json, sys, time
from qwen2eval.sandbox.compiled import CompiledSandbox
sandbox = CompiledSandbox()
for language, program in json.loads(sys.argv[1]):
    found = sandbox.check(program, language=language, timeout_seconds=float(sys.argv[2]))
    print(json.dumps([found.verdict, found.stdout, found.detail]), flush=True)
"""


def start_as(user, programs, *, timeout_seconds=5):
    command = [readable_python() if user == "ordinary" else os.sys.executable, "-c", SCRIPT]
    command += [json.dumps(programs), str(timeout_seconds)]
    if user == "ordinary":
        if os.geteuid() != 0:
            pytest.skip("the caller is an ordinary user already; another one needs root")
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY)}
    env["QWEN2EVAL_SELF_CHECK"] = SECRET
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=os.sep)


def test_the_same_for_an_ordinary_user(secret_file):
    skip_without(BWRAP)
    bomb = "#include <unistd.h>\nint main() { for (;;) fork(); }"
    programs = [
        ("cpp", CALLS),
        ("sh", f"cat {secret_file} && echo ESCAPED; cat /proc/*/environ; ls /proc/1/fd && echo ESCAPED"),
        ("sh", "kill -9 1; echo alive"),
        ("cpp", bomb),
        ("js", "console.log(process.pid > 0)"),
    ]
    host = start_as("ordinary", programs)
    out, err = host.communicate(timeout=600)
    found = [json.loads(line) for line in out.decode().splitlines()]
    assert len(found) == len(programs), err.decode()
    assert SECRET not in out.decode()
    assert "ESCAPED" not in out.decode()
    assert [verdict for verdict, *_ in found[:3]] == ["passed", "error", "passed"], found
    assert found[3][0] in ("error", "timed_out", "out_of_memory")
    assert found[4][:2] == ["passed", "true\n"]


@pytest.mark.parametrize("user", ["caller", "ordinary"])
def test_nothing_is_left_when_the_host_is_killed(user):
    skip_without(BWRAP)
    mark = f"orphan-{os.getpid()}-{user}"
    program = f"trap '' TERM; bash -c 'exec -a {mark} sleep 600' & exec -a {mark} sleep 600"
    host = start_as(user, [("sh", program)], timeout_seconds=600)  # so that no limit ends it
    try:
        deadline = time.monotonic() + 300
        while len([pid for pid in running(mark) if pid != host.pid]) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len([pid for pid in running(mark) if pid != host.pid]) >= 2, host.stderr.read(1000)
    finally:
        host.send_signal(signal.SIGKILL)
        host.communicate()
    deadline = time.monotonic() + 60
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = running(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert "/box" not in Path("/proc/self/mounts").read_text()
