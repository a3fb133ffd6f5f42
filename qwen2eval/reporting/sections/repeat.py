"""What is needed to repeat the run: the command and the whole configuration, without secrets."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import yaml

from qwen2eval.redact import hide_secrets
from qwen2eval.reporting.sections.section import Section
from qwen2eval.run_info import RunInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatSection(Section):
    """Repeat this run."""

    template: ClassVar[str] = "repeat"
    command: str | None
    """None: the run was started from Python."""
    config: str
    """As YAML, defaults included."""


def repeat_section(info: RunInfo) -> RepeatSection:
    """Return the command and the configuration."""
    return RepeatSection(
        command=hide_secrets(shlex.join(info.command)) or None, config=hide_secrets(_as_yaml(info.config))
    )


def _as_yaml(config: Mapping[str, object]) -> str:
    plain = json.loads(json.dumps(config, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).strip()
