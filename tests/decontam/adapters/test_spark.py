"""Spark: a real local session; `make test-spark` makes the environment."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from decontam import ReferenceIndex, Rule
from tests.decontam.corpora import ITEMS, make_documents

if find_spec("pyspark") is None:
    pytest.skip("needs Spark: `make test-spark` makes an environment with it", allow_module_level=True)

TEXTS = [*make_documents(300), None]
SETTINGS = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    repository = str(Path(__file__).resolve().parents[3])
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": repository}
    session = SparkSession.builder.master("local[2]").config(map=SETTINGS).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture
def frame(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "id long, body string").repartition(4)


def test_marked_as_the_index_says(spark, frame, index):
    from decontam.adapters.spark import decontaminate, output_schema

    search = decontaminate(spark.sparkContext.broadcast(index), text_field="body")
    rows = frame.mapInArrow(search, output_schema(frame.schema)).orderBy("id").collect()
    expected = [index.find_matches(text or "") for text in TEXTS]
    assert [row.contaminated for row in rows] == [bool(matches) for matches in expected]
    assert [[(found.reference_id, found.rule, found.lcs_length) for found in row.contamination] for row in rows] == [
        [(match.reference_id, match.rule, match.lcs_length) for match in matches] for matches in expected
    ]
    assert [row.body for row in rows] == TEXTS
    assert sum(row.contaminated for row in rows) > 30


def test_dropped_with_an_index_from_a_file(tmp_path, frame, index):
    from decontam.adapters.spark import decontaminate, output_schema

    index.save(tmp_path / "index.json")
    search = decontaminate(tmp_path / "index.json", text_field="body", rule="strict", action="drop")
    rows = frame.mapInArrow(search, output_schema(frame.schema, action="drop")).orderBy("id").collect()
    clean = [i for i, text in enumerate(TEXTS) if not {m.rule for m in index.find_all_matches(text or "")} - {"whole"}]
    assert [row.id for row in rows] == clean
    assert set(rows[0].asDict()) == {"id", "body"}


def test_an_error_of_ours_is_told(frame, spark, index):
    from decontam.adapters.spark import decontaminate, output_schema

    search = decontaminate(spark.sparkContext.broadcast(index))
    with pytest.raises(Exception, match="no column 'text'; there are 'id', 'body'"):
        frame.mapInArrow(search, output_schema(frame.schema)).collect()
