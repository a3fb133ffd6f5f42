"""What a run ran on: versions, hardware, git revision. Goes to run.json."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qwen2eval.run_info import EnvironmentInfo

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "lm_eval",
    "datasets",
    "vllm",
    "numpy",
    "pandas",
    "pyarrow",
    "accelerate",
)


def describe_environment() -> EnvironmentInfo:
    """Return Python, platform, processor, memory (GiB), GPUs, package versions and this checkout's git revision."""
    return EnvironmentInfo(
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        n_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gb=_memory_gb(),
        gpus=_gpus(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        git_revision=_git_revision(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> tuple[str, ...]:
    # A run without torch needs no torch to say that it used no GPU
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(str(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
