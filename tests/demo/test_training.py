"""Training, made small: losses fall and repeat, stopping changes nothing, what comes out is a Qwen2 for everybody."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.demo import train as training
from qwen2eval.demo.curriculum import STAGES, Recipe, Stage
from qwen2eval.demo.dice import Dice
from qwen2eval.demo.nano import Muon, nano_config, new_model, save_model, training_logits
from qwen2eval.demo.shipped import CORPUS
from qwen2eval.demo.tokenizer import SPECIALS, train_tokenizer
from qwen2eval.demo.train import Trainer, resume, train
from qwen2eval.demo.training_text import END, Packer, TrainingDocument, tokenize
from qwen2eval.errors import ConfigError
from qwen2eval.model import Qwen2Config, load_model

WEIGHTS = {"facts": 1, "needle_one": 2}
RECIPE = Recipe(
    n_steps=24, seed=3, tokens_per_step=512, stages=(Stage(0.5, 64, 5.0, WEIGHTS), Stage(1.0, 128, 2.0, WEIGHTS))
)


@pytest.fixture(scope="module")
def rows(made):
    return [{"text": d.text, "kind": d.kind} for d in made.documents if d.kind in WEIGHTS]


@pytest.fixture(scope="module")
def tokenizer(rows):
    return train_tokenizer(row["text"] for row in rows)


@pytest.fixture(scope="module")
def texts(rows, tokenizer):
    return tokenize(rows, tokenizer)


@pytest.fixture
def tiny(tokenizer):
    """Return a function that makes a trainer of a tiny model; all of them are the same."""
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return lambda texts, recipe=RECIPE, dtype="float32": Trainer(config, texts, recipe, dtype=dtype)


@pytest.fixture
def short_intervals(monkeypatch):
    monkeypatch.setattr(training, "LOG_EVERY", 4)
    monkeypatch.setattr(training, "SAVE_EVERY", 8)


def log_of(out):
    lines = [json.loads(line) for line in (out / training.LOG).read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


@pytest.mark.usefixtures("short_intervals")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_falls_and_repeats(tiny, texts, tmp_path, dtype):
    logs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert train(tiny(texts, dtype=dtype), tmp_path / name)
        logs.append(log_of(tmp_path / name))
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == [4, 8, 12, 16, 20, 24]
    assert logs[0][-1]["loss"] < logs[0][0]["loss"] - 0.3
    assert set(logs[0][-1]["answers"]) == set(WEIGHTS)


@pytest.mark.usefixtures("short_intervals")
def test_resumed_training_is_as_if_never_stopped(tiny, texts, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        out.mkdir()
    trainer = tiny(texts)
    train(trainer, whole)
    assert not train(tiny(texts), parts, hours=0)  # stops at the first line of the log
    # of a process that was killed behind its last state
    with (parts / training.LOG).open("a") as file:
        file.write('{"step": 8, "loss": 1}\n{"step": 12, "lo')
    again = tiny(texts)
    resume(again, parts)
    assert again.step == 4
    assert train(again, parts)
    assert log_of(parts) == log_of(whole)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


@pytest.mark.usefixtures("short_intervals")
def test_state_of_another_training_is_refused(tiny, texts, tmp_path):
    train(tiny(texts), tmp_path, hours=0)
    with pytest.raises(ConfigError, match="another training"):
        resume(tiny(texts, Recipe(n_steps=24, seed=4, tokens_per_step=512)), tmp_path)
    (tmp_path / training.STATE).write_bytes(b"broken")
    with pytest.raises(ConfigError, match="start again"):
        resume(tiny(texts), tmp_path)


def test_trains_the_model_that_is_evaluated(tokenizer):
    """The forward pass with gradients gives the logits of the model's own."""
    model = new_model(nano_config(tokenizer.get_vocab_size()), seed=0)
    ids = torch.randint(0, 200, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(training_logits(model, ids).detach(), model(ids), rtol=1e-4, atol=1e-5)


def test_checkpoint_is_read_by_both(tokenizer, tmp_path):
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    model = new_model(nano_config(tokenizer.get_vocab_size()), seed=0)
    with torch.no_grad():  # biases are 0 at first, where a lost one wouldn't show
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    save_model(model, tokenizer, tmp_path / "model")
    ours, theirs = load_model(tmp_path / "model"), Qwen2ForCausalLM.from_pretrained(tmp_path / "model", dtype="float32")
    ids = torch.tensor([tokenizer.encode("The secret code of the red box is 1234.").ids])
    torch.testing.assert_close(ours(ids), theirs(ids).logits.detach(), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 20_000_000
    assert theirs.generation_config.eos_token_id == [0, 2]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2]
    chat = loaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_muon_is_that_of_torch():
    chance = torch.Generator().manual_seed(0)
    shapes = [(64, 64), (64, 64), (96, 64), (64, 96)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=chance) * 0.02) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    before = [p.detach().clone() for p in ours]
    muon = Muon(ours, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=chance)
            q.grad = p.grad.clone()
        muon.step(0.01)
        reference.step()
    for p, q, old in zip(ours, theirs, before, strict=True):
        # torch's sums are in bfloat16, which has 8 bits
        assert (p - q).norm() < 0.05 * (q - old).norm()


def test_model_has_the_promised_size():
    assert 3_000_000 < nano_config(2_300).n_parameters < 8_000_000


def test_tokenizer_is_the_same_each_time_and_loses_nothing(rows, tokenizer):
    assert train_tokenizer(row["text"] for row in rows).to_str() == tokenizer.to_str()
    texts = [row["text"] for row in rows] + ["naïve 🐐 \t\n\n  x", "12345"]
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in texts] == texts
    assert len(tokenizer.encode("12345").ids) == 5  # a digit is a token, as in Qwen2


def test_answers_are_marked(tokenizer):
    def marked(text):
        [documents] = tokenize([{"text": text, "kind": "any"}], tokenizer).values()
        document = documents[0]
        assert document.ids[-1] == END
        assert document.is_answer[-1]
        return tokenizer.decode(document.ids[:-1][document.is_answer[:-1]].tolist())

    assert marked("Question: x?\nAnswer: 12\n#### 12\n\nQuestion: y?\nAnswer: 5") == " 12\n#### 12 5"
    assert marked("Q\nA. x\nAnswer: B\n\nMore\nAnswer: C") == " B C"
    assert marked("文档\n\n问题：密码是什么？\n回答：1234") == "1234"  # noqa: RUF001
    assert marked('def f(n):\n    """Do.\n\n    >>> f(1)\n    2\n    """\n    return n + 1\n') == "    return n + 1\n"
    assert marked("No question here.") == ""


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 4), st.integers(30, 60), st.integers(0, 99)
)
def test_rows_hold_whole_documents(lengths, n_rows, length, seed):
    """Each document has its own token, so that cut or mixed ones would show."""
    documents = [
        TrainingDocument(np.array([*[n + 1] * (size - 1), END], np.int64), np.ones(size, np.bool_))
        for n, size in enumerate(lengths)
    ]
    packed = Packer({"a": documents[::2], "b": documents[1::2]}, Dice(seed)).rows(
        n_rows, length, {"a": 1, "b": 1} if documents[1::2] else {"a": 1}
    )
    assert packed.ids_BT.shape == packed.is_answer_BT.shape == packed.kinds_BT.shape == (n_rows, length)
    for ids, kinds in zip(packed.ids_BT, packed.kinds_BT, strict=True):
        used = ids[kinds >= 0].tolist()
        assert all(ids[kinds < 0] == END)
        while used:
            size = used.index(END) + 1
            number = used[0] - 1 if size > 1 else None
            assert number is None or (len(set(used[: size - 1])) == 1 and lengths[number] == size)
            assert number is not None or 1 in lengths
            used = used[size:]


def test_corpus_without_what_a_stage_needs_is_refused(texts):
    with pytest.raises(ConfigError, match="no document of story with up to 64"):
        Packer(texts, Dice(0)).rows(1, 64, {"story": 1})
    with pytest.raises(ConfigError, match="with up to 3 tokens"):
        Packer(texts, Dice(0)).rows(1, 3, WEIGHTS)


def test_stages_and_rates():
    recipe = Recipe(n_steps=1000)
    lengths = [recipe.stage(step).row_length for step in (0, 99, 100, 349, 350, 999)]
    assert lengths == [96, 96, 256, 256, 512, 512]
    shares = [recipe.rate_share(step) for step in range(1000)]
    assert max(shares) == pytest.approx(1.0)
    assert shares.index(max(shares)) == 39
    assert shares[-1] == pytest.approx(recipe.last_rate, rel=0.01)
    assert Recipe(n_steps=1).rate_share(0) == 1.0


def test_every_kind_of_document_is_learned_from(made):
    assert {kind for stage in STAGES for kind in stage.weights} == {document.kind for document in made.documents}


def test_impossible_recipes_are_refused():
    with pytest.raises(ConfigError, match="steps is 0"):
        Recipe(n_steps=0)
    with pytest.raises(ConfigError, match="must end at 1"):
        Recipe(stages=STAGES[:1])


@pytest.mark.slow
def test_command_on_an_eighth_of_the_shipped_corpus(tmp_path):
    out, corpus = tmp_path / "trained", tmp_path / "corpus.jsonl.zst"
    lines = zstandard.decompress(CORPUS.read_bytes(), 1 << 30).splitlines(keepends=True)[::8]
    corpus.write_bytes(zstandard.compress(b"".join(lines)))
    words = ["--out", str(out), "--steps", "6", "--corpus", str(corpus)]
    assert training.main(words) == 0
    (line,) = log_of(out)
    assert line["step"] == 6
    config = load_model(out / "model").config
    assert line["loss"] < math.log(config.vocab_size) - 0.75  # of guessing
    assert config.original_max_length == 512
    command = [sys.executable, "-m", "qwen2eval.demo.train", *words]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 64
    assert "exists already" in again.stderr
