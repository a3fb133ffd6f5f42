"""Programs that use too much or are broken, and tests that are."""

from tests.sandbox.attacks.making import fake, use

RESOURCES = [
    use("100-gb", "x = bytearray(100 << 30)", "out_of_memory"),
    use("memory-bit-by-bit", "x = []\nwhile True: x.append(bytearray(1 << 20))", "out_of_memory", memory_mb=128),
    use(
        "memory-by-mmap",
        "import mmap\nx = []\nwhile True:\n  x.append(mmap.mmap(-1, 1 << 24))\n  x[-1].write(b'x' * (1 << 24))",
        "error",
        "out_of_memory",
        memory_mb=128,
    ),
    use(
        "memory-in-threads",
        "import threading, time\nfor _ in range(100000): threading.Thread(target=time.sleep, args=(9,)).start()",
        "error",
        "timed_out",
        memory_mb=256,
    ),
    use("spins", "while True: pass", "timed_out"),
    use(
        "spins-in-threads",
        "import threading\ndef spin():\n  while True: pass\nfor _ in range(8): threading.Thread(target=spin).start()",
        "timed_out",
    ),
    use("sleeps", "import time\ntime.sleep(1000)", "timed_out"),
    use("waits-for-nothing", "import select\nselect.select([], [], [])", "timed_out"),
    use(
        "ignores-signals",
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: pass",
        "timed_out",
    ),
    use(
        "blocks-signals",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "timed_out",
    ),
    use("catastrophic-pattern", "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", "timed_out"),
    use("huge-power", "x = 9 ** 9 ** 9", "timed_out", "out_of_memory"),
    use("prints-1-gb", "import sys\nfor _ in range(1 << 10): sys.stdout.write('x' * (1 << 20))", "output_limit"),
    use("prints-1-gb-of-errors", "import os\nfor _ in range(1 << 10): os.write(2, b'x' * (1 << 20))", "output_limit"),
    use(
        "fills-the-disk",
        "import os\nfor n in range(100000):\n  with open(str(n), 'wb') as file: file.write(b'x' * (15 << 20))",
        "output_limit",
        "error",
        timeout_seconds=5,
    ),
    use("one-big-file", "file = open('x', 'wb')\nwhile True: file.write(b'x' * (1 << 20))", "error", timeout_seconds=5),
    use(
        "deleted-files",
        "import os\nkept = []\nfor n in range(60):\n  kept.append(open(str(n), 'wb'))\n  os.unlink(str(n))\n"
        "  kept[-1].write(b'x' * (1 << 20))\nwhile True: pass",
        "timed_out",
        "output_limit",
        "error",
    ),
    use("many-files", "for n in range(10 ** 9): open(str(n), 'w').close()", "output_limit", "error", timeout_seconds=5),
    use(
        "deep-directories",
        "import os\nfor n in range(10 ** 9):\n  os.mkdir('d'); os.chdir('d')",
        "output_limit",
        "error",
        timeout_seconds=5,
    ),
    use(
        "few-deep-directories",
        "import os\nfor n in range(3000):\n  os.mkdir('d'); os.chdir('d')",
        "passed",
        "output_limit",
    ),
    use(
        "closed-directories",
        "import os\nos.mkdir('a')\nopen('a/b', 'w').close()\nos.mkdir('c', 0)\nos.umask(0o777)\n"
        "os.mkdir('d')\nopen('e', 'w').close()",
        "passed",
    ),
    use(
        "odd-names",
        "import os\nfor name in (b'\\xff\\xfe', b'-rf', b'a\\nb', b' '): os.mkdir(name)\nos.symlink('.', 'loop')",
        "passed",
    ),
    use("all-descriptors", "import os\nwhile True: os.dup(0)", "error"),
    use("pipes", "import os\nkept = []\nwhile True: kept.append(os.pipe())", "error"),
    use("recursion", "def f(n): return f(n + 1)\nf(0)", "error"),
    use("10000-brackets", "x = " + "(" * 10_000 + ")" * 10_000, "error"),
    use("10000-lists", "x = " + "[" * 10_000 + "]" * 10_000, "error"),
    use("100000-minus", "x = " + "-" * 100_000 + "1", "error", "crashed", "out_of_memory"),
    use("100000-plus", "x = " + "1+" * 100_000 + "1", "error", "crashed", "passed"),
    use("null-bytes", "x = 1\0\nprint(x)", "error"),
    use("not-utf-8", b"print('\xff\xfe')\n", "error"),
    use("lone-surrogate", "print('\ud800')", "error"),
    use("empty", "", "passed"),
    use("binary", bytes(range(256)) * 40, "error"),
    use("reads-input-for-ever", "import sys\nwhile True: sys.stdin.read()", "timed_out"),
    use("status-1", "print('ab')\nraise SystemExit(1)", "error", expected_stdout="ab"),
    use("huge-status", "import sys\nsys.exit(1 << 100)", "error"),  # Python makes 255 of it
    use(
        "timers",  # the kernel counts them a user: others could have none
        "import ctypes\nt, n = ctypes.c_long(), 0\n"
        "while n < 5000 and ctypes.CDLL(None).timer_create(1, None, ctypes.byref(t)) == 0: n += 1\n"
        "print('refused' if n < 5000 else 'ESCAPED')",
        "passed",
    ),
    use("hard-status-0-without-output", "import os\nos._exit(0)", "failed", expected_stdout="ab"),
    use("wrong-output", "print('abc')", "failed", expected_stdout="ab"),
    use(
        "illegal-instruction",
        "import ctypes, mmap\np = mmap.mmap(-1, 4096, prot=7)\np.write(b'\\x0f\\x0b')\n"
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(p)))()",
        "crashed",
    ),
    use("stops", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timed_out"),
    fake("spins-in-call", "def f(x):\n  while True: pass", "timed_out", timeout_seconds=0.5),
    fake("sleeps-in-call", "import time\ndef f(x): time.sleep(99)", "timed_out", timeout_seconds=0.5),
    fake("spins-at-import", "while True: pass", "timed_out", timeout_seconds=0.5),
    fake("prints-in-call", "def f(x):\n  while True: print('x' * 100000)", "output_limit"),
    fake("allocates-in-call", "def f(x): return len(bytearray(100 << 30))", "error", "out_of_memory"),
    fake("no-function", "def g(x): return 1", "error"),
    fake("no-callable", "f = 5", "error"),
    fake("syntax", "def f(x) return 1", "error"),
    fake("null-in-function", "def f(x): return 1\0", "error"),
]

BROKEN_TESTS = [
    fake("tests-syntax", "def f(x): return 1", "not_run", tests="def check(candidate):\n  assert candidate(2 == 1\n"),
    fake("tests-null", "def f(x): return 1", "not_run", tests="def check(candidate):\n  pass\0\n"),
    fake(
        "tests-import",
        "def f(x): return 1",
        "not_run",
        tests="import nowhere\ndef check(candidate): assert candidate(2)",
    ),
    fake("tests-raise", "def f(x): return 1", "not_run", tests="def check(candidate):\n  [][1]\n"),
    fake(
        "tests-spin",
        "def f(x): return 1",
        "timed_out",
        tests="def check(candidate):\n  while True: candidate(1)\n",
        timeout_seconds=0.5,
    ),
    fake(
        "tests-exit",
        "def f(x): return 1",
        "error",
        tests="import os\ndef check(candidate):\n  candidate(1)\n  os._exit(0)\n",
    ),
    fake(
        "tests-crash",
        "def f(x): return 1",
        "crashed",
        tests="import ctypes\ndef check(candidate):\n  candidate(1)\n  ctypes.string_at(0)\n",
    ),
    fake(
        "tests-allocate", "def f(x): return 1", "out_of_memory", tests="def check(c):\n  c(1)\n  bytearray(100 << 30)\n"
    ),
    fake("tests-brackets", "def f(x): return 1", "not_run", tests="def check(c):\n  " + "(" * 10_000 + ")" * 10_000),
    fake("tests-surrogate", "def f(x): return 1", "not_run", tests="def check(c):\n  assert c('\ud800')"),
    fake(
        "tests-write", "def f(x): return 1", "error", tests="def check(c):\n  c(1)\n  open('@CANARY@/new.txt', 'w')\n"
    ),
    fake("tests-fork", "def f(x): return 1", "error", tests="import os\ndef check(c):\n  c(1)\n  os.fork()\n"),
]
