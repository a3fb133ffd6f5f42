"""lm-eval's private parts that this project leans on: each is looked up by name, and pyproject bounds the version."""

import importlib
import re
import tomllib
from importlib.metadata import version
from operator import attrgetter

import pytest

from qwen2eval.tasks.lm_eval_internals import INTERNALS
from tests.conftest import REPOSITORY

OF_INSTANCES = {
    *("ConfigurableTask._metric_fn_list", "ConfigurableTask._filters", "ConfigurableTask._aggregation_list"),
    *("TemplateAPI._seed", "TemplateAPI._max_gen_toks"),
}


@pytest.mark.parametrize("name", INTERNALS)
def test_lm_eval_still_has(name):
    module, _, attribute = name.partition(":")
    owner = importlib.import_module(module)
    if attribute in OF_INSTANCES:
        import inspect

        kind, _, member = attribute.partition(".")
        sources = "".join(inspect.getsource(one) for one in inspect.getmro(getattr(owner, kind))[:-1])
        assert re.search(rf"self\.{member}\b.*=", sources), name
    else:
        attrgetter(attribute)(owner)


def test_every_private_touch_is_in_the_list():
    """Nothing outside of the adapter reads a private attribute of lm-eval's modules."""
    imports = r"from lm_eval[\w.]* import .*\b_\w+|from lm_eval[\w.]*\._\w+ import"
    private = re.compile(rf"({imports}|\btask\._\w+|lm_eval\._\w+)")
    allowed = {"lm_eval_internals.py"}
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in sorted((REPOSITORY / "qwen2eval").rglob("*.py"))
        if path.name not in allowed
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    ]
    assert found == []


def test_the_version_is_bounded():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (asked,) = [line for line in tomllib.loads(text)["project"]["dependencies"] if line.startswith("lm-eval")]
    upper = re.search(r"<(\d+)\.(\d+)", asked)
    assert upper is not None, asked
    installed = tuple(int(part) for part in version("lm_eval").split(".")[:2])
    assert installed < (int(upper[1]), int(upper[2]))
