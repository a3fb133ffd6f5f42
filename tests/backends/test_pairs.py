"""A choice is scored whole where one token spans the join with its context."""

from dataclasses import replace

import pytest
import torch

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec, open_model
from qwen2eval.backends.pairs import encode_pair
from qwen2eval.requests import Request
from tests.backends.openai_server import save_tiny_model

MERGED = ("ab", "bc", "abc")


class Words:
    """A tokenizer of whole pieces: longest first, from a short list, else one character each."""

    prefix_token_id = 0
    PIECES = (*MERGED, " the", "wor", "world")

    def tok_encode(self, text, **_options):
        ids = []
        while text:
            piece = max((p for p in (*self.PIECES, text[0]) if text.startswith(p)), key=len)
            ids.append(hash(piece) % 10**6 + 1)
            text = text[len(piece) :]
        return ids


def ids_of(*pieces):
    return [hash(piece) % 10**6 + 1 for piece in pieces]


@pytest.mark.parametrize(
    ("context", "continuation", "expected"),
    [
        ("x", " the", (["x"], [" the"])),
        ("x ", "the", (["x"], [" the"])),
        ("wor", "ld", (["wor"], ["l", "d"])),
        ("a", "bc the", (["a"], ["bc", " the"])),
        ("xab", "c", (["x", "ab"], ["c"])),
        ("x", "", (["x"], [])),
    ],
    ids=["apart", "blank of the context", "nothing left", "beginning lost", "last token longer", "empty"],
)
def test_what_is_scored_is_the_whole_choice(context, continuation, expected):
    """lm-eval scored " the" alone of "bc the", and nothing of "ld"."""
    assert encode_pair(Words(), context, continuation) == tuple(ids_of(*pieces) for pieces in expected)


def test_a_context_of_blanks_begins_with_the_prefix_token():
    assert encode_pair(Words(), " ", "the") == ([0], ids_of(" the"))


@pytest.fixture(scope="module")
def spanning(tmp_path_factory):
    """Return a tiny model whose tokenizer has "abc" as one token, and the texts "ab" and "c"."""
    import json

    from transformers import AutoTokenizer

    folder = save_tiny_model(tmp_path_factory.mktemp("spanning") / "model")
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    model = settings["model"]
    taken = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: -item[1])][:2]
    for token, merged in zip(taken, ("qz", "qzx"), strict=True):
        model["vocab"][merged] = model["vocab"].pop(token)
    model["merges"] = [["q", "z"], ["qz", "x"]]
    file.write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [len(tokenizer.encode(text)) for text in ("qz", "x", "qzx")] == [1, 1, 1]
    return folder, tokenizer


@pytest.mark.parametrize("model", ["hf", "qwen2"])
def test_backends_score_the_choice_by_itself(spanning, model):
    """Hf died of it, and qwen2 could never answer; against the checkpoint's own log-probabilities."""
    from transformers import AutoModelForCausalLM

    folder, tokenizer = spanning
    config = RunConfig(model=model, model_args={"pretrained": str(folder), "dtype": "float32"}, device="cpu")
    backend = open_model(config, load_spec(config))
    plain = Request("loglikelihood", "qz", "x", n_context_tokens=1, n_continuation_tokens=1)
    requests = [plain, replace(plain, continuation="", n_continuation_tokens=0), replace(plain, continuation=" a")]
    answers = dict(pair for batch in backend.answer(requests) for pair in batch)
    backend.close()
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = reference(torch.tensor([tokenizer.encode("qz")])).logits[0, -1]
    expected = torch.log_softmax(logits, -1)[tokenizer.encode("x")[0]].item()
    assert answers[0].logprob == pytest.approx(expected, abs=1e-4)
    assert "no token of its own" in answers[1].error or "no separate token" in answers[1].error
    assert answers[2].error is None
