"""Who a model is: a hash of its weights and config, or its hub repository at a commit, and of its adapters.

Part of the store key, so that no model is ever given another one's answers. Imported by the backends.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from qwen2eval.content import cache_dir
from qwen2eval.redact import is_secret
from qwen2eval.thoughts import Thinking

CHUNK_BYTES = 1 << 22
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
PERFORMANCE_ARGS = (
    *("batch_size", "num_concurrent", "max_retries", "timeout", "max_batch_size", "device"),
    # vLLM's
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "use_tqdm_on_load"),
)
"""Model arguments that change how fast answers come, not what they are."""


def fingerprint_checkpoint(path: str, *, revision: str = "main") -> str:
    """Return `sha256:…` of a local folder's weights and config, or `hub:repository@commit`.

    A folder's hash is remembered by path, size and time of each file, so that a second run does not read the weights.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        return f"hub:{path}@{_hub_commit(path, revision)}"
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if _is_identity_file(p))
    stamp = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    memory = cache_dir() / "fingerprints" / hashlib.sha256(stamp.encode()).hexdigest()
    if memory.is_file() and (known := memory.read_text(encoding="utf-8")).startswith("sha256:"):
        return known
    digest = hashlib.sha256()
    for file in files:
        name = file.name if file == folder else file.relative_to(folder).as_posix()
        digest.update(f"{name}:{_sha256(file)}\n".encode())
    fingerprint = f"sha256:{digest.hexdigest()}"
    memory.parent.mkdir(parents=True, exist_ok=True)
    draft = memory.with_suffix(f".{os.getpid()}")
    draft.write_text(fingerprint, encoding="utf-8")
    draft.replace(memory)
    return fingerprint


def stable_args(model_args: Mapping[str, object]) -> str:
    """Return the model arguments that can change an answer, as sorted JSON; files are left to the fingerprint."""
    others = (*PERFORMANCE_ARGS, "pretrained", "peft", "delta", "lora_local_path", "model")
    kept = {k: v for k, v in model_args.items() if k not in others and not is_secret(k)}
    return json.dumps(kept, sort_keys=True, default=str)


def thoughts_identity(thinking: Thinking) -> dict[str, str]:
    """Return what keeps a thinking model's answers apart from those that stop strings ended inside a thought.

    Earlier versions did that; models that are not known to think keep the answers that they have.
    """
    return {"thoughts": "whole"} if thinking.is_expected else {}


def _is_identity_file(path: Path) -> bool:
    """Whether a file of a checkpoint decides what the model computes: weights, configs, code that comes with it."""
    is_config = path.suffix == ".json" and ("config" in path.name or path.name.endswith(".index.json"))
    return path.is_file() and (path.suffix in (*WEIGHT_SUFFIXES, ".py") or is_config)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _hub_commit(repository: str, revision: str) -> str:
    """Return the commit that the local hub cache resolves `revision` to; the revision itself if it doesn't know."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", "adapter_config.json", "README.md"):
        found = try_to_load_from_cache(repository, name, revision=revision)
        # …/models--org--name/snapshots/<commit>/config.json
        if isinstance(found, str):
            return Path(found).parent.name
    return revision
