"""Which level is chosen, and what is said when none works: on this kernel, and on kernels that lack something."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from qwen2eval.cli.main import main
from qwen2eval.sandbox import Sandbox, SandboxError
from qwen2eval.sandbox.inside.seccomp import _TABLE, ARCHITECTURES, _numbers, _ranges, build_filter
from qwen2eval.sandbox.levels import BWRAP, LANDLOCK
from qwen2eval.sandbox.probe import choose_level, probe
from qwen2eval.sandbox.worker import Worker
from tests.sandbox.conftest import NOBODY, REPOSITORY, readable_python, skip_without

WITHOUT = str(Path(__file__).parent / "without.py")
CHECK = [sys.executable, "-m", "qwen2eval", "sandbox", "check", "--json"]


def check_without(missing, **env):
    """Run `qwen2eval sandbox check --json` where the kernel lacks something; return exit code and report."""
    if platform.machine() != "x86_64":
        pytest.skip("the filter that takes things away is for x86-64")
    command = [sys.executable, WITHOUT, missing, *CHECK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_the_strongest_level_is_chosen():
    works = [level for level in (BWRAP, LANDLOCK) if probe(level).works]
    assert works, "neither strong level works here"
    assert choose_level("auto") == works[0]
    assert choose_level("landlock") == LANDLOCK


@pytest.mark.slow
def test_where_namespaces_are_forbidden_landlock_holds():
    skip_without(LANDLOCK)
    code, report = check_without("namespaces")
    assert (code, report["level"], report["is_contained"]) == (0, LANDLOCK, True)
    assert not report["probes"][0]["works"]
    assert "namespace" in report["probes"][0]["reason"].lower()
    assert report["advice"]


def test_where_bwrap_is_missing_the_package_is_named(tmp_path):
    skip_without(LANDLOCK)
    code, report = check_without("nothing", PATH=str(tmp_path))
    assert (code, report["level"]) == (0, LANDLOCK)
    assert "apt install bubblewrap" in " ".join(report["advice"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user first")
def test_root_of_a_namespace_with_one_user_drops_its_capabilities():
    python = readable_python()
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "unshare", "--map-root-user"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    script = "import sys, json; from qwen2eval.cli.main import main; sys.exit(main(['sandbox', 'check', '--json']))"
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("an ordinary user may not make user namespaces here")
    done = subprocess.run(
        [*command, python, "-c", script], capture_output=True, text=True, check=False, env=env, cwd="/"
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["is_contained"]) == (0, True), done.stderr


def test_where_landlock_is_missing_nothing_is_run():
    code, report = check_without("namespaces,landlock")
    assert (code, report["level"], report["attacks"]) == (3, None, [])
    assert "Landlock" in report["probes"][1]["reason"]
    assert any("5.13" in line for line in report["advice"])


def test_refusal_names_what_was_tried_and_what_helps():
    command = [sys.executable, WITHOUT, "namespaces,landlock", sys.executable, "-c"]
    script = (
        "from qwen2eval.sandbox import Sandbox, SandboxError\ntry: Sandbox()\nexcept SandboxError as err: print(err)"
    )
    done = subprocess.run([*command, script], capture_output=True, text=True, check=True)
    for words in ("can't be run safely", BWRAP, LANDLOCK, "none", "disposable"):
        assert words in done.stdout


def test_none_is_never_chosen_by_itself(monkeypatch):
    monkeypatch.setattr("qwen2eval.sandbox.probe.STRONG_LEVELS", ())
    with pytest.raises(SandboxError, match="none"):
        Sandbox()


def test_a_worker_that_does_not_start_leaves_nothing(monkeypatch, tmp_path):
    tmp_path.chmod(0o755)
    monkeypatch.setattr("qwen2eval.sandbox.levels.shared_tempdir", lambda: str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", "/nowhere/python")
    with pytest.raises(SandboxError, match="/nowhere/python"):
        Worker(LANDLOCK)
    assert list(tmp_path.iterdir()) == []


def test_a_container_that_is_asked_for_must_work():
    found = probe("container")
    if found.works:
        with Sandbox("container") as sandbox:
            assert sandbox.check("print(1)", expected_stdout="1").passed
    else:
        with pytest.raises(SandboxError, match=r"container|docker|podman"):
            Sandbox("container")


def test_the_command_line_tells_it(capsys):
    assert main(["sandbox", "check"]) == 0
    shown = capsys.readouterr().out
    assert "attacks contained at level" in shown
    assert "NOT CONTAINED" not in shown


def test_the_command_line_tells_what_is_not_contained(capsys):
    assert main(["sandbox", "check", "--level", "none"]) == 70
    assert "NOT CONTAINED  writes a file" in capsys.readouterr().out


def test_a_wrong_level_is_a_wrong_use(capsys):
    assert main(["sandbox", "check", "--level", "nun"]) == 64
    assert "bwrap+landlock+seccomp" in capsys.readouterr().err


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_filters_are_short_enough_and_never_allow_a_range_too_wide(machine):
    program = build_filter(machine=machine, landlock_abi=6)
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    numbers = sorted(_numbers(_TABLE, ARCHITECTURES[machine][0]).values())
    assert len(numbers) == len(set(numbers))
    covered = [number for first, last in _ranges(numbers) for number in range(first, last + 1)]
    assert covered == numbers
