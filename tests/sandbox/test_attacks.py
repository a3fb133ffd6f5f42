"""280 programs: attacks on verdicts, files, secrets, network, processes and resources, by root and by an ordinary user.

`attacks/` has them with the verdicts that are right; `run_attacks.py` runs them and looks at the effects from outside.
"""

import json
import os
import platform

import pytest

from qwen2eval.sandbox import STRONG_LEVELS
from qwen2eval.sandbox.levels import BWRAP, CONTAINER, LANDLOCK
from tests.sandbox.attacks.right_programs import RIGHT
from tests.sandbox.conftest import run_as, skip_without
from tests.sandbox.run_attacks import ATTACKS, ON_HOST

# each level once, and each user
WITH_ALL = [(BWRAP, "ordinary"), (LANDLOCK, "caller"), (CONTAINER, "caller")]
MACHINE = platform.machine()


@pytest.mark.slow
@pytest.mark.parametrize("user", ["caller", "ordinary"])
@pytest.mark.parametrize("level", STRONG_LEVELS)
def test_no_attack_succeeds(level, user):
    skip_without(level)
    wanted = [attack.name for attack in ATTACKS if attack not in ON_HOST or (level, user) in WITH_ALL]
    process = run_as(user, "run_attacks.py", level, *wanted)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err.decode()
    result = json.loads(out)
    assert result["level"] == level
    assert {row["name"]: row["wrong"] for row in result["rows"] if row["wrong"]} == {}
    names = {row["name"] for row in result["rows"]}
    assert names == {attack.name for attack in ATTACKS if attack.name in wanted and attack.machine in ("", MACHINE)}
    assert (result["more_processes"], result["processes_left"], result["boxes_left"]) == (0, [], [])


@pytest.mark.slow
@pytest.mark.skipif("QWEN2EVAL_SANDBOX_IMAGE" not in os.environ, reason="no image with Python is named")
def test_no_attack_succeeds_in_a_container():
    test_no_attack_succeeds("container", "caller")


def test_there_are_enough_attacks():
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
    assert len(names) - len(RIGHT) >= 60
