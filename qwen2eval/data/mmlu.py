"""MMLU's published files: `dev/`, `val/` and `test/` with one csv a subject (hendrycks/test, arXiv 2009.03300).

Two forms are read: the original one (no header; question, four choices, the answer as a letter) and the converted one
with the header `question,choice0,choice1,choice2,choice3,answer` and the answer as a 0-based index.
"""

import csv
from pathlib import Path
from typing import Any

from qwen2eval.data.locate import Rows, Splits, find_folder, load_hub, missing
from qwen2eval.data.splits import LoadedData
from qwen2eval.errors import DataFileError
from qwen2eval.requests import Doc

SPLITS = ("dev", "test")
HUB = ("cais/mmlu", "all")
N_SUBJECTS = 57
HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
LETTERS = "ABCD"


def load(
    *, package_data: str | None = None, data_dir: str | None = None, offline: bool = False, **_: Any
) -> LoadedData:
    """Return the splits `dev` and `test` with columns question, choices (4), answer (0-3), subject; subjects in order.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place (the demo's samples).
        data_dir: the user's folder of published files.
        offline: forbid the hub.
    """
    folder = find_folder(
        "mmlu",
        package_data=package_data,
        data_dir=data_dir,
        is_there=lambda path: any(path.glob("test/*_test.csv")) or any(path.glob("dev/*_dev.csv")),
    )
    if folder is not None:
        files = {split: sorted((folder / split).glob(f"*_{split}.csv")) for split in SPLITS}
        _check_same_subjects(folder, files)
        splits: Splits = {s: [row for path in paths for row in read_csv(path, split=s)] for s, paths in files.items()}
        loaded = LoadedData.from_rows(splits, folder, files=files["dev"] + files["test"])
        if not package_data and len(files["test"]) != N_SUBJECTS:
            loaded.warning = f"{folder} holds {len(files['test'])} subjects, the benchmark has {N_SUBJECTS}"
        return loaded
    error = missing("mmlu", files="dev/*_dev.csv and test/*_test.csv", hub=HUB[0], data_dir=data_dir)
    hub_data = load_hub(*HUB, offline=offline, error=error)
    # the hub's order is not by subject everywhere; ours is, so that doc_id means the same whatever the source
    return LoadedData.from_hub({s: hub_data[s].sort("subject") for s in SPLITS}, HUB[0], SPLITS)


def read_csv(path: Path, *, split: str) -> Rows:
    """Read one subject's file in either form.

    Raises:
        DataFileError: a row with another number of cells or an answer that is not a choice; names file and line.
    """
    subject = path.name.removesuffix(f"_{split}.csv")
    rows: Rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                # A blank line
                if not cells:
                    continue
                if reader.line_num == 1 and cells[:1] == ["question"]:
                    if cells != HEADER:
                        raise DataFileError(f"{path}, line 1: header {cells} lacks columns; expected {HEADER}")
                    continue
                rows.append(_row(cells, subject, path=path, line=reader.line_num))
    except csv.Error as err:
        raise DataFileError(f"{path}, line {reader.line_num}: not csv ({err}); is the line cut off?") from err
    except UnicodeDecodeError as err:
        raise DataFileError(f"{path}: not UTF-8 ({err.reason} at byte {err.start})") from err
    if not rows:
        raise DataFileError(f"{path} holds no questions")
    return rows


def _row(cells: list[str], subject: str, *, path: Path, line: int) -> Doc:
    if len(cells) != len(HEADER):
        raise DataFileError(
            f"{path}, line {line}: {len(cells)} cells where question, 4 choices and answer are expected"
        )
    answer = cells[5].strip()
    if len(answer) == 1 and answer in LETTERS:
        index = LETTERS.index(answer)
    elif answer.isdigit() and int(answer) < len(LETTERS):
        index = int(answer)
    else:
        raise DataFileError(f"{path}, line {line}: the answer is {answer!r}, which is neither A-D nor 0-3")
    return {"question": cells[0], "subject": subject, "choices": cells[1:5], "answer": index}


def _check_same_subjects(folder: Path, files: dict[str, list[Path]]) -> None:
    """A subject without dev file would silently lose its examples, one without test file its questions."""
    subjects = {split: {path.name.removesuffix(f"_{split}.csv") for path in paths} for split, paths in files.items()}
    for split, other in (("dev", "test"), ("test", "dev")):
        if lacking := sorted(subjects[other] - subjects[split]):
            raise DataFileError(f"{folder / split}: no file for {', '.join(lacking)} ({lacking[0]}_{split}.csv …)")
