"""Files that look like a checkpoint's and are not: pointers that git left in place of large files, and adapters."""

from pathlib import Path

from qwen2eval.errors import ModelError

_BEGINNING = b"version https://git-lfs.github.com/"
_MAX_BYTES = 1024
_ADAPTER = "adapter_config.json"


def is_pointer(path: Path) -> bool:
    """Return whether a file is git-lfs's pointer to another; False where there is no file."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False


def check_not_pointer(path: Path) -> None:
    """Refuse a pointer.

    Raises:
        ModelError: the file is one; says what to do.
    """
    if is_pointer(path):
        raise ModelError(
            f"{str(path)!r} is a git-lfs pointer, not the file itself: run `git lfs pull` in {str(path.parent)!r}"
        )


def check_no_adapter(folder: Path) -> None:
    """Refuse a folder with a LoRA adapter in place of a model.

    Raises:
        ModelError: it is one; says what to do.
    """
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"{str(folder)!r} holds a LoRA adapter, no whole model: merge it into its base model (peft: "
            "`merge_and_unload`, then `save_pretrained`), or run --model hf with pretrained=BASE,peft=FOLDER"
        )
