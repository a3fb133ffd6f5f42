"""The languages of MultiPL-E (Cassano et al. 2022, arXiv 2208.08227): how a program is compiled and run.

Commands are those of MultiPL-E's own evaluators (nuprl/MultiPL-E, `evaluation/src/eval_*.py`). Otherwise than there, a
program has not passed because it ended with status 0: it must also have printed a word that it can't know, which is put
after the last line of the tests. Where that line is depends on the form of the language's tests.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Language:
    """How one language is run.

    Attributes:
        title: its name for people.
        filename: of the source.
        tools: programs that are needed; of each, names to look for, the first that is found wins.
        run: the command, whose first word is a tool or a path in the working directory.
        compile: commands before, in order.
        finish: a statement that prints `@1` and `@2` one after the other: the source never has both as one word.
        finish_before: what follows the last statement of the tests, up to the end; by default, nothing.
        words_of_failure: on stderr or stdout they say that a test failed: at the start of a line; of a program that
            ended badly, anywhere.
        words_against: on stderr they mean a failure, whatever the status is.
        must_be_quiet: anything on stderr means a failure, whatever the status is.
        files: names that commands use as `{name}`, each with the places where such a file may be.
        etc: names and patterns of what the tools read in /etc.
        silent_failure: a failed test says nothing; whatever else ends a program does.
        env: variables besides PATH, HOME, LANG and TMPDIR; `{box}` is the working directory.
        compile_seconds: limit of each compiling command.
        install: what to install on Debian.
    """

    title: str
    filename: str
    tools: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    compile: tuple[tuple[str, ...], ...] = ()
    finish: str = ""
    finish_before: str = r"\s*\Z"
    words_of_failure: tuple[str, ...] = ()
    words_against: tuple[str, ...] = ()
    must_be_quiet: bool = False
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    etc: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    silent_failure: bool = False
    compile_seconds: float = 30.0
    install: str = ""

    def with_finish(self, tests: str, token: str) -> str | None:
        """Return tests that print the token when they are through; None where their end is not found."""
        found = re.search(self.finish_before, tests)
        if found is None:
            return None
        half = len(token) // 2
        statement = self.finish.replace("@1", token[:half]).replace("@2", token[half:])
        return f"{tests[: found.start()]}\n{statement}\n{tests[found.start() :]}"


_BRACE, _TWO_BRACES = r"\}\s*\Z", r"\}\s*\}\s*\Z"
_JAVATUPLES = ("/usr/share/java/javatuples.jar", "/usr/multiple/javatuples-1.2.jar")

LANGUAGES: dict[str, Language] = {
    "cpp": Language(
        "C++",
        "program.cpp",
        tools=(("g++",),),
        compile=(("g++", "-std=c++17", "program.cpp", "-o", "program"),),
        run=("./program",),
        finish='std::fputs("@1", stdout); std::fputs("@2\\n", stdout); std::fflush(stdout);',
        finish_before=_BRACE,
        words_of_failure=("Assertion `",),
        install="g++",
    ),
    "cs": Language(
        "C#",
        "program.cs",
        tools=(("csc", "mcs"), ("mono",)),
        compile=(("csc", "-d:DEBUG", "-r:System.Numerics.dll", "-out:program.exe", "program.cs"),),
        run=("mono", "program.exe"),
        finish='System.Console.Write("@1"); System.Console.WriteLine("@2");',
        finish_before=_TWO_BRACES,
        words_of_failure=("DefaultTraceListener.Fail", "Fail:"),
        words_against=("System.Diagnostics.DefaultTraceListener.Fail", "Unhandled Exception"),
        etc=("mono",),
        env={"MONO_TRACE_LISTENER": "Console.Error"},
        install="mono-mcs",
    ),
    "d": Language(
        "D",
        "program.d",
        tools=(("ldmd2", "dmd", "gdmd"),),
        compile=(("ldmd2", "-unittest", "-ofprogram", "program.d"),),
        run=("./program",),
        finish='{ import std.stdio : write, writeln; write("@1"); writeln("@2"); }',
        finish_before=r"\}\s*void\s+main\s*\(\s*\)\s*\{\s*\}\s*\Z",
        words_of_failure=("AssertError", "FAILED unittests"),
        etc=("ldc2.conf", "dmd.conf"),
        compile_seconds=60.0,
        install="ldc",
    ),
    "go": Language(
        "Go",
        "program_test.go",
        tools=(("go",),),
        compile=(("go", "test", "-c", "-o", "program", "program_test.go"),),
        run=("./program",),
        finish='if !t.Failed() { fmt.Print("@1"); fmt.Println("@2") }',
        finish_before=_BRACE,
        words_of_failure=("--- FAIL",),
        env={"GOCACHE": "{box}/cache", "GOPATH": "{box}/go", "GOTOOLCHAIN": "local", "GO111MODULE": "off"},
        compile_seconds=120.0,
        install="golang-go",
    ),
    "java": Language(
        "Java",
        "Problem.java",
        tools=(("javac",), ("java",)),
        compile=(("javac", "-encoding", "UTF8", "-cp", "{javatuples}", "-d", ".", "Problem.java"),),
        run=("java", "-ea", "-XX:-UsePerfData", "-cp", ".:{javatuples}", "Problem"),
        finish='System.out.print("@1"); System.out.println("@2");',
        finish_before=_TWO_BRACES,
        words_of_failure=("java.lang.AssertionError",),
        files={"javatuples": _JAVATUPLES},
        etc=("java-*-openjdk",),
        install="default-jdk-headless libjavatuples-java",
    ),
    "jl": Language(
        "Julia",
        "program.jl",
        tools=(("julia",),),
        run=("julia", "--startup-file=no", "program.jl"),
        finish='print("@1"); println("@2")',
        words_of_failure=("Test Failed",),
        install="julia from julialang.org",
    ),
    "js": Language(
        "JavaScript",
        "program.js",
        tools=(("node",),),
        run=("node", "program.js"),
        finish='process.stdout.write("@1"); console.log("@2");',
        words_of_failure=("AssertionError",),
        install="nodejs",
    ),
    "lua": Language(
        "Lua",
        "program.lua",
        tools=(("lua", "lua5.4", "lua5.3"),),
        run=("lua", "program.lua"),
        finish='io.write("@1"); print("@2")',
        finish_before=r"end\s*os\.exit\([^\n]*\)\s*\Z",
        words_of_failure=("Failed tests:",),
        install="lua5.4 lua-unit",
    ),
    "php": Language(
        "PHP",
        "program.php",
        tools=(("php",),),
        run=("php", "program.php"),
        finish='echo "@1"; echo "@2\\n";',
        words_of_failure=("Test failed!",),
        etc=("php",),
        install="php-cli",
    ),
    "pl": Language(
        "Perl",
        "program.pl",
        tools=(("perl",),),
        run=("perl", "program.pl"),
        finish='print "@1"; print "@2\\n";',
        words_of_failure=("not ok!",),
        etc=("perl",),
        install="perl libtest-deep-perl",
    ),
    "r": Language(
        "R",
        "program.r",
        tools=(("Rscript",),),
        run=("Rscript", "program.r"),
        finish='cat("@1"); cat("@2\\n")',
        silent_failure=True,
        etc=("R",),
        install="r-base-core",
    ),
    "rb": Language(
        "Ruby",
        "program.rb",
        tools=(("ruby",),),
        run=("ruby", "program.rb"),
        finish='$stdout.print("@1"); $stdout.print("@2\\n"); $stdout.flush',
        finish_before=r"end\s*end\s*\Z",
        words_of_failure=("Failure:",),
        install="ruby ruby-test-unit",
    ),
    "rkt": Language(
        "Racket",
        "program.rkt",
        tools=(("racket",),),
        run=("racket", "program.rkt"),
        finish='(display "@1") (displayln "@2")',
        words_of_failure=("FAILURE",),
        must_be_quiet=True,
        etc=("racket",),
        install="racket",
    ),
    "rs": Language(
        "Rust",
        "program.rs",
        tools=(("rustc",), ("cc",)),
        compile=(("rustc", "program.rs", "-o", "program"),),
        run=("./program",),
        finish='print!("@1"); println!("@2");',
        finish_before=_BRACE,
        words_of_failure=("assertion `", "assertion failed"),
        install="rustc",
    ),
    "scala": Language(
        "Scala",
        "program.scala",
        tools=(("scalac",), ("scala",)),
        compile=(("scalac", "-d", ".", "program.scala"),),
        run=("scala", "-cp", ".", "Problem"),
        finish='print("@1"); println("@2")',
        finish_before=_TWO_BRACES,
        words_of_failure=("java.lang.AssertionError",),
        must_be_quiet=True,
        etc=("java-*-openjdk",),
        compile_seconds=60.0,
        install="scala",
    ),
    "sh": Language(
        "Bash",
        "program.sh",
        tools=(("bash",),),
        run=("bash", "program.sh"),
        finish="printf '%s' '@1'; printf '%s\\n' '@2'",
        silent_failure=True,
        install="bash",
    ),
    "swift": Language(
        "Swift",
        "program.swift",
        tools=(("swiftc",),),
        compile=(("swiftc", "program.swift", "-o", "program"),),
        run=("./program",),
        finish='print("@1", terminator: ""); print("@2")',
        words_of_failure=("Assertion failed",),
        compile_seconds=60.0,
        install="swift from swift.org",
    ),
    "ts": Language(
        "TypeScript",
        "program.ts",
        tools=(("tsc",), ("node",)),
        compile=(("tsc", "--target", "esnext", "program.ts"),),
        run=("node", "program.js"),
        finish='console.log("@1" + "@2");',
        words_of_failure=("AssertionError",),
        install="node-typescript",
    ),
}
