"""Who a model is: a hash of its weights and config, or its hub repository at a commit, and of its adapters.

Part of the store key, so that no model is ever given another one's answers. Imported by the backends.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qwen2eval.content import cache_dir
from qwen2eval.redact import is_secret
from qwen2eval.thoughts import Thinking

CHUNK_BYTES = 1 << 22
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
SETTLED_SECONDS = 2.0
"""The coarsest clock of a file system in use (FAT)."""
PERFORMANCE_ARGS = (
    *("batch_size", "num_concurrent", "max_retries", "timeout", "max_batch_size", "device"),
    # vLLM's
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "use_tqdm_on_load"),
)
"""Model arguments that change how fast answers come, not what they are."""
OWN_FINGERPRINT = ("pretrained", "peft", "delta", "lora_local_path")
"""Arguments whose weights a backend's identity holds anyway."""


def fingerprint_checkpoint(path: str, *, revision: str = "main") -> str:
    """Return `sha256:…` of the bytes of a local folder's weights, configs and code, or `hub:repository@commit`.

    A folder's hash is remembered by what the file system says of each file, so that a second run does not read the
    weights. Size and time of change alone would not do: a copy can be given any time. But no program can set the time
    at which a file's entry last changed (`ctime`), so what was replaced or written to is never taken for the old file.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        return f"hub:{path}@{_hub_commit(path, revision)}"
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if _is_identity_file(p))
    stamp = _stamp(files)
    memory = cache_dir() / "fingerprints" / hashlib.sha256(stamp.encode()).hexdigest()
    if memory.is_file() and (known := memory.read_text(encoding="utf-8")).startswith("sha256:"):
        return known
    digest = hashlib.sha256()
    # Hashing releases the interpreter's lock, so the parts of a sharded checkpoint are read side by side
    with ThreadPoolExecutor(max_workers=4) as pool:
        for file, own in zip(files, pool.map(_sha256, files), strict=True):
            name = file.name if file == folder else file.relative_to(folder).as_posix()
            digest.update(f"{name}:{own}\n".encode())
    fingerprint = f"sha256:{digest.hexdigest()}"
    if _is_settled(files) and _stamp(files) == stamp:
        memory.parent.mkdir(parents=True, exist_ok=True)
        draft = memory.with_suffix(f".{os.getpid()}")
        draft.write_text(fingerprint, encoding="utf-8")
        draft.replace(memory)
    return fingerprint


def fingerprint_files(model_args: Mapping[str, object]) -> dict[str, str]:
    """Return the fingerprint of each other folder or file that arguments name, such as a tokenizer's, by argument."""
    paths = {
        key: value
        for key, value in model_args.items()
        if key not in OWN_FINGERPRINT
        and isinstance(value, str)
        and os.sep in value
        and Path(value).expanduser().exists()
    }
    return {f"files_of_{key}": _fingerprint_all(value) for key, value in paths.items()}


def stable_args(model_args: Mapping[str, object]) -> str:
    """Return the model arguments that can change an answer, as sorted JSON; files are left to the fingerprint."""
    others = (*PERFORMANCE_ARGS, *OWN_FINGERPRINT, "model")
    kept = {k: v for k, v in model_args.items() if k not in others and not is_secret(k)}
    return json.dumps(kept, sort_keys=True, default=str)


def _stamp(files: Sequence[Path]) -> str:
    """Return what a file system says of files, which changes whenever their bytes do."""
    stats = [(file, file.stat()) for file in files]
    entries = [[str(f.resolve()), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_dev, s.st_ino] for f, s in stats]
    return json.dumps(entries)


def _is_settled(files: Sequence[Path]) -> bool:
    """Whether a further change would be seen: a file system's clock is coarse, so changes close together look alike."""
    return time.time() - max((file.stat().st_ctime for file in files), default=0.0) > SETTLED_SECONDS


def _fingerprint_all(path: str) -> str:
    """Return a hash of a file, or of all files directly in a folder: a tokenizer's have no common name."""
    place = Path(path).expanduser()
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.is_file())
    small = [file for file in files if file.suffix not in WEIGHT_SUFFIXES or place.is_file()]
    text = "".join(f"{file.name}:{_sha256(file)}\n" for file in small)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def thoughts_identity(thinking: Thinking) -> dict[str, str]:
    """Return what keeps a thinking model's answers apart from those that stop strings ended inside a thought.

    Earlier versions did that; models that are not known to think keep the answers that they have.
    """
    return {"thoughts": "whole"} if thinking.is_expected else {}


def _is_identity_file(path: Path) -> bool:
    """Whether a file of a checkpoint decides what the model computes: weights, configs, code that comes with it."""
    is_config = path.suffix == ".json" and ("config" in path.name or path.name.endswith(".index.json"))
    return path.is_file() and (path.suffix.lower() in (*WEIGHT_SUFFIXES, ".py") or is_config)


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
