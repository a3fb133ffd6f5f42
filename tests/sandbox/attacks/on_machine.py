"""Programs that reach for files, secrets, the network, other processes and the kernel."""

from tests.sandbox.attacks.making import X86, act

FILES = [
    act("reads-a-file", "print(open('@CANARY@/canary.txt').read())"),
    act("writes-a-file", "open('@CANARY@/new.txt', 'w').write('x')"),
    act("appends", "open('@CANARY@/canary.txt', 'a').write('x')"),
    act("truncates", "os.truncate('@CANARY@/canary.txt', 0)"),
    act("deletes", "os.unlink('@CANARY@/canary.txt')"),
    act("deletes-the-tree", "shutil.rmtree('@CANARY@')"),
    act("renames", "os.rename('@CANARY@/canary.txt', '@CANARY@/moved.txt')"),
    act("moves-in", "os.rename('@CANARY@/canary.txt', 'mine.txt')"),
    act("hard-link", "os.link('@CANARY@/canary.txt', 'mine.txt'); open('mine.txt').read()"),
    act("symbolic-link", "os.symlink('@CANARY@/canary.txt', 'mine'); print(open('mine').read())"),
    act("changes-mode", "os.chmod('@CANARY@/canary.txt', 0); print('pretended')\nraise OSError"),
    act("changes-times", "os.utime('@CANARY@/canary.txt', (1, 1)); print('pretended')\nraise OSError"),
    act("changes-owner", "os.chown('@CANARY@/canary.txt', os.getuid(), os.getgid())"),
    act("sets-attribute", "os.setxattr('@CANARY@/canary.txt', 'user.x', b'1')"),
    act("reads-file-flags", "fcntl.ioctl(open('x', 'w'), 0x80086601, b'\\0' * 8)"),
    act(
        "sets-file-flags",
        "flags = fcntl.ioctl(open(sys.path[0] + '/abc.py'), 0x80086601, b'\\0' * 8)\n"
        "fcntl.ioctl(open(sys.path[0] + '/abc.py'), 0x40086602, flags)",
    ),
    act("lists", "print(os.listdir('@CANARY@'))"),
    act("lists-root", "print(os.listdir('/'))"),
    act("makes-a-directory", "os.mkdir('@CANARY@/new')"),
    act("makes-a-fifo", "os.mkfifo('fifo')"),
    act("makes-a-device", "os.mknod('device', 0o20666, os.makedev(1, 1))"),
    act("looks-at-metadata", "os.stat('@CANARY@/canary.txt')", seen_at=("landlock+seccomp",)),
    act("reads-passwd", "open('/etc/passwd').read()"),
    act(
        "reads-site-packages",
        """
found = []
for base in sys.path:
    for name in ('site-packages', '../site-packages', '../../python3/dist-packages'):
        for folder, _, files in os.walk(os.path.join(base, name)):
            for file in files:
                open(os.path.join(folder, file)).close()
                found.append(file)
if not found: raise OSError
""",
    ),
    act("changes-the-interpreter", "open(os.path.join(sys.path[0], 'abc.py'), 'a').write('#')"),
    act("changes-the-sandbox", "open(sys.modules['qwen2eval.sandbox.inside.codec'].__file__, 'a').write('#')"),
    act("writes-to-tmp", "open('/tmp/qwen2eval-escaped', 'w').write('x')"),
    act("writes-to-shm", "open('/dev/shm/qwen2eval-escaped', 'w').write('x')"),
    act("writes-to-the-tests-directory", "open('../tests/x.py', 'w').write('x')"),
    act("climbs", "os.chdir('..'); open('x', 'w').write('x')"),
    act("terminal", "open('/dev/tty', 'w').write('x')"),
    act("kernel-log", "open('/dev/kmsg').read(1)"),
    act("kernel-log-call", "b = ctypes.create_string_buffer(4096)\ncall(103, 3, b, 4096)", machine=X86),
    act(
        "watches-files",
        "fd = libc.inotify_init()\nif fd < 0: raise OSError\n"
        "if libc.inotify_add_watch(fd, b'@CANARY@', 0xfff) < 0: raise OSError",
    ),
    act(
        "file-handle",
        "b = ctypes.create_string_buffer(200)\nb[0] = 128\nm = ctypes.c_int()\n"
        "if libc.name_to_handle_at(-100, b'@CANARY@', b, ctypes.byref(m), 0) < 0: raise OSError",
    ),
    act("core-pattern", "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')"),
]

SECRETS = [
    act("environment", "text = repr(dict(os.environ))\nprint(text)\nif 'SECRET' not in text: raise OSError"),
    act(
        "environment-of-others",
        """
found = b''
for pid in [1, os.getppid(), *range(1, 400), @VICTIM@]:
    try: found += open(f'/proc/{pid}/environ', 'rb').read()
    except OSError: pass
print(found)
if not found: raise OSError
""",
    ),
    act(
        "command-lines",
        """
found = b''
for pid in [1, os.getppid(), @VICTIM@]:
    try: found += open(f'/proc/{pid}/cmdline', 'rb').read()
    except OSError: pass
if not found: raise OSError
""",
    ),
    act("descriptors-of-others", "os.listdir('/proc/@VICTIM@/fd')"),
    act(
        "inherited-descriptors",
        """
kinds = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')]
print(kinds)
""",
    ),
    act(
        "open-descriptors",
        """
import stat
opened = []
for fd in range(3, 4096):
    try: opened.append((fd, stat.S_IFMT(os.fstat(fd).st_mode)))
    except OSError: pass
print(opened)
if all(kind == stat.S_IFDIR for _, kind in opened): raise OSError
""",
    ),
]

NETWORK = [
    act("tcp", "socket.create_connection(('127.0.0.1', @PORT@), 1).send(b'x')"),
    act("udp", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @PORT@))"),
    act("unix", "s = socket.socket(socket.AF_UNIX); s.connect('@UNIX@'); s.send(b'x')"),
    act("unix-datagram", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '@DGRAM@')"),
    act("datagram-pair", "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', '@DGRAM@')"),
    act("makes-a-datagram-pair", "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"),
    act("pair-connects", "a, b = socket.socketpair(); a.connect('@UNIX@'); a.send(b'x')"),
    act("pair-sends", "a, b = socket.socketpair(); a.sendto(b'x', '@DGRAM@')"),
    act("abstract", "s = socket.socket(socket.AF_UNIX); s.connect('\\0@ABSTRACT@'); s.send(b'x')"),
    act(
        "filter-on-a-pair",
        "a, b = socket.socketpair()\ncode = ctypes.create_string_buffer(b'\\x06\\0\\0\\0\\xff\\xff\\0\\0', 8)\n"
        "import struct\na.setsockopt(socket.SOL_SOCKET, 26, struct.pack('@HP', 1, ctypes.addressof(code)))",
    ),
    act("listens", "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()"),
    act("netlink", "socket.socket(16, socket.SOCK_RAW, 0)"),
    act("packet", "socket.socket(17, socket.SOCK_RAW, 0)"),
    act("vsock", "socket.socket(40, socket.SOCK_STREAM)"),
]

PROCESSES = [
    act("forks", "if os.fork() == 0: os._exit(0)"),
    act("vforks", "if libc.vfork() < 0: raise OSError"),
    act("fork-bomb", "n = 0\nwhile n < 5000:\n    os.fork()\n    n += 1"),
    act("posix-spawn", "os.posix_spawn('/bin/true', ['true'], {})"),
    act("subprocess", "subprocess.run(['true'])"),
    act("shell", "if os.system('touch @CANARY@/shell') != 0: raise OSError"),
    act("executes", "os.execv('/bin/sh', ['sh', '-c', 'touch @CANARY@/exec; echo ESCAPED'])"),
    act(
        "executes-its-own",
        "open('x', 'w').write('#!/bin/sh\\necho ESCAPED\\n'); os.chmod('x', 0o777); os.execv('./x', ['x'])",
    ),
    act("multiprocessing", "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()"),
    act(
        "daemon", "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n    os._exit(0)"
    ),
    act("clone-by-hand", "if call(56, 17, 0, 0, 0, 0) == 0: os._exit(0)", machine=X86),
    act("clone3", "b = ctypes.create_string_buffer(88)\nb[32] = 17\nif call(435, b, 88) == 0: os._exit(0)"),
    act("kills-a-process", "os.kill(@VICTIM@, signal.SIGKILL)"),
    act("kills-its-parent", "os.kill(os.getppid(), signal.SIGKILL)"),
    act("kills-everybody", "os.kill(-1, signal.SIGKILL)"),
    act("kills-its-group", "os.kill(0, signal.SIGKILL)"),
    act("kills-by-thread", "call(234, @VICTIM@, @VICTIM@, 9)", machine=X86),
    act("kills-by-tkill", "call(200, @VICTIM@, 9)", machine=X86),
    act("kills-by-queue", "b = ctypes.create_string_buffer(128)\ncall(129, @VICTIM@, 9, b)", machine=X86),
    act("kills-by-pidfd", "fd = os.pidfd_open(@VICTIM@); signal.pidfd_send_signal(fd, 9)"),
    act(
        "signal-by-input",
        """
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, @VICTIM@)
fcntl.fcntl(r, 10, signal.SIGKILL)
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
os.write(w, b'x')
""",
    ),
    act("slows-a-process", "os.setpriority(os.PRIO_PROCESS, @VICTIM@, 19)"),
    act("slows-a-user", "os.setpriority(os.PRIO_USER, os.getuid(), 19)"),
    act("limits-a-process", "resource.prlimit(@VICTIM@, resource.RLIMIT_CPU, (0, 0))"),
    act("moves-a-process", "os.sched_setaffinity(@VICTIM@, {0})"),
    act("traces-a-process", "call(101, 16, @VICTIM@, 0, 0)", machine=X86),
    act("traces-its-parent", "call(101, 16, os.getppid(), 0, 0)", machine=X86),
    act(
        "reads-memory-of-others", "b = ctypes.create_string_buffer(64)\ncall(310, @VICTIM@, b, 1, b, 1, 0)", machine=X86
    ),
    act("lives-on", "if libc.prctl(1, 0, 0, 0, 0) != 0: raise OSError"),
    act("raises-its-limits", "resource.setrlimit(resource.RLIMIT_CPU, (100000, 100000))"),
    act("changes-user", "os.setuid(0)"),
    act("changes-to-any-user", "os.setresuid(1, 1, 1)"),
]

KERNEL = [
    act("user-namespace", "call(272, 0x10000000)", machine=X86),
    act("network-namespace", "call(272, 0x40000000)", machine=X86),
    act("clone-namespace", "if call(56, 0x10000000 | 17, 0, 0, 0, 0) == 0: os._exit(0)", machine=X86),
    act("mounts", "if libc.mount(b'none', b'.', b'tmpfs', 0, None) != 0: raise OSError"),
    act("changes-root", "os.chroot('.')"),
    act(
        "shared-memory", "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=4096)"
    ),
    act("system-v-memory", "call(29, 4242, 4096, 0o1666)", machine=X86),
    act("system-v-queue", "call(68, 4242, 0o1666)", machine=X86),
    act("message-queue", "call(240, b'qwen2eval', 0o102, 0o666, 0)", machine=X86),
    act("memory-file", "os.memfd_create('x')"),
    act("secret-memory", "call(447, 0)"),
    act("io-uring", "b = ctypes.create_string_buffer(256)\ncall(425, 4, b)"),
    act("bpf", "b = ctypes.create_string_buffer(256)\ncall(321, 0, b, 64)", machine=X86),
    act("perf", "b = ctypes.create_string_buffer(128)\ncall(298, b, 0, -1, -1, 0)", machine=X86),
    act("user-fault", "call(323, 1)", machine=X86),
    act("keys", "call(248, b'user', b'qwen2eval', b'x', 1, -3)", machine=X86),
    act("personality", "call(135, 0x0040000)", machine=X86),
    act("modules", "call(313, 0, b'', 0)", machine=X86),
    act("reboots", "call(169, 0xfee1dead, 672274793, 0x1234567, 0)", machine=X86),
    act("sets-the-clock", "time.clock_settime(time.CLOCK_REALTIME, 0)"),
    act("sets-the-name", "socket.sethostname('x')"),
    act("undoes-the-filter", "b = ctypes.create_string_buffer(16)\ncall(317, 1, 0, b)", machine=X86),
    act(
        "32-bit-calls",
        """
code = bytes.fromhex('b802000000' 'cd80' 'c3')  # fork() through int 0x80
page = mmap.mmap(-1, 4096, prot=7)
page.write(code)
result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
if result < 0: raise OSError
""",
        "crashed",
        machine=X86,
    ),
    act("x32-calls", "call(0x40000000 + 57)", "crashed", machine=X86),
]
