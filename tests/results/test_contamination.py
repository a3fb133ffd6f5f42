"""A corpus that holds some docs of a task: their marks, and the scores with and without them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from decontam import Reference, ReferenceIndex, Rule, load_results, scan
from qwen2eval.cli.main import main
from qwen2eval.contamination_info import ContaminationInfo, CorpusInfo, RuleInfo, TaskContaminationInfo
from qwen2eval.reporting.contamination_table import contamination_rows, contamination_warnings
from qwen2eval.run_folder.folder import load_run
from qwen2eval.stats.errors import mean_estimate, part_difference
from tests.decontam.corpora import make_question
from tests.local_tasks import run_here, words, write_rows, write_task

N_DOCS, N_LEAKED = 90, 30
SHORT = "How many is two and two?"


@pytest.fixture(scope="module")
def docs():
    made = []
    for i in range(N_DOCS):
        text = SHORT if i == N_DOCS - 1 else make_question(i)
        made.append({"question": text, "choices": ["one", "two", "three"], "gold": i % 3, "topic": f"t{i % 7}"})
    return made


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory, docs):
    folder = tmp_path_factory.mktemp("tasks")
    write_rows(folder / "train.jsonl", docs[:3])
    write_rows(folder / "test.jsonl", docs)
    metadata = {"version": 1.0, "reference_fields": ["question", "choices"]}
    write_task(folder, "quiz", like="pick", num_fewshot=0, metadata=metadata)
    write_task(folder, "plain", like="pick", num_fewshot=0)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, docs):
    """A corpus with the first docs in it, in capitals, one only as a quote, and the short one."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = ["nothing of it " * 20]
    texts += [f"Before {doc['question'].upper()} after " + "other words " * 40 for doc in docs[:N_LEAKED]]
    texts.append(f"{SHORT} one two three")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, tasks_dir, corpus):
    return run_here(tasks_dir, tmp_path_factory.mktemp("runs"), "--corpus", str(corpus), tasks="quiz")


def test_samples_are_marked_as_the_corpus_was_made(run):
    marks = run.samples("quiz").sort_values("doc_id")
    expected = ["contaminated"] * N_LEAKED + ["clean"] * (N_DOCS - N_LEAKED - 1) + ["clean"]
    assert marks.contamination.tolist()[: N_DOCS - 1] == expected[:-1]
    assert marks.contamination_qwen2.tolist()[: N_DOCS - 1] == expected[:-1]
    assert marks.contamination.tolist()[-1] == "not_testable"


def test_subset_scores_are_those_of_the_marked_samples(run):
    samples = run.samples("quiz")
    scores = run.scores.set_index(["metric", "subset"])
    for subset in ("clean", "contaminated"):
        values = samples[samples.contamination == subset].acc.tolist()
        row = scores.loc[("acc", subset)]
        assert row.n_docs == len(values)
        assert row.value == pytest.approx(np.mean(values))
        estimate = mean_estimate(values)
        assert (row.stderr, row.ci_low, row.ci_high) == pytest.approx(tuple(estimate))
    assert scores.loc[("acc", "original")].n_docs == N_DOCS


def test_the_difference_is_that_of_the_samples(run):
    told = run.info.contamination.tasks["quiz"]
    samples = run.samples("quiz")
    is_clean = (samples.contamination == "clean").tolist()
    estimate = part_difference(samples.acc.tolist(), is_clean)
    (row,) = [row for row in told.scores if row.metric == "acc"]
    clean = samples.acc[is_clean].mean()
    assert row.delta == pytest.approx((clean - samples.acc.mean(), estimate.ci_low, estimate.ci_high))
    assert (told.n_docs, told.n_contaminated, told.n_clean) == (N_DOCS, N_LEAKED, N_DOCS - N_LEAKED - 1)
    assert (told.n_not_testable, told.n_found_whole, told.n_contaminated_qwen2) == (1, 1, N_LEAKED)


def test_evidence_is_kept_for_each_doc(run, docs):
    table = pd.read_parquet(run.path / "contamination" / "quiz.parquet")
    wanted = {"doc_id", "reference_part", "document_path", "document_row", "n_shared_ngrams", "lcs_length", "lcs_ratio"}
    assert wanted | {"rule", "spans"} <= set(table.columns)
    assert set(table[table.rule == "qwen2"].doc_id) == set(range(N_LEAKED))
    first = table[table.doc_id == 0].iloc[0]
    assert first.document_row == 1
    assert docs[0]["question"].upper()[:30] in first.excerpt


def test_the_report_shows_the_table(run, capsys):
    for name in ("report.md", "report.html"):
        text = (run.path / name).read_text()
        assert "Contamination" in text
        assert "33.3%" in text
    assert main(["score", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "33.3%" in shown
    assert "13 consecutive tokens" in " ".join(shown.split())


def test_lm_evals_own_format_has_the_original_score(run):
    results = json.loads((run.path / "results.json").read_text())
    original = run.scores[(run.scores.metric == "acc") & (run.scores.subset == "original")].value.iloc[0]
    assert results["results"]["quiz"]["acc,none"] == pytest.approx(original)


def test_apply_marks_an_old_run_as_a_new_one(tmp_path, tasks_dir, corpus, run, capsys):
    old = run_here(tasks_dir, tmp_path / "runs", tasks="quiz")
    assert old.samples("quiz").contamination.isna().all()
    found = tmp_path / "found"
    scanned = ["decontam", "scan", str(corpus), "--references", "quiz", "--include_path", str(tasks_dir)]
    assert main([*scanned, "--output", str(found), "--offline"]) == 0
    assert main(["decontam", "apply", str(old.path), "--matches", str(found)]) == 0
    after = load_run(old.path)
    for frame, other in ((after.scores, run.scores), (after.samples("quiz"), run.samples("quiz"))):
        pd.testing.assert_frame_equal(frame, other)
    with_matches = run_here(tasks_dir, tmp_path / "runs", "--matches", str(found), tasks="quiz")
    pd.testing.assert_frame_equal(with_matches.scores, run.scores)
    capsys.readouterr()
    assert main(["decontam", "apply", str(old.path), "--matches", str(found), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["quiz"]["n_contaminated"] == N_LEAKED


def test_a_corpus_is_not_scanned_twice(tmp_path, tasks_dir, corpus):
    for _ in range(2):
        run_here(tasks_dir, tmp_path / "runs", "--corpus", str(corpus), tasks="quiz")
    (folder,) = (tmp_path / "runs" / "decontam").iterdir()
    assert load_results(folder).manifest["totals"]["n_documents"] == N_LEAKED + 2


def test_a_task_without_reference_fields_is_searched_by_its_prompt(tmp_path, tasks_dir, corpus):
    run = run_here(tasks_dir, tmp_path / "runs", "--corpus", str(corpus), tasks="plain")
    assert (run.samples("plain").contamination == "contaminated").sum() == N_LEAKED


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Reference("other/0", "a b c", "", "other")], "did not search for 'quiz', only for other"),
        ([Reference("quiz/0", "other text", "", "quiz")], "doc 0 of 'quiz' was not among the items"),
    ],
    ids=["another task", "other docs"],
)
def test_matches_of_something_else_are_refused(tmp_path, tasks_dir, corpus, capsys, items, message):
    scan([corpus], ReferenceIndex.build(items, Rule()), output=tmp_path / "found")
    command = words(tasks_dir, tmp_path / "runs", "--matches", str(tmp_path / "found"), tasks="quiz")
    assert main(command) == 64
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / "latest").exists()


def test_a_folder_without_a_scan_and_both_flags_are_refused(tmp_path, tasks_dir, corpus, capsys):
    assert main(words(tasks_dir, tmp_path / "runs", "--matches", str(tmp_path), tasks="quiz")) == 64
    assert "holds no scan" in capsys.readouterr().err
    both = words(tasks_dir, tmp_path / "runs", "--matches", "x", "--corpus", str(corpus), tasks="quiz")
    assert main(both) == 64
    assert "both given" in capsys.readouterr().err


def test_few_clean_docs_are_warned_of(tmp_path, tasks_dir, corpus, capsys):
    run_here(tasks_dir, tmp_path / "runs", "--corpus", str(corpus), "--limit", "40", tasks="quiz")
    assert "only 10 docs are clean" in capsys.readouterr().out


def test_text_of_a_corpus_is_escaped(tmp_path, tasks_dir, docs):
    hostile = f"<script>alert(1)</script> \x1b[31m {docs[0]['question']} | <b>"
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": hostile}) + "\n", encoding="utf-8")
    run = run_here(tasks_dir, tmp_path / "runs", "--corpus", str(tmp_path / "a.jsonl"), tasks="quiz")
    html = (run.path / "report.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "\x1b" not in html + (run.path / "report.md").read_text()


def write_corpus(path, texts, *, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def test_a_run_keeps_its_marks_when_another_corpus_is_scanned_or_the_scan_is_gone(tmp_path, tasks_dir, corpus, docs):
    output = tmp_path / "runs"
    run = run_here(tasks_dir, output, "--corpus", str(corpus), tasks="quiz")
    other = write_corpus(tmp_path / "b.jsonl", [doc["question"] for doc in docs[:3]])
    found = run_here(tasks_dir, output, "--corpus", other, tasks="quiz").samples("quiz").contamination
    assert found.eq("contaminated").sum() == 3
    assert len(list((output / "decontam").iterdir())) == 2  # each corpus has a folder of its own
    shutil.rmtree(output / "decontam")
    before = {"scores": run.scores, "samples": run.samples("quiz"), "matches": run.match_rows("quiz")}
    told = run.info.contamination
    assert main(["score", str(run.path)]) == 0
    after = load_run(run.path)
    pd.testing.assert_frame_equal(after.scores, before["scores"])
    pd.testing.assert_frame_equal(after.samples("quiz"), before["samples"])
    assert after.match_rows("quiz") == before["matches"] != []
    assert after.info.contamination == told


def test_a_run_that_was_never_joined_is_scored_again_without_marks(tmp_path, tasks_dir):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="quiz")
    assert main(["score", str(run.path)]) == 0
    assert load_run(run.path).info.contamination is None
    assert load_run(run.path).match_rows("quiz") == []


def test_a_corpus_of_which_nothing_was_read_is_no_clean_corpus(tmp_path, tasks_dir, run, capsys):
    other_field = write_corpus(tmp_path / "a.jsonl", ["some text"] * 4, field="content")
    assert main(words(tasks_dir, tmp_path / "runs", "--corpus", other_field, tasks="quiz")) == 64
    err = capsys.readouterr().err
    assert "4 missing field" in err
    assert "--text_field" in err
    assert not (tmp_path / "runs" / "latest").exists()
    scanned = ["decontam", "scan", other_field, "--references", "quiz", "--include_path", str(tasks_dir)]
    assert main([*scanned, "--output", str(tmp_path / "found"), "--offline"]) == 3
    marks = run.samples("quiz").contamination
    assert main(["decontam", "apply", str(run.path), "--matches", str(tmp_path / "found")]) == 64
    assert load_run(run.path).samples("quiz").contamination.equals(marks)


def test_what_could_not_be_read_is_told(tmp_path, tasks_dir, docs, capsys):
    """Files of other formats were in the manifest alone, and the run ended with exit code 0."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    place = write_corpus(folder / "a.jsonl", [doc["question"] for doc in docs[:60]])
    with Path(place).open("a", encoding="utf-8") as file:
        file.write('broken\n{"text": 5}\n')
    for name in ("b.csv", "c.jsonl.zip"):
        (folder / name).write_text(docs[-2]["question"])
    run = run_here(tasks_dir, tmp_path / "runs", "--corpus", str(folder), tasks="quiz", exit_code=3)
    told = "2 files of formats that are not read, 1 record without text, 1 line that is not JSON; leaked items in them"
    for text in (capsys.readouterr().out, (run.path / "report.md").read_text(), (run.path / "report.html").read_text()):
        assert told in " ".join(text.split())


def test_an_aggregation_that_does_not_survive_a_subset_loses_only_that(tmp_path, docs, corpus):
    write_rows(tmp_path / "train.jsonl", docs[:3])
    write_rows(tmp_path / "test.jsonl", docs)
    (tmp_path / "whole_only.py").write_text(f"def of_all(items):\n    return sum(items) / (len(items) == {N_DOCS})\n")
    write_task(tmp_path, "odd", like="pick", num_fewshot=0)
    with (tmp_path / "odd.yaml").open("a") as file:
        file.write(
            "metric_list:\n- metric: acc\n  aggregation: !function whole_only.of_all\n  higher_is_better: true\n"
        )
    run = run_here(tmp_path, tmp_path / "runs", "--corpus", str(corpus), tasks="odd")
    values = run.scores.set_index("subset").value
    assert values["original"] == run.samples("odd").acc.sum()
    assert values[["clean", "contaminated"]].isna().all()
    (row,) = run.info.contamination.tasks["odd"].scores
    assert row.delta == (None, None, None)
    assert row.clean.n_docs == run.samples("odd").contamination.eq("clean").sum()


def test_examples_in_the_report_show_where_they_stand_in_the_corpus(run, corpus, docs):
    shown = {"md": (run.path / "report.md").read_text(), "html": (run.path / "report.html").read_text()}
    examples = {name: text[text.index("Examples (") :] for name, text in shown.items()}
    first = docs[0]["question"].upper()
    assert f"Before ⟦{first[:-1]}⟧" in examples["md"]
    assert f"Before <mark>{first[:-1]}</mark>" in examples["html"]
    assert f"{corpus}/a.jsonl, record 1" in examples["html"]
    assert main(["report", str(run.path)]) == 0
    assert (run.path / "report.html").read_text().count("<mark>") >= shown["html"].count("<mark>")


def test_the_table_has_intervals_and_what_is_not_testable(run):
    (row, _) = contamination_rows(run.info)
    acc = run.scores[run.scores.metric == "acc"].set_index("subset")
    for subset in ("original", "clean", "contaminated"):
        wanted = f"{100 * acc.ci_low[subset]:.1f} – {100 * acc.ci_high[subset]:.1f}"
        assert getattr(row, f"{subset}_interval") == wanted
        assert getattr(row, subset) == f"{100 * acc.value[subset]:.1f}%"
        for name in ("report.md", "report.html"):
            assert wanted in (run.path / name).read_text()
    assert row.not_testable == "1 not testable, 1 of them occur in full"
    assert (row.contaminated_share, row.qwen2_share) == ("33.3%", "33.3%")


def test_few_clean_docs_are_warned_of_without_contaminated_ones_too():
    """Docs that are not testable are missing in clean as well."""
    task = TaskContaminationInfo(100, 8, 0, None, 92, 0, scores=(), evidence=())
    rule, tasks = RuleInfo(13, None, 13, 0.6, "window"), {"a": task, "b": replace(task, n_docs=8)}
    found = ContaminationInfo("leaks", rule, CorpusInfo(n_documents=1), problems={}, tasks=tasks)
    assert contamination_warnings(found) == ("a: only 8 docs are clean: their score is not reliable",)
    assert contamination_warnings(None) == ()


@pytest.mark.parametrize(("fields", "message"), [(["prompt"], "names 'prompt', which doc 0 lacks"), ("question", None)])
def test_reference_fields(tmp_path, docs, corpus, capsys, fields, message):
    write_rows(tmp_path / "train.jsonl", docs[:3])
    write_rows(tmp_path / "test.jsonl", docs)
    metadata = {"version": 1.0, "reference_fields": fields}
    write_task(tmp_path, "odd", like="pick", num_fewshot=0, metadata=metadata)
    scanned = ["decontam", "scan", str(corpus), "--references", "odd", "--include_path", str(tmp_path), "--offline"]
    assert main([*scanned, "--output", str(tmp_path / "found")]) == (64 if message else 0)
    assert (message or "") in capsys.readouterr().err
    if message is None:
        assert load_results(tmp_path / "found").references.text.tolist() == [doc["question"] for doc in docs]


def test_a_document_with_many_items_contaminates_them_all_and_has_evidence_of_each(tmp_path, tasks_dir, docs):
    place = write_corpus(tmp_path / "a.jsonl", ["\n".join(doc["question"] for doc in docs[:40])])
    run = run_here(tasks_dir, tmp_path / "runs", "--corpus", place, tasks="quiz")
    wanted = set(range(40))
    for _ in range(2):
        samples = load_run(run.path).samples("quiz")
        assert set(samples[samples.contamination == "contaminated"].doc_id) == wanted
        assert len({row["doc_id"] for row in run.match_rows("quiz")}) == len(wanted)
        assert main(["score", str(run.path)]) == 0


@pytest.fixture(scope="module")
def moral_run(tmp_path_factory):
    """A corpus with one of 60 items made from a template, and with another one's short question."""
    folder = tmp_path_factory.mktemp("moral")
    header = "For which of these two scenes does the teller clearly do wrong by the standards of the town?"
    rows = [
        {"question": f"{header} {make_question(i)}", "choices": ["wrong", "right", "both"], "gold": i % 3, "topic": "t"}
        for i in range(60)
    ]
    rows[59]["question"] = "Which of them waters the grey mare?"
    rows[59]["choices"] = [f"the old man from house number {i} in that street" for i in range(3)]
    write_rows(folder / "train.jsonl", rows[:3])
    write_rows(folder / "test.jsonl", rows)
    metadata = {"version": 1.0, "reference_fields": ["question", "choices"]}
    write_task(folder, "moral", like="pick", num_fewshot=0, metadata=metadata)
    place = write_corpus(folder / "a.jsonl", [rows[7]["question"], rows[59]["question"]])
    return run_here(folder, folder / "runs", "--corpus", place, tasks="moral"), Path(place)


def test_docs_of_a_template_stay_clean_and_are_counted(moral_run, capsys):
    run, _ = moral_run
    marks = run.samples("moral").sort_values("doc_id").contamination.tolist()
    assert marks == ["template"] * 7 + ["contaminated"] + ["template"] * 51 + ["contaminated"]
    told = run.info.contamination.tasks["moral"]
    assert (told.n_docs, told.n_contaminated, told.n_contaminated_qwen2, told.n_clean) == (60, 2, 1, 58)
    assert (told.n_template, told.n_with_templates, told.n_questions_found_whole) == (58, 59, 1)
    scores = run.scores.set_index(["metric", "subset"])
    assert scores.loc[("acc", "clean")].n_docs == 58
    assert scores.loc[("acc", "contaminated")].n_docs == 2
    assert main(["score", str(run.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "58 share only a template with the corpus and count as clean" in shown
    assert "with templates 59 docs share an n-gram" in shown
    assert "1 found by the whole of a short question" in shown
    assert load_run(run.path).info.contamination.tasks["moral"] == told


def test_a_folder_of_an_older_scan_is_read(moral_run, tmp_path):
    """It has no templates and says nothing of forms."""
    run, corpus = moral_run
    found = tmp_path / "found"
    folder = str(corpus.parent)
    scanned = ["decontam", "scan", str(corpus), "--references", "moral", "--include_path", folder, "--offline"]
    assert main([*scanned, "--template_items", "0", "--output", str(found)]) == 0
    table = pd.read_parquet(found / "references.parquet")
    new = [
        name for name in table if name.startswith("found_by_") or name in ("n_documents_template", "n_documents_ngram")
    ]
    table.drop(columns=new).to_parquet(found / "references.parquet")
    copy = shutil.copytree(run.path, tmp_path / "run")
    assert main(["decontam", "apply", str(copy), "--matches", str(found)]) == 0
    told = load_run(copy).info.contamination.tasks["moral"]
    assert (told.n_contaminated, told.n_with_templates) == (60, None)
    assert main(["decontam", "show", str(found)]) == 0
