"""Benchmarks' published files: both MMLU forms, GSM8K, and what a broken file is told."""

import csv
import json

import pytest

from qwen2eval.data import gsm8k, mmlu
from qwen2eval.errors import DataFileError, MissingDataError

QUESTION = ['Which of these, "in short", is\na line break?', "A, comma", "2", "3", "4"]


def write_mmlu(folder, *, header: bool, answers=("A", "D")):
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        with (folder / split / f"knots_{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            if header:
                writer.writerow(mmlu.HEADER)
            for answer in answers:
                writer.writerow([*QUESTION, "ABCD".index(answer) if header else answer])


@pytest.mark.parametrize("header", [False, True], ids=["original", "converted"])
@pytest.mark.parametrize("inside", ["", "mmlu"], ids=["directly", "in a folder of its own"])
def test_both_mmlu_forms_give_the_same_rows(tmp_path, header, inside):
    write_mmlu(tmp_path / inside, header=header)
    data = mmlu.load(data_dir=str(tmp_path), offline=True)
    row = {"question": QUESTION[0], "subject": "knots", "choices": QUESTION[1:], "answer": 0}
    assert list(data["test"]) == [row, {**row, "answer": 3}]
    assert data.source.startswith(str(tmp_path))
    assert len(data.sha256) == 64


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path):
    write_mmlu(tmp_path, header=True)
    file = tmp_path / "test" / "knots_test.csv"
    file.write_text("\ufeff" + file.read_text() + "\n\n", encoding="utf-8")
    assert len(mmlu.load(data_dir=str(tmp_path), offline=True)["test"]) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q,1,2,3,A\n", "line 3: 5 cells"),
        ("q,1,2,3,4,E\n", "line 3: the answer is 'E'"),
        ("q,1,2,3,4,AB\n", "line 3: the answer is 'AB'"),
        ("q,1,2,3,4,\n", "line 3: the answer is ''"),
        ('q,1,2,"3', "line 3"),
    ],
)
def test_a_broken_mmlu_line_is_named(tmp_path, line, message):
    write_mmlu(tmp_path, header=False, answers=("A",))
    file = tmp_path / "test" / "knots_test.csv"
    assert file.read_text().count("\n") == 2  # one question, with a line break inside
    file.write_text(file.read_text() + line)
    with pytest.raises(DataFileError, match=message):
        mmlu.load(data_dir=str(tmp_path), offline=True)


def test_a_missing_mmlu_column_is_named(tmp_path):
    write_mmlu(tmp_path, header=True)
    file = tmp_path / "test" / "knots_test.csv"
    file.write_text(file.read_text().replace("choice3,", ""))
    with pytest.raises(DataFileError, match="line 1"):
        mmlu.load(data_dir=str(tmp_path), offline=True)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_subject_without_examples_or_questions_is_named(tmp_path, split):
    write_mmlu(tmp_path, header=False)
    (tmp_path / split / f"knots_{split}.csv").unlink()
    with pytest.raises(DataFileError, match="knots"):
        mmlu.load(data_dir=str(tmp_path), offline=True)


def write_gsm8k(folder, lines):
    folder.mkdir(exist_ok=True)
    for split in gsm8k.SPLITS:
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def test_gsm8k_keeps_question_and_answer(tmp_path):
    row = {"question": "Zwölf?", "answer": "#### 12"}
    write_gsm8k(tmp_path, [json.dumps({**row, "extra": 1}) + "\n"])
    assert list(gsm8k.load(data_dir=str(tmp_path), offline=True)["test"]) == [row]


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"question": "x", "ans', "line 2: not JSON"), ('{"question": "x"}\n', "line 2: no column 'answer'")],
)
def test_a_broken_gsm8k_line_is_named(tmp_path, line, message):
    write_gsm8k(tmp_path, ['{"question": "x", "answer": "#### 1"}\n', line])
    with pytest.raises(DataFileError, match=message):
        gsm8k.load(data_dir=str(tmp_path), offline=True)


def test_an_empty_file_and_bytes_that_are_no_text_are_named(tmp_path):
    write_gsm8k(tmp_path, [])
    with pytest.raises(DataFileError, match="no rows"):
        gsm8k.load(data_dir=str(tmp_path), offline=True)
    (tmp_path / "train.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(DataFileError, match="UTF-8"):
        gsm8k.load(data_dir=str(tmp_path), offline=True)


@pytest.mark.parametrize("load", [mmlu.load, gsm8k.load], ids=["mmlu", "gsm8k"])
def test_missing_data_names_all_three_ways(tmp_path, load, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    from qwen2eval.offline import forbid_network
    from qwen2eval.quiet import quiet_libraries

    with quiet_libraries(), forbid_network(), pytest.raises(MissingDataError) as caught:
        load(data_dir=str(tmp_path), offline=True)
    for way in ("--data_dir", "QWEN2EVAL_DATA", "data package", "Hugging Face hub"):
        assert way in str(caught.value)


def test_a_data_dir_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="nowhere"):
        gsm8k.load(data_dir=str(tmp_path / "nowhere"))


def test_the_real_files_have_their_published_sizes(data_dir):
    assert {split: len(rows) for split, rows in mmlu.load(data_dir=str(data_dir)).items()} == {
        "dev": 285,
        "test": 14042,
    }
    assert {s: len(rows) for s, rows in gsm8k.load(data_dir=str(data_dir)).items()} == {"train": 7473, "test": 1319}


def test_an_installed_data_package_is_read_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "some_rows"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gsm8k(package / "sums", ['{"question": "x", "answer": "#### 1"}\n'])
    info = tmp_path / "some_rows-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-rows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qwen2eval.data]\ngsm8k = some_rows.sums\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    assert gsm8k.load(offline=True).source == str(package / "sums")
    write_gsm8k(tmp_path / "mine", ['{"question": "y", "answer": "#### 2"}\n'])
    assert gsm8k.load(data_dir=str(tmp_path / "mine"), offline=True).source == str(tmp_path / "mine")


def test_a_part_of_mmlu_does_not_pass_for_mmlu(tmp_path):
    write_mmlu(tmp_path, header=False)
    assert "1 subjects, the benchmark has 57" in mmlu.load(data_dir=str(tmp_path), offline=True).warning


def test_half_of_gsm8k_names_the_file_that_is_missing(tmp_path):
    write_gsm8k(tmp_path, ['{"question": "x", "answer": "#### 1"}\n'])
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataFileError, match=r"test\.jsonl"):
        gsm8k.load(data_dir=str(tmp_path), offline=True)
