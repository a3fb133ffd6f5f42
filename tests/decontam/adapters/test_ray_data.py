"""Ray Data: real data sets on a real cluster."""

import pyarrow as pa
import pytest

from decontam import ReferenceIndex, Rule
from tests.decontam.corpora import ITEMS, make_documents

# Ray Data warns of its own settings
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TEXTS = [*make_documents(300), None]


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(ITEMS, Rule())


@pytest.fixture(scope="module")
def dataset(ray_cluster):
    import ray.data

    assert ray_cluster
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data.from_arrow(pa.table({"id": range(len(TEXTS)), "body": TEXTS})).repartition(4)


def searched(dataset, index, **options):
    from decontam.adapters.ray_data import Decontaminate

    kwargs = {"index": index, "text_field": "body", **options}
    # one of two CPUs: the other must read
    marked = dataset.map_batches(Decontaminate, fn_constructor_kwargs=kwargs, batch_format="pyarrow", concurrency=1)
    return sorted(marked.take_all(), key=lambda row: row["id"])


def test_marked_as_the_index_says(dataset, index):
    from decontam.adapters.ray_data import share

    rows = searched(dataset, share(index))
    expected = [index.find_matches(text or "") for text in TEXTS]
    assert [row["contaminated"] for row in rows] == [bool(matches) for matches in expected]
    assert [[found["reference_id"] for found in row["contamination"]] for row in rows] == [
        [match.reference_id for match in matches] for matches in expected
    ]
    assert sum(row["contaminated"] for row in rows) > 30


def test_dropped_with_an_index_from_a_file(tmp_path, dataset, index):
    index.save(tmp_path / "index.json")
    rows = searched(dataset, str(tmp_path / "index.json"), rule="strict", action="drop")
    clean = [i for i, text in enumerate(TEXTS) if not {m.rule for m in index.find_all_matches(text or "")} - {"whole"}]
    assert [row["id"] for row in rows] == clean
    assert set(rows[0]) == {"id", "body"}
