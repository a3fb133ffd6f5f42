"""Opens a checkpoint in whichever format its files have.

Apart from `checkpoint.py`, because it imports all formats, and the formats import `checkpoint.py`.
"""

from pathlib import Path

from qwen2eval.model.checkpoint import Checkpoint
from qwen2eval.model.gguf import GgufCheckpoint
from qwen2eval.model.gguf_header import find_gguf
from qwen2eval.model.safetensors_files import SafetensorsCheckpoint


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder of safetensors, a GGUF file, or a folder with one GGUF file and no safetensors.

    Raises:
        ModelError: there is no checkpoint, a file is broken or missing, or the gguf package is.
    """
    folder = Path(path)
    if gguf := find_gguf(folder):
        return GgufCheckpoint(gguf)
    return SafetensorsCheckpoint(folder)
