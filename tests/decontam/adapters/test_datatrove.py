"""datatrove: real pipelines over local files."""

import json

import pytest

from decontam import ReferenceIndex, Rule
from tests.decontam.corpora import ITEMS, make_documents

pytestmark = pytest.mark.slow
TEXTS = make_documents(120)


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datatrove")
    for part in range(2):
        rows = (json.dumps({"id": str(i), "text": text}) for i, text in enumerate(TEXTS) if i % 2 == part)
        (folder / f"{part}.jsonl").write_text("".join(row + "\n" for row in rows))
    return folder


def run(corpus, out, *, index, workers=1, **options):
    """Run a pipeline, and return the documents that it kept and those that it dropped, by number."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    from decontam.adapters.datatrove import DecontaminationFilter

    dropped = JsonlWriter(str(out / "dropped"), compression=None)
    step = DecontaminationFilter(index, exclusion_writer=dropped, batch_size=50, **options)
    steps = [JsonlReader(str(corpus)), step, JsonlWriter(str(out / "kept"), compression=None)]
    LocalPipelineExecutor(pipeline=steps, tasks=2, workers=workers, logging_dir=str(out / "logs")).run()
    found = []
    for name in ("kept", "dropped"):
        lines = (line for path in sorted((out / name).glob("*.jsonl")) for line in path.read_text().splitlines())
        found.append({int(row["id"]): row for row in map(json.loads, lines)})
    return found


def test_drop(tmp_path, corpus, index):
    kept, dropped = run(corpus, tmp_path, index=index)
    expected = {i: index.find_matches(text) for i, text in enumerate(TEXTS)}
    assert set(kept) == {i for i, matches in expected.items() if not matches}
    assert set(dropped) == {i for i, matches in expected.items() if matches}
    assert len(dropped) > 10
    for i, row in dropped.items():
        assert row["metadata"]["filter_reason"] == "contaminated"
        assert [found["reference_id"] for found in row["metadata"]["contamination"]] == [
            match.reference_id for match in expected[i]
        ]
    stats = json.loads((tmp_path / "logs" / "stats.json").read_text())
    (step,) = (step for step in stats if "decontamination" in step["name"])
    assert step["stats"]["dropped_contaminated"] == len(dropped)


def test_mark_in_two_processes_with_an_index_from_a_file(tmp_path, corpus, index):
    index.save(tmp_path / "index.json")
    kept, dropped = run(corpus, tmp_path, index=tmp_path / "index.json", workers=2, action="mark", rule="strict")
    assert (len(kept), dropped) == (len(TEXTS), {})
    for i, text in enumerate(TEXTS):
        expected = [match.reference_id for match in index.find_all_matches(text) if match.rule != "whole"]
        assert kept[i]["metadata"]["contaminated"] is bool(expected)
        assert [found["reference_id"] for found in kept[i]["metadata"]["contamination"]] == expected


def test_another_text_than_the_document_itself(index):
    from datatrove.data import Document

    from decontam.adapters.datatrove import DecontaminationFilter

    step = DecontaminationFilter(index, text_field="answer", action="drop")
    texts = (f"half a pair \ud83d {ITEMS[0].text}", "nothing", None)
    documents = [Document(text=ITEMS[1].text, id="0", metadata={"answer": text}) for text in texts]
    assert step.filter_batch(documents) == [(False, "contaminated"), True, True]
    assert step.filter(documents[0]) == (False, "contaminated")
