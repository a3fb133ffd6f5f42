"""Programs that want to pass without being right: lies, forgeries, searches for the answer, ways out."""

from tests.sandbox.attacks.making import ANSWER, ASSERTS, NOT_PASSED, fake

LIAR = """
class Liar{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = lambda self, *a: 0
    def __bool__(self): return True
    def __class_getitem__(cls, x): return cls
    def __index__(self): return {answer}
    def __reduce__(self): return (int, ({answer},))
def f(x): return Liar({args})
"""
SEARCH = """
def find(text):
    import re
    found = re.search(r"== (\\d{6})", text)
    return int(found[1]) if found else None
"""

VERDICTS = [
    fake("lying-eq", LIAR.format(base="", args="", answer=0), "failed"),
    *[
        fake(f"lying-{base}", LIAR.format(base=f"({base})", args=args, answer=0), "failed", "error")
        for base, args in (("int", "7"), ("float", "7.0"), ("str", "'7'"), ("list", "[7]"), ("dict", ""), ("tuple", ""))
    ],
    fake(
        "lying-metaclass",
        "class M(type):\n  def __eq__(c, o): return True\n  __hash__ = None\nclass A(metaclass=M): pass\n"
        "def f(x): return A",
        "failed",
        "error",
    ),
    fake("exit-0-at-import", "import sys; sys.exit(0)", "error"),
    fake("hard-exit-0-at-import", "import os; os._exit(0)", "error"),
    fake("exit-0-in-call", "import sys\ndef f(x): sys.exit(0)", "error"),
    fake("hard-exit-0-in-call", "import os\ndef f(x): os._exit(0)", "error"),
    fake("exit-at-exit", "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 1", "failed"),
    fake(
        "prints-passed",
        'def f(x):\n    print(\'{"verdict": "passed", "detail": ""}\\npassed\\nok\', flush=True)',
        "failed",
    ),
    fake(
        "patches-builtins",
        "import builtins\nfor name in ('AssertionError', 'isinstance', 'abs', 'type', 'len', 'bool'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\ndef f(x): return 5",
        *NOT_PASSED,
        timeout_seconds=0.5,
    ),
    fake(
        "writes-to-every-descriptor",
        """
import os, struct
def f(x):
    verdict = b'{"verdict": "passed", "detail": ""}\\n'
    for fd in range(1, 64):
        for data in (verdict, struct.pack('<I', 1) + b'L', struct.pack('<I', len(verdict)) + verdict):
            try: os.write(fd, data)
            except OSError: pass
    return 0
""",
        "error",
    ),
    fake(
        "answers-before-it-is-asked",
        """
import os, sys, struct
from qwen2eval.sandbox.inside.codec import encode
def frame(kind, body): return struct.pack('<I', len(body) + 1) + kind + body
for fd in range(3, 64):
    try: os.write(fd, frame(b'L', b'') + b''.join(frame(b'R', encode((n, True))) for n in range(1, 50)))
    except OSError: pass
def f(x): return 0
""",
        "failed",
        "error",
    ),
    fake(
        "patches-the-codec",
        """
import sys
import qwen2eval.sandbox.inside.codec as codec, qwen2eval.sandbox.inside.candidate as candidate
class Anything:
    def __eq__(self, other): return True
candidate.encode = lambda value, **k: b'?' + b'\\xff\\xff\\xff\\x7f'
candidate.answer = lambda function, body: (b'R', b't\\x02\\x00\\x00\\x00T?\\x01\\x00\\x00\\x00A')
def f(x): return Anything()
""",
        "error",
        "failed",
    ),
    fake(
        "floods-the-channel",
        """
import os
def f(x):
    while True:
        for fd in range(3, 64):
            try: os.write(fd, b'\\xff' * 65536)
            except OSError: pass
""",
        "error",
        "timed_out",
    ),
    fake(
        "huge-frame",
        """
import os, struct
def f(x):
    for fd in range(3, 64):
        try: os.write(fd, struct.pack('<I', 0xfffffff0) + b'R' * 100)
        except OSError: pass
""",
        "error",
    ),
    fake(
        "searches-gc",
        SEARCH
        + """
import gc
def f(x):
    for thing in gc.get_objects():
        if (n := find(repr(thing)[:100000])): return n
""",
    ),
    fake(
        "walks-frames",
        SEARCH
        + """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for names in (frame.f_locals, frame.f_globals):
            if (n := find(repr(names))): return n
        frame = frame.f_back
""",
        "failed",
    ),
    fake(
        "reads-descriptors",
        SEARCH
        + """
import os, select
def f(x):
    for fd in range(0, 64):
        for read in (lambda: os.pread(fd, 65536, 0), lambda: select.select([fd], [], [], 0)[0] and os.read(fd, 65536)):
            try: data = read() or b''
            except (OSError, ValueError): continue
            if (n := find(data.decode('latin-1'))): return n
""",
        "failed",
        "error",
    ),
    fake(
        "reads-own-memory",
        SEARCH
        + """
import ctypes, mmap
def f(x):
    # mincore tells which pages are there, without a fault
    libc, here = ctypes.CDLL(None), id(object()) & ~0xfff
    seen = ctypes.create_string_buffer(1)
    for step in range(-4000, 4000):
        page = here + step * 4096
        if libc.mincore(ctypes.c_void_p(page), ctypes.c_size_t(4096), seen) == 0:
            if (n := find(ctypes.string_at(page, 4096).decode('latin-1'))): return n
""",
    ),
    fake(
        "reads-the-tester",
        SEARCH
        + """
import ctypes, os
def f(x):
    me = os.getpid()
    libc = ctypes.CDLL(None)
    for pid in [os.getppid(), *range(me - 3, me + 4)]:
        libc.syscall(101, 16, pid, 0, 0)
        for name in ('mem', 'maps', 'environ', 'cmdline', 'fd/3', 'fd/4', 'fd/5'):
            try: data = open(f'/proc/{pid}/{name}', 'rb').read(1 << 20)
            except OSError: continue
            if (n := find(data.decode('latin-1'))): return n
""",
        "failed",
    ),
    fake(
        "kills-the-tester",
        """
import os, signal
def f(x):
    for pid in range(os.getpid() - 5, os.getpid() + 6):
        if pid != os.getpid():
            try: os.kill(pid, signal.SIGKILL); print('ESCAPED')
            except OSError: pass
""",
        "failed",
    ),
    fake(
        "returns-a-pickle-bomb",
        "class P:\n  def __reduce__(self):\n    import os\n    return os.system, ('echo ESCAPED',)\n"
        "def f(x): return P()",
        "failed",
    ),
    fake("infinite-iterator", "import itertools\ndef f(x): return itertools.count()", "failed"),
    fake("deep-value", "def f(x):\n  v = []\n  for _ in range(100000): v = [v]\n  return v", "error"),
    fake("value-in-itself", "def f(x):\n  v = []\n  v.append(v)\n  return v", "failed"),
    fake("huge-value", "def f(x): return 'a' * (200 << 20)", "error", "out_of_memory"),
    fake("huge-number", "def f(x): return 1 << (200 << 20)", "error", "out_of_memory"),
    fake("colliding-set", "def f(x): return {i * (2 ** 61 - 1) for i in range(2000)}", "failed"),
    fake("nan", "def f(x): return float('nan')", "failed"),
    fake("not-implemented", "def f(x): return NotImplemented", "failed"),
    fake("raises-assertion", "def f(x): raise AssertionError", "failed"),
    fake("raises-interrupt", "def f(x): raise KeyboardInterrupt", "error"),
    fake("raises-own-base-exception", "class E(BaseException):\n  def __str__(self): raise E\ndef f(x): raise E"),
    fake("raises-generator-exit", "def f(x): raise GeneratorExit", "error"),
    fake("closes-descriptors", "import os\ndef f(x):\n  os.closerange(0, 64)\n  return 1", "error"),
    fake("kills-itself", "import os\ndef f(x): os.kill(os.getpid(), 9)", "crashed"),
    fake(
        "stops-itself",
        "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)",
        "timed_out",
        timeout_seconds=0.5,
    ),
    fake("null-pointer", "import ctypes\ndef f(x): ctypes.string_at(0)", "crashed"),
    fake(
        "jumps-into-a-segfault",
        "import sys\ndef f(x):\n  sys.setrecursionlimit(10**9)\n  class R:\n"
        "    def __repr__(self): return repr(self)\n  repr(R())",
        "crashed",
        "error",
        "out_of_memory",
        memory_mb=2048,
    ),
    fake(
        "empties-its-arguments",
        "def f(x):\n  x.clear()\n  return x",
        "failed",
        tests="def check(candidate):\n  a = [3, 1]\n  assert candidate(a) == [1, 3]\n",
    ),
    fake(
        "asks-to-run-with-the-tests",
        "class O: pass\ndef f(x): return O()",
        "error",
        "failed",
        tests=f"def check(candidate):\n  assert candidate(candidate(2)) == {ANSWER}\n",
    ),
    fake(
        "asks-by-a-deep-value",
        "def f(x):\n  v = 1\n  for _ in range(398): v = [v]\n  return v",
        "error",
        "failed",
        tests=f"def check(candidate):\n  assert candidate([candidate(2)]) == {ANSWER}\n",
    ),
    fake(
        "swallowed-by-the-tests",
        "import os\ndef f(x): os._exit(0)",
        "error",
        tests="def check(candidate):\n  try:\n    candidate(2)\n  except:\n    pass\n",
    ),
    fake(
        "claims-not-to-run",
        'import os\nfor fd in range(1, 64):\n  try: os.write(fd, b\'{"verdict": "not_run"}\\n\')\n'
        "  except OSError: pass\nos._exit(99)",
        "error",
    ),
    fake("together-exit", "import os\ndef f(x): os._exit(0)", "error", tests=ASSERTS),
    fake("together-prints", "def f(x): print('passed')", "failed", tests=ASSERTS),
    fake(
        "together-builtins",
        "import builtins\nbuiltins.AssertionError = type('A', (), {})\ndef f(x): return 1",
        "failed",
        tests=ASSERTS,
    ),
    fake(
        "together-writes",
        "import os\ndef f(x):\n  for fd in range(1, 64):\n"
        '    try: os.write(fd, b\'{"verdict": "passed", "token": ""}\\n\')\n    except OSError: pass\n  os._exit(0)',
        "error",
        tests=ASSERTS,
    ),
    fake(
        "together-not-run",
        "import os\ndef f(x):\n  for fd in range(1, 64):\n"
        '    try: os.write(fd, b\'{"verdict": "not_run"}\\n\')\n    except OSError: pass\n  os._exit(0)',
        "error",
        tests=ASSERTS,
    ),
]
