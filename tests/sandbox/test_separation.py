"""Which tests can run in another process than the program, decided from the tests."""

import pytest

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox import Check, Sandbox
from qwen2eval.sandbox.separation import examine_tests


def why(tests, setup="", entry_point="f"):
    return examine_tests(Check("", entry_point=entry_point, tests=tests, setup=setup)).why_together


@pytest.mark.parametrize(
    "tests",
    [
        "assert f(1) == 2",
        "def check(candidate):\n    assert candidate([1]) == [2]\n    assert candidate(None) is None",
        "import math\ndef check(c):\n    for i in range(9):\n        assert math.isclose(c(i), i)",
        "METADATA = {}\ndef check(candidate):\n    assert all(candidate(x) == y for x, y in [(1, 2)])",
        "assert list(map(f, [1, 2])) == [3, 4]",
        "try:\n    f(1)\nexcept ValueError as err:\n    assert str(err)",
        "this is no Python",
        "assert f(1).upper() == 'A'",
        "import numpy as np\nx = np.array(f(1))\nassert x.shape == (1,)",
        "x = f(1)\nx.sort()\nassert x == [1] and f(2).keys() and f(3).numerator",
        "import math\nassert math.isclose(f(1), 2)",
        "class Own:\n    left = 1\nassert Own().left == f(1)",
        "def own(x): return x\nassert own(f(1)) == 1 and list(map(str, f(1))) == ['1']",
    ],
)
def test_these_can(tests):
    assert why(tests) is None


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ("assert f(Pair(1, 2)) == 3", "'Pair'"),
        ("assert f(lambda x: x) == 3", "functions"),
        ("x = [1]\nassert f(x) is x", "same object"),
        ("assert f.__name__ == 'f'", "__name__"),
        ("import inspect\nassert inspect.getsource(f)", "inspect"),
        ("assert id(f(1)) == 1", "id()"),
        ("def check(candidate):\n    assert candidate(helper(1)) == 2", "'helper'"),
        ("assert f(1).left == 2", ".left"),
        ("for r in [f(1), 2]:\n    assert r.left", ".left"),
        ("(r, s), t = (f(1), 2), 3\nassert r.left", ".left"),
        ("x = f(1)\ny = x[0]\nassert all(one.left for one in y)", ".left"),
        ("assert f(2)(3) == 5", "call, await"),
        ("def check(candidate):\n    g = candidate(2)\n    assert g(3) == 5", "call, await"),
        ("def make(): return f(2)\nassert make()(3) == 5", "call, await"),
        ("assert f(2)[0](3) == 5", "call, await"),
        ("assert list(map(f(2), [1])) == [3]", "call, await"),
        ("assert sorted([1, 2], key=f(1)) == [2, 1]", "call, await"),
        ("@f(2)\ndef own(x): return x\nassert own(1) == 2", "call, await"),
        ("with f() as x:\n    assert x == 3", "call, await"),
        ("import asyncio\nassert asyncio.run(f()) == 3", "call, await"),
        ("import asyncio\nasync def main():\n    assert await f() == 3\nasyncio.run(main())", "call, await"),
        ("import asyncio\nasync def main():\n    return [x async for x in f()]\nasyncio.run(main())", "call, await"),
        ("def check(candidate):\n    root = candidate(1)\n    assert root.next[0].value == 2", ".value"),
    ],
)
def test_these_cannot(tests, words):
    assert words in why(tests)


def test_helpers_of_the_setup_are_known():
    assert why("assert f(helper(1)) == 2", setup="def helper(x): return x") is None
    assert "'Node'" in why("assert f(1) == 2", setup="root = Node(1)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tests": "assert f(1)"}, "entry_point"),
        ({"entry_point": "f"}, "without tests"),
        ({"tests": "assert f(1)", "entry_point": "f", "stdin": "x"}, "whole program"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"program": None}, "program"),
        ({"stdin": 5}, "stdin"),
    ],
)
def test_arguments_that_make_no_check(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Check(**{"program": "", **arguments})


def test_large_tests_have_memory_of_their_own_and_an_end():
    values = list(range(100_000, 250_000))
    large = f"VALUES = {values}\nassert f(VALUES) == {values}"
    too_large = f"TEXT = '{'x' * (16 << 20)}'\nassert f(1) == 1"
    with Sandbox(workers=1) as sandbox:
        passed, not_run = sandbox.check_many(
            {
                "program": "def f(x): return x",
                "entry_point": "f",
                "tests": tests,
                "memory_mb": 128,
                "timeout_seconds": 60,
            }
            for tests in (large, too_large)
        )
    assert (passed.verdict, passed.separated) == ("passed", True)
    assert (not_run.verdict, not_run.detail) == ("not_run", "tests of 16 MB: at most 15 MB are run")


OWN_CLASS = "class E(ValueError): pass\ndef f(): raise E('x', 3)"


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(n): return lambda x: x + n", "assert f(2)(3) == 5"),
        ("async def f(): return 3", "import asyncio\nassert asyncio.run(f()) == 3"),
        (OWN_CLASS, "try:\n    f()\nexcept ValueError as err:\n    assert err.args == ('x', 3)"),
        (
            "class E(ValueError):\n    def __str__(self): return 'own'\ndef f(): raise E(4)",
            "try:\n    f()\nexcept ValueError as err:\n    assert str(err) == 'own'",
        ),
        ("def f(): return {}['x']", "try:\n    f()\nexcept KeyError as err:\n    assert err.args == ('x',)"),
        (
            "def f(): return b'\\xff'.decode()",
            "try:\n    f()\nexcept UnicodeDecodeError as err:\n    assert err.start == 0",
        ),
    ],
)
def test_what_tests_see_of_results_and_exceptions_is_as_in_plain_python(sandbox, program, tests):
    exec(f"{program}\n{tests}", {"__name__": "plain"})  # noqa: S102  # the oracle
    assert sandbox.check(program, entry_point="f", tests=tests).verdict == "passed"


def test_the_detail_names_the_programs_own_exception(sandbox):
    assert sandbox.check(OWN_CLASS, entry_point="f", tests="f()").detail == "tests, line 1: f(): E: ('x', 3)"
