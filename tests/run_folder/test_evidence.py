"""Which match of a doc is shown, and how much of its text."""

from qwen2eval.run_folder.evidence import (
    CONTEXT_CHARACTERS,
    MATCH_COLUMNS,
    N_EVIDENCE,
    match_rows,
    most_telling,
    with_evidence,
)


def match(doc_id, longest, *, rule="qwen2", **changes):
    text = "x" * 200 + "FOUND" + "y" * 200
    known = dict.fromkeys(MATCH_COLUMNS) | {"spans": [{"begin": 1200, "end": 1205}], "excerpt": text}
    return {"doc_id": doc_id, **known, "excerpt_begin": 1000, "rule": rule, "longest_match": longest, **changes}


def test_the_longest_matches_are_told_first_one_a_doc():
    rows = [match(i, 20 + i) for i in range(9)] + [match(8, 13), match(3, 90), match(7, 99, rule="whole")]
    told = most_telling(rows)
    assert [(row.doc_id, row.longest_match) for row in told] == [(3, 90), (8, 28), (7, 27), (6, 26), (5, 25)]
    assert len(told) == N_EVIDENCE
    assert most_telling([match(0, 5, rule="whole")]) == ()


def test_the_text_around_is_short():
    (row,) = most_telling([match(0, 20)])
    assert row.found == "FOUND"
    assert (row.before, row.after) == ("x" * CONTEXT_CHARACTERS, "y" * CONTEXT_CHARACTERS)


def test_samples_get_their_docs_match():
    samples = [{"doc_id": 0, "filter": name} for name in "ab"] + [{"doc_id": 1, "filter": "a"}]
    first, second, third = with_evidence(samples, [match(0, 20), match(0, 30)])
    assert first["evidence"].longest_match == second["evidence"].longest_match == 30
    assert (third["evidence"], third["filter"]) == (None, "a")


def test_rows_of_all_docs_in_their_order():
    rows = match_rows({4: [match(9, 1)], 2: [match(9, 2), match(9, 3)]})
    assert [(row["doc_id"], row["longest_match"]) for row in rows] == [(2, 2), (2, 3), (4, 1)]
    assert list(rows[0]) == ["doc_id", *MATCH_COLUMNS]


def test_counts_are_whole_numbers():
    """Where the matches of a scan had rows without one, the report said "common subsequence 24.0 tokens"."""
    (row,) = most_telling([match(0, 20, lcs_length=24.0, min_df=3.0)])
    assert [repr(count) for count in (row.lcs_length, row.min_df, row.n_shared_ngrams)] == ["24", "3", "None"]
