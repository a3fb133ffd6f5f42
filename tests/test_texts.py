"""Any bytes may come from outside: half of a surrogate pair from a server, in a doc, or in a task's template."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.texts import whole_text, whole_texts
from tests.backends.openai_server import serve_openai
from tests.local_tasks import run_here, write_tasks

HOSTILE = "a\0b \x1b[31mred\x1b[0m \u202e </script>\u2028 \ud83d"
KEPT = HOSTILE.replace("\ud83d", "\ufffd")
any_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(any_text)
def test_whole_texts_stay_as_they_are(text):
    assert whole_text(text) is text


@given(any_text, st.sampled_from([chr(0xD800), chr(0xDBFF), chr(0xDC00), chr(0xDFFF)]), any_text)
def test_a_lone_half_becomes_a_mark(before, half, after):
    assert whole_text(before + half + after) == f"{before}\ufffd{after}"


@given(any_text, st.characters(min_codepoint=0x10000))
def test_two_halves_side_by_side_are_the_character(before, character):
    """A server that streams cuts an emoji into two pieces of JSON."""
    halves = json.loads(json.dumps(character)[:7] + '"') + json.loads('"' + json.dumps(character)[7:])
    assert len(halves) == 2
    assert whole_text(before + halves) == before + character


def test_texts_in_values_are_made_whole():
    broken = {"a\ud800": ["x", ("\udc00", 1, None)]}
    assert whole_texts(broken) == {"a\ufffd": ["x", ("\ufffd", 1, None)]}
    fine = {"a": ["x", 2.5]}
    assert whole_texts(fine) is fine


@pytest.mark.slow
def test_hostile_text_of_a_server_of_docs_and_of_options_is_kept_and_shown(tmp_path, tiny_model, capsys):
    """The store refused half of a pair, at each later try too, so such a run never came to its end."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=2)
    docs = [json.loads(line) for line in (tasks_dir / "test.jsonl").read_text().splitlines()]
    # datasets refuses a file with half of a pair, in one message
    docs[0]["question"] = HOSTILE.rstrip("\ud83d")
    (tasks_dir / "test.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    with serve_openai(tiny_model, script=lambda _prompt: HOSTILE) as server:
        model = {"model": "local-chat-completions", "base_url": server.chat_url, "pretrained": server.model}
        options = ["--apply_chat_template", "--system_instruction", HOSTILE, "--gen_kwargs", "max_gen_toks=64"]
        for _ in range(2):
            run = run_here(tasks_dir, tmp_path / "runs", *options, tasks="say", **model)
    samples = pd.read_parquet(run.path / "samples" / "say.parquet")
    assert set(samples["response"]) == {KEPT}
    system, question = json.loads(samples["prompt"].iloc[0])
    assert (system["content"], question["content"][:9]) == (KEPT, KEPT[:9])
    printed = capsys.readouterr().out
    for page in ("report.html", "report.md"):
        printed += (run.path / page).read_text(encoding="utf-8")
    assert "\x1b" not in printed
    assert "\0" not in printed
    assert "⟨U+001B⟩[31mred" in printed
