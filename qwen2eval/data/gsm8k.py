"""GSM8K's published files: `train.jsonl` and `test.jsonl` with `question` and `answer` (openai/grade-school-math)."""

from typing import Any

from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import Splits, find_folder, load_hub, missing
from qwen2eval.data.splits import LoadedData

SPLITS = ("train", "test")
HUB = ("openai/gsm8k", "main")


def load(
    *, package_data: str | None = None, data_dir: str | None = None, offline: bool = False, **_: Any
) -> LoadedData:
    """Return the splits `train` and `test` with columns question, answer.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place (the demo's samples).
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    folder = find_folder(
        "gsm8k",
        package_data=package_data,
        data_dir=data_dir,
        is_there=lambda path: any((path / f"{s}.jsonl").is_file() for s in SPLITS),
    )
    if folder is not None:
        splits: Splits = {
            split: read_jsonl(folder / f"{split}.jsonl", columns=("question", "answer")) for split in SPLITS
        }
        return LoadedData.from_rows(splits, folder, files=[folder / f"{s}.jsonl" for s in SPLITS])
    error = missing("gsm8k", files="train.jsonl and test.jsonl", hub=HUB[0], data_dir=data_dir)
    return LoadedData.from_hub(load_hub(*HUB, offline=offline, error=error), HUB[0], SPLITS)
