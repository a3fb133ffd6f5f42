"""Right programs that use much of Python, which must pass; and two checks of which the second looks for the first."""

from tests.sandbox.attacks.making import act, right

READS = "1 2\n3 4\n"
RIGHT = [
    right("prints-in-call", "def f(x):\n  print('hello')\n  return x", entry_point="f", tests="assert f(3) == 3"),
    right(
        "threads",
        "import threading\nr = []\nt = [threading.Thread(target=r.append, args=(i,)) for i in range(8)]\n"
        "[x.start() for x in t]; [x.join() for x in t]\nprint(len(r))",
        expected_stdout="8",
    ),
    right(
        "asyncio",
        "import asyncio\nasync def main(): await asyncio.sleep(0.01); return 5\nprint(asyncio.run(main()))",
        expected_stdout="5",
    ),
    right(
        "temporary-files",
        "import tempfile, shutil, os\nwith tempfile.TemporaryDirectory() as d:\n"
        "  open(d + '/a', 'w').write('x'); shutil.copy2(d + '/a', d + '/b'); print(open(d + '/b').read())",
        expected_stdout="x",
    ),
    right("exit", "print(1)\nexit()", expected_stdout="1"),
    right("exit-0", "import sys\nprint(1)\nsys.exit(0)", expected_stdout="1"),
    right("at-exit", "import atexit\natexit.register(print, 2)\nprint(1)", expected_stdout="1\n2\n"),
    right(
        "input",
        "while True:\n  try: print(sum(map(int, input().split())))\n  except EOFError: break",
        stdin=READS,
        expected_stdout="3\n7",
    ),
    right("buffer", "import sys\nprint(len(sys.stdin.buffer.readlines()))", stdin=READS, expected_stdout="2"),
    right("iterates", "import sys\nfor line in sys.stdin: print(line.split()[0])", stdin=READS, expected_stdout="1\n3"),
    right("open-0", "print(open(0).read().split()[-1])", stdin=READS, expected_stdout="4"),
    right("dev-stdin", "print(open('/dev/stdin').readline().split()[0])", stdin=READS, expected_stdout="1"),
    right(
        "dev-fd",
        "import sys\nfrom pathlib import Path\nsys.stdin.readline\nprint(Path('/proc/self/fd/0').read_text()[-2])",
        stdin=READS,
        expected_stdout="4",
    ),
    right("dev-stdout", "with open('/dev/stdout', 'w') as out: out.write('a')\nprint('b')", expected_stdout="ab"),
    right(
        "attributes-of-a-result",
        "class Node:\n  def __init__(self, x): self.left, self.x = None, x\ndef f(x):\n  root = Node(x)\n"
        "  root.left = Node(x + 1)\n  return root",
        entry_point="f",
        tests="assert f(1).left.x == 2",
    ),
    right(
        "endless-generator",
        "def f():\n  a, b = 0, 1\n  while True:\n    yield a\n    a, b = b, a + b",
        entry_point="f",
        tests="import itertools\nassert list(itertools.islice(f(), 5)) == [0, 1, 1, 2, 3]\nassert next(f()) == 0",
    ),
    right("os-read", "import os\nprint(len(os.read(0, 100)))", stdin=READS, expected_stdout="8"),
    right(
        "globals",
        "n = 0\ndef f():\n  global n\n  n += 1\nf()\nif __name__ == '__main__': print(n)",
        expected_stdout="1",
    ),
    right(
        "future", "from __future__ import annotations\ndef f(x: nothing): return x\nprint(f(1))", expected_stdout="1"
    ),
    right("binary-output", "import sys\nsys.stdout.buffer.write(b'a\\n')", expected_stdout=b"a"),
    right("descriptor-output", "import os\nos.write(1, b'a')", expected_stdout="a"),
    right("unicode", "print('h\u00e9llo \u4e16\u754c')", expected_stdout="h\u00e9llo \u4e16\u754c"),
    right("coding-line", b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))", expected_stdout="'\\xe9'"),
    right(
        "data-class",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n  x: int\ndef f(x): return A(x).x",
        entry_point="f",
        tests="assert f(3) == 3",
    ),
    right(
        "method",
        "class Solution:\n  def __init__(self): self.n = 0\n  def add(self, x):\n    self.n += x\n    return self.n",
        entry_point="Solution.add",
        tests="def check(c):\n  assert c(1) == 1\n  assert c(2) == 3",
    ),
    right("in-place", "def f(x):\n  x.sort()", entry_point="f", tests="a = [2, 1]\nf(a)\nassert a == [1, 2]"),
    right(
        "in-place-inner", "def f(g):\n  g[0][0] = 9", entry_point="f", tests="r = [1]\ng = [r]\nf(g)\nassert r == [9]"
    ),
    right(
        "raises",
        "def f(x): raise ValueError('no')",
        entry_point="f",
        tests="try:\n  f(1)\nexcept ValueError as e:\n  assert str(e) == 'no'\nelse:\n  assert False",
    ),
    right("named-check", "def check(n): return n == 3", entry_point="check", tests="assert check(3) == True"),
    right(
        "own-class",
        "class Pair:\n  def __init__(s, a): s.a = a\ndef f(p): return p.a",
        entry_point="f",
        tests="assert f(Pair(3)) == 3",
    ),
    right("passes-function", "def f(g): return g(3)", entry_point="f", tests="assert f(lambda x: x + 1) == 4"),
    right(
        "subclass-results",
        "from collections import namedtuple, defaultdict, Counter\nP = namedtuple('P', 'a b')\n"
        "def f(x): return [P(1, 2), defaultdict(int, {1: 2}), Counter('aab')]",
        entry_point="f",
        tests="assert f(1) == [(1, 2), {1: 2}, {'a': 2, 'b': 1}]",
    ),
    right("generator", "def f(n): yield from range(n)", entry_point="f", tests="assert list(f(3)) == [0, 1, 2]"),
    right(
        "deep-recursion",
        "import sys\nsys.setrecursionlimit(10**5)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(20000))",
        expected_stdout="20000",
    ),
    right(
        "own-signal",
        "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *a: print('got'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)",
        expected_stdout="got",
    ),
    right(
        "alarm",
        "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('got'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\ntime.sleep(0.1)",
        expected_stdout="got",
    ),
    right(
        "standard-library",
        "import sqlite3, zlib, hashlib, ssl, json, csv, xml.etree.ElementTree as E, ctypes\n"
        "print(sqlite3.connect(':memory:').execute('select 1+1').fetchone()[0])",
        expected_stdout="2",
    ),
    right("closes-stdout", "import sys\nprint(1)\nsys.stdout.close()", expected_stdout="1"),
    right(
        "wraps-stdout",
        "import sys\nclass Log:\n  def write(s, t): sys.__stdout__.write(t)\n  def flush(s): pass\n"
        "sys.stdout = Log()\nprint(1)",
        expected_stdout="1",
    ),
    right("opens-stdout", "import os\nout = os.fdopen(1, 'w')\nout.write('1')", expected_stdout="1"),
    right("says-good-bye", "import os\nclass A:\n  def __del__(self): print(os.sep)\na = A()", expected_stdout="/"),
    right("has-no-streams", "import sys\nsys.stdout = sys.stderr = None", expected_stdout=""),
    right("built-ins-module", "print(__builtins__.abs(-1))", expected_stdout="1"),
    *[
        right(
            f"deep-{name}",
            f"def f(x):\n  v = {empty}\n  for _ in range(390): v = {layer}\n  return v",
            entry_point="f",
            tests=f"v = {empty}\nfor _ in range(390): v = {layer}\nassert f(v) == v",
        )
        for name, empty, layer in (("tuple", "()", "(v,)"), ("list", "[]", "[v]"), ("dict", "{}", "{1: v}"))
    ],
    right(
        "deep-and-changed",
        "def f(x):\n  x[0] = 5",
        entry_point="f",
        tests="v = [1]\nfor _ in range(120): v = [2, {1: (v,)}]\nf(v)\nassert v[0] == 5",
    ),
    right(
        "small-recursion-limit",
        "import sys\nsys.setrecursionlimit(60)\ndef f(x):\n  assert sys.getrecursionlimit() == 60\n  return [x]",
        entry_point="f",
        tests="v = 1\nfor _ in range(100): v = [v]\nassert f(v) == [v] and f(1) == [1]",
    ),
    right("time-zone", "import zoneinfo\nprint(len(zoneinfo.available_timezones()) >= 0)", expected_stdout="True"),
]

LEAVES = [  # one check after the other: the second must not see anything of the first
    act(
        "leaves-something",
        "import builtins\nbuiltins.leftover = 1\nos.environ['LEFTOVER'] = '1'\nsys.leftover = 1\n"
        "open('leftover', 'w').write('x')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nraise OSError",
    ),
    act(
        "finds-something",
        "import builtins\nfound = [hasattr(builtins, 'leftover'), 'LEFTOVER' in os.environ,\n"
        "  hasattr(sys, 'leftover'), os.path.exists('leftover'), bool(os.listdir()),\n"
        "  signal.getsignal(signal.SIGTERM) != signal.SIG_DFL]\nif not any(found): raise OSError",
    ),
]
