"""Programs in other languages than Python: the same verdicts in each, whatever it is compiled with."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.errors import ConfigError
from qwen2eval.sandbox.compiled import LANGUAGES, CompiledCheck, CompiledSandbox
from qwen2eval.sandbox.compiled.cold_run import run_cold
from qwen2eval.sandbox.compiled.hello import HELLO
from qwen2eval.sandbox.compiled.toolchains import NoToolchainError, find_toolchain
from qwen2eval.sandbox.levels import BWRAP
from tests.sandbox.conftest import skip_without

BODY = {
    "cs": "return 2 * x;",
    "go": "return 2 * x",
    "lua": "return 2 * x",
    "pl": "return 2 * $x;",
    "php": "return 2 * $x;",
    "r": "return(2 * x)",
    "rkt": "(* 2 x)",
    "sh": "echo $(($1 * 2))",
    "swift": "return 2 * x",
    **dict.fromkeys(("jl", "rb", "rs", "scala"), "2 * x"),
    **dict.fromkeys(("cpp", "d", "java", "js", "ts"), "return 2 * x;"),
}
EXIT = {
    "cpp": "std::exit(0);",
    "cs": "Environment.Exit(0);",
    "d": "{ import core.stdc.stdlib : exit; exit(0); }",
    "go": "os.Exit(0)",
    "java": "System.exit(0);",
    "jl": "exit(0)",
    "js": "process.exit(0);",
    "lua": "os.exit(0)",
    "php": "exit(0);",
    "pl": "exit(0);",
    "r": "quit('no', 0)",
    "rb": "exit!(0)",
    "rkt": "(exit 0)",
    "rs": "std::process::exit(0);",
    "scala": "sys.exit(0)",
    "sh": ":\n}\nexit 0\nother() {",
    "swift": "exit(0)",
    "ts": "process.exit(0);",
}
SPIN = {
    "go": "for { }",
    "jl": "while true\nend",
    "lua": "while true do end",
    "r": "while (TRUE) {}",
    "rb": "loop do end",
    "rkt": "(let loop () (loop))",
    "rs": "loop { }",
    "sh": "while :; do :; done",
    "cpp": "for (volatile int n = 0; ; n++) { }",
    "swift": "while true { }",
    "java": "while (x > 0) { x = 2; }",
    "scala": "while (x > 0) { }",
    "cs": "while (x > 0) { x = 2; }",
    **dict.fromkeys(("d", "js", "php", "pl", "ts"), "while (1) { }"),
}


FAKES = {
    "cpp": ("", "static int own = (std::signal(6, [](int) { std::_Exit(0); }), 0);"),
    "java": ("Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));", ""),
    "js": ("process.on('exit', () => process.exit(0));", ""),
    "lua": ("os.exit = function() end", ""),
    "php": ("register_shutdown_function(function() { exit(0); });", ""),
    "pl": ("$SIG{__DIE__} = sub { exit 0 }; *CORE::GLOBAL::exit = sub { };", "END { $? = 0 }"),
    "rb": ("", "require 'test/unit'\nTest::Unit::AutoRunner.need_auto_run = false"),
    "sh": ("", "trap 'exit 0' EXIT\ncat $0"),
    "rs": ("std::panic::set_hook(Box::new(|_| std::process::exit(0)));", ""),
}
"""A line before the function's, and one before the function, that make the exit status 0 whatever the tests say."""

QUICK = {"cpp", "js", "lua", "php", "pl", "r", "rb", "rs", "sh"}
"""Languages that start or compile in a moment."""


@pytest.fixture(scope="module")
def sandbox():
    skip_without(BWRAP)
    return CompiledSandbox()


@pytest.fixture(params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LANGUAGES])
def language(request, sandbox):
    if why := sandbox.why_not(request.param):
        # a compiler that is there has to work, if the libraries that tests need are there, too
        assert any(lacks in why for lacks in ("not installed", "is missing", "Can't locate")), why
        pytest.skip(why)
    return request.param


def with_body(language, body):
    program, tests = HELLO[language]
    assert BODY[language] in program
    return program.replace(BODY[language], body), tests


def test_a_right_program_passes(sandbox, language):
    program, tests = HELLO[language]
    execution = sandbox.check(program, language=language, tests=tests)
    assert (execution.verdict, execution.detail) == ("passed", "")
    assert (execution.level, execution.separated) == (BWRAP, False)
    assert 0 < execution.seconds < 60
    assert execution.max_rss_mb > 1
    assert not re.search("[0-9a-f]{16}", execution.stdout), "the token is ours"


def test_a_wrong_program_fails(sandbox, language):
    program, tests = with_body(language, BODY[language].replace("2", "3") if language != "sh" else "echo 5")
    execution = sandbox.check(program, language=language, tests=tests)
    assert execution.verdict == "failed", (execution.detail, execution.stderr)
    assert execution.detail


def test_an_early_exit_does_not_pass(sandbox, language):
    program, tests = with_body(language, f"{EXIT[language]}\n{BODY[language]}")
    program = program.replace('    "fmt"\n', '    "fmt"\n    "os"\n')  # Go
    program = "declare var process: any;\n" * (language == "ts") + program
    execution = sandbox.check(program, language=language, tests=tests)
    assert execution.verdict == "error", (execution.detail, execution.stderr)
    if language not in ("go", "lua"):  # where the library of tests itself takes offence
        assert execution.detail == "it ended before the tests were done"


@pytest.mark.parametrize("name", FAKES)
def test_an_exit_status_that_lies_does_not_pass(sandbox, name):
    if why := sandbox.why_not(name):
        pytest.skip(why)
    wrong = BODY[name].replace("2", "3")
    inner, outer = FAKES[name]
    program, tests = with_body(name, f"{inner}\n{wrong}")
    first = re.search(r"(?m)^(.*twice\b)", program).start()
    program = f"{program[:first]}{outer}\n{program[first:]}"
    execution = sandbox.check(program, language=name, tests=tests)
    assert execution.verdict in ("failed", "error"), execution.stderr
    assert "does not compile" not in execution.detail


def test_perl_that_goes_on_after_a_failed_test(sandbox):
    if why := sandbox.why_not("pl"):
        pytest.skip(why)
    program, tests = with_body("pl", "return 3 * $x;")
    program = "BEGIN { *CORE::GLOBAL::exit = sub { 1 } }\n" + program
    execution = sandbox.check(program, language="pl", tests=tests)
    assert (execution.verdict, "not ok!" in execution.stdout) == ("failed", True)


def test_go_that_ends_its_tests_itself(sandbox):
    if why := sandbox.why_not("go"):
        pytest.skip(why)
    program, tests = with_body("go", "return 3 * x")
    program = program.replace('    "fmt"\n', '    "fmt"\n    "os"\n')
    program += "\nfunc TestMain(m *testing.M) { m.Run(); os.Exit(0) }\n"
    assert sandbox.check(program, language="go", tests=tests).verdict in ("failed", "error")


@pytest.mark.parametrize(
    "rest",
    ["\n}\n?>\n<?php function other() {", "\n}\n__halt_compiler();", "\n}\nexit; {"],
    ids=["print", "halt", "exit"],
)
def test_php_that_does_not_come_to_its_tests(sandbox, rest):
    if why := sandbox.why_not("php"):
        pytest.skip(why)
    program = HELLO["php"][0].rstrip().removesuffix("}") + rest
    tests = "}\n" + HELLO["php"][1]
    printed = sandbox.check(program.replace("<?php function other() {", ""), language="php", tests=tests)
    assert printed.verdict == "error", printed.stdout


def test_a_program_that_can_not_be_read(sandbox, language):
    program, tests = with_body(language, "this )( is not ]] a program {{")
    execution = sandbox.check(program, language=language, tests=tests)
    assert execution.verdict == "error", execution.detail
    if LANGUAGES[language].compile:
        assert execution.detail.startswith("it does not compile: ")
        assert execution.seconds == 0


def test_an_endless_program_is_stopped(sandbox, language):
    program, tests = with_body(language, f"{SPIN[language]}\n{BODY[language]}")
    execution = sandbox.check(program, language=language, tests=tests, timeout_seconds=0.5)
    assert execution.verdict == "timed_out", (execution.detail, execution.stderr)
    assert execution.seconds < 60


@pytest.mark.parametrize(
    "program", ["a\0b", b"\0" * 1000, "\ud800", b"\xff\xfe", "", "(" * 50_000], ids=lambda p: repr(p)[:12]
)
@pytest.mark.parametrize("name", ["cpp", "js", "php", "sh"])
def test_programs_that_are_no_text(sandbox, name, program):
    if why := sandbox.why_not(name):
        pytest.skip(why)
    execution = sandbox.check(program, language=name, tests=HELLO[name][1])
    assert execution.verdict in ("error", "failed", "crashed", "output_limit"), execution.detail


def test_results_come_in_the_order_given(sandbox):
    checks = [CompiledCheck(f"sleep 0.{9 - n}; echo {n}", "sh") for n in range(8)]
    seen = []
    done = sandbox.check_many(checks, on_done=lambda index, execution: seen.append((index, execution.verdict)))
    assert [execution.stdout for execution in done] == [f"{n}\n" for n in range(8)]
    assert sorted(seen) == [(n, "passed") for n in range(8)]
    assert sandbox.check_many([]) == []


def test_a_program_without_tests_has_to_end_well(sandbox):
    assert sandbox.check("echo out; echo err >&2", language="sh").stderr == "err\n"
    execution = sandbox.check("echo reason >&2; exit 3", language="sh")
    assert (execution.verdict, execution.detail) == ("error", "reason")
    execution = sandbox.check("kill -SEGV $$", language="sh")
    assert (execution.verdict, execution.detail) == ("crashed", "ended by SIGSEGV")


def test_tests_whose_end_is_not_found_are_told(sandbox):
    execution = sandbox.check("#include<cassert>\nint main() { assert(1);", language="cpp", tests="} // the end")
    assert execution.verdict == "passed"
    assert "an early exit would not be noticed" in execution.detail
    if not sandbox.why_not("r"):
        assert sandbox.check("twice <- 1", language="r", tests="quit('no', 1)").verdict == "failed"


def test_sleeping_counts_and_waiting_for_a_processor_does_not(sandbox):
    assert sandbox.check("sleep 30", language="sh", timeout_seconds=0.5).verdict == "timed_out"
    # a session each: the kernel may share processors out by session
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin, start_new_session=True) for _ in range(8)]
    try:
        count = "i=0; while [ $i -lt 250000 ]; do i=$((i+1)); done"
        execution = sandbox.check(count, language="sh", timeout_seconds=1.5)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert execution.verdict == "passed", execution.detail


def test_a_late_program_is_run_again(sandbox, monkeypatch):
    # for a long time between the limit and the stop, so that a slow machine does not get over it
    monkeypatch.setattr("qwen2eval.sandbox.clock.GRACE_SECONDS", 60)
    execution = sandbox.check("sleep 1.1", language="sh", timeout_seconds=1)
    assert (execution.verdict, execution.retried) == ("timed_out", True)


@pytest.mark.parametrize("level", ["landlock", "container"])
def test_levels_that_can_not_hold_compilers(level):
    execution = CompiledSandbox(level).check("echo 1", language="sh")
    assert execution.verdict == "not_run"
    assert "compilers start processes" in execution.detail


def test_level_none_runs_unprotected():
    sandbox = CompiledSandbox("none")
    found = sandbox.check("cat /proc/self/status > x; sleep 600 & echo done", language="sh")
    assert (found.verdict, found.stdout, found.level) == ("passed", "done\n", "none")
    wrong = sandbox.check("exit 0", language="sh", tests="true")
    assert (wrong.verdict, wrong.detail) == ("error", "it ended before the tests were done")


def test_what_makes_no_check():
    for arguments in (
        {"program": "x", "language": "cobol"},
        {"program": 3, "language": "sh"},
        {"program": "x", "language": "sh", "tests": b""},
        {"program": "x", "language": "sh", "timeout_seconds": 0},
        {"program": "x", "language": "sh", "memory_mb": 0},
    ):
        with pytest.raises(ConfigError):
            CompiledCheck(**arguments)
    with pytest.raises(ConfigError, match="glass"):
        CompiledSandbox("glass")
    with pytest.raises(ConfigError, match="workers"):
        CompiledSandbox(workers=0)


@pytest.fixture
def fresh_search():
    find_toolchain.cache_clear()
    yield
    find_toolchain.cache_clear()


def make_tool(path):
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("fresh_search")
def test_a_compiler_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoToolchainError, match=r"`csc` or `mcs` is not installed .*mono-mcs"):
        find_toolchain("cs")


@pytest.mark.usefixtures("fresh_search")
def test_a_compiler_elsewhere_is_shown_with_its_folder(tmp_path, monkeypatch):
    tool = make_tool(tmp_path / "lua-9" / "bin" / "lua")
    monkeypatch.setenv("PATH", str(tool.parent))
    found = find_toolchain("lua")
    assert found.commands == {"lua": str(tool)}
    assert found.folders == (tmp_path / "lua-9",)


@pytest.mark.usefixtures("fresh_search")
@pytest.mark.parametrize("place", ["bin", ".local/bin", "deeper/../bin"])
def test_a_home_is_never_shown(tmp_path, monkeypatch, place):
    home = tmp_path / "home"
    (home / "deeper").mkdir(parents=True)
    tool = make_tool(home / place.replace("deeper/../", "") / "lua")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(tool.parent))
    with pytest.raises(NoToolchainError, match="private files"):
        find_toolchain("lua")


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_source_never_has_the_token_as_a_word(name):
    """PHP after `?>`, or `cat $0`, prints the source: that must not be taken for an end of the tests."""
    token = "0123456789abcdef" + "fedcba9876543210"
    text = LANGUAGES[name].with_finish(HELLO[name][1], token)
    assert text is not None
    assert token not in text
    assert text.index(token[:16]) < text.index(token[16:])


@given(name=st.sampled_from(list(LANGUAGES)), head=st.text(alphabet="ab{}\n ();", max_size=40))
def test_the_tests_themselves_stay_as_they_are(name, head):
    tests = head + HELLO[name][1]
    text = LANGUAGES[name].with_finish(tests, "0123456789abcdef" * 2)
    assert text is not None
    statement = LANGUAGES[name].finish.replace("@1", "0123456789abcdef").replace("@2", "0123456789abcdef")
    before, after = text.split(f"\n{statement}\n")
    assert before + after == tests


@pytest.mark.usefixtures("sandbox")
def test_a_sandbox_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setattr("qwen2eval.sandbox.compiled.launch.FLAGS", ("-c", "raise SystemExit('no way')", "-P"))
    execution = run_cold(BWRAP, CompiledCheck("echo 1", "sh"), slot=0).execution
    assert (execution.verdict, execution.detail) == ("crashed", "the sandbox was lost: no way")
