"""The made-up run as fixtures."""

import copy
from typing import Any

import pandas as pd
import pytest

from tests.reporting.made_up import COLUMNS, INFO, ROWS, SCORES


@pytest.fixture
def info() -> dict[str, Any]:
    return copy.deepcopy(INFO)


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame(SCORES, columns=COLUMNS)


@pytest.fixture
def samples() -> dict[str, list[dict[str, Any]]]:
    tasks = dict.fromkeys(row["task"] for row in ROWS)
    return {task: [dict(row) for row in ROWS if row["task"] == task] for task in tasks}


@pytest.fixture
def clean_info(info: dict[str, Any]) -> dict[str, Any]:
    """A run of one task with nothing to watch."""
    facts = info["tasks"]["facts"]
    health = {"facts": info["health"]["facts"]}
    model = info["model"] | {"note": None}
    return info | {
        "status": "finished",
        "tasks": {"facts": facts},
        "health": health,
        "groups": {},
        "model": model,
        "warnings": [],
    }
