"""Importing is cheap: a heavy library is loaded by the function that needs it."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = ("torch", "transformers", "lm_eval", "datasets", "pandas")
IMPORT = "import qwen2eval"
HELP = """
from qwen2eval.cli.main import main
sys.argv = ["qwen2eval", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_nothing_heavy_is_imported(code: str) -> None:
    report = f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\n{report}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_decontam_imports_nothing_of_qwen2eval() -> None:
    code = "import sys, decontam; print(sorted(name for name in sys.modules if name.startswith('qwen2eval')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("first", ["import qwen2eval.evaluate", "import qwen2eval.run_folder", "import qwen2eval"])
def test_run_is_the_function_whatever_was_imported_before(first):
    """No module may be called like a public function: importing it would hide the function, which users call."""
    code = f"{first}\nimport qwen2eval\nassert qwen2eval.run.__name__ == 'run'\nassert callable(qwen2eval.load_run)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("qwen2eval.code_task:CodeTask", "qwen2eval.tasks.code.task:CodeTask"),
        ("qwen2eval.clustered_task:ClusteredTask", "qwen2eval.tasks.clustered:ClusteredTask"),
        ("qwen2eval.long_context.niah:NiahTask", "qwen2eval.long_context.niah.task:NiahTask"),
        (
            "qwen2eval.long_context.needlebench:NeedleBenchGroup",
            "qwen2eval.long_context.needlebench.task:NeedleBenchGroup",
        ),
        ("qwen2eval.long_context.lveval:LVEvalGroup", "qwen2eval.long_context.lveval.task:LVEvalGroup"),
    ],
)
def test_names_that_task_files_of_users_hold_keep_working(former, now):
    found = [getattr(import_module(name.split(":")[0]), name.split(":")[1]) for name in (former, now)]
    assert found[0] is found[1]
