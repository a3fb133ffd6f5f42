"""Trains the demo model, qwen2-nano, on the demo's corpus, on a CPU.

    python -m qwen2eval.demo.train [--out DIR] [--corpus FILE] [--steps N] [--seed N] [--hours H]

DIR/log.jsonl has the losses, DIR/state.pt is the state from which a stopped training resumes (with the same command),
and DIR/model is the finished checkpoint, with the log in its training.json. The same seed gives the same losses on the
same machine with as many threads, but for the last digits.
"""

# ruff: noqa: N803, N806, N812, N815 - tensors carry their shape in the name, and torch.nn.functional is F

import argparse
import hashlib
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2eval.demo.curriculum import Recipe
from qwen2eval.demo.dice import Dice
from qwen2eval.demo.nano import Optimizers, nano_config, new_model, save_model, training_logits
from qwen2eval.demo.shipped import CORPUS
from qwen2eval.demo.tokenizer import train_tokenizer
from qwen2eval.demo.training_text import Packer, Rows, Texts, read_corpus, tokenize
from qwen2eval.errors import ConfigError, Qwen2EvalError
from qwen2eval.model import Qwen2Config
from qwen2eval.model.save import write_json

LOG, STATE, MODEL, TRAINING = "log.jsonl", "state.pt", "model", "training.json"
LOG_EVERY, SAVE_EVERY = 50, 500
"""Steps."""
COMPILED_FROM = 1_000
"""Steps of a training that is worth the minutes that torch.compile takes."""
TOKENIZER_SHARE = 8
"""The tokenizer is trained on every so many documents: they hold all words often enough."""
Dtype = Literal["bfloat16", "float32"]
DTYPE: Dtype = "float32"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Losses:
    """Of one step. Shape suffix: K kinds of documents."""

    minimised: float
    """The weighted mean over all tokens."""
    by_kind_K: npt.NDArray[np.float64]
    """Sum over tokens of answers, in nats."""
    n_by_kind_K: npt.NDArray[np.float64]
    """Tokens of answers."""


def sum_up(steps: Sequence[Losses], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the mean loss of some steps, and the mean over the tokens of answers in documents of each kind."""
    sums_K = np.sum([step.by_kind_K for step in steps], axis=0)
    n_tokens_K = np.sum([step.n_by_kind_K for step in steps], axis=0)
    answers = {k: round(float(s / n), 4) for k, s, n in zip(kinds, sums_K, n_tokens_K, strict=True) if n}
    return {"loss": sum(step.minimised for step in steps) / len(steps), "answers": answers}


class Trainer:
    """A model on its way.

    Args:
        texts: documents by kind.
        recipe: how it learns.
        dtype: of matrix products; bfloat16 is nearly twice as fast on processors that have AMX, and very slow on those
            without instructions for it.
        is_compiled: by torch.compile, which needs a C++ compiler and about a minute for each length of rows, and makes
            steps nearly twice as fast.
    """

    def __init__(
        self, config: Qwen2Config, texts: Texts, recipe: Recipe, *, dtype: Dtype = DTYPE, is_compiled: bool = False
    ) -> None:
        self.recipe, self.dtype, self.step = recipe, dtype, 0
        self.model = new_model(config, seed=recipe.seed)
        self.kinds = list(texts)
        """The kinds of documents, in the order of losses by kind."""
        self.fingerprint = _fingerprint(repr((config, recipe, dtype, is_compiled, self.kinds)), texts)
        """Hash of everything that must be equal to resume."""
        self._packer = Packer(texts, Dice(recipe.seed, "training"))
        self._optimizers = Optimizers(self.model, weight_decay=recipe.weight_decay)
        self._logits = torch.compile(training_logits, dynamic=False) if is_compiled else training_logits

    def take_step(self) -> Losses:
        """Learn from the next batch."""
        rows, answer_weight = self._next_rows(), self.recipe.stage(self.step).answer_weight
        ids_BT = torch.from_numpy(rows.ids_BT)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            logits_BTV = self._logits(self.model, ids_BT[:, :-1].contiguous())
        loss_N = F.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten(), reduction="none")
        loss = self._weighted(loss_N, rows, answer_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_gradient)
        share = self.recipe.rate_share(self.step)
        self._optimizers.step(muon_rate=share * self.recipe.muon_rate, adam_rate=share * self.recipe.adam_rate)
        self.step += 1
        return self._losses(float(loss.detach()), loss_N.detach().double().numpy(), rows)

    def state(self) -> dict[str, Any]:
        """Return the state that is needed to resume."""
        return {
            "made_by": self.fingerprint,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizers": self._optimizers.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; batches up to it are made once more, so that the next ones are the same."""
        self.model.load_state_dict(state["model"])
        self._optimizers.load_state_dict(state["optimizers"])
        while self.step < state["step"]:
            self._next_rows()
            self.step += 1

    def _next_rows(self) -> Rows:
        stage = self.recipe.stage(self.step)
        return self._packer.rows(self.recipe.tokens_per_step // stage.row_length, stage.row_length, stage.weights)

    @staticmethod
    def _weighted(loss_N: Tensor, rows: Rows, answer_weight: float) -> Tensor:
        weights = np.where(rows.is_answer_BT, answer_weight, 1.0) * (rows.kinds_BT >= 0)
        weights_N = torch.from_numpy(weights[:, 1:].reshape(-1)).to(loss_N.dtype)
        return (loss_N * weights_N).sum() / weights_N.sum()

    def _losses(self, minimised: float, loss_N: npt.NDArray[np.float64], rows: Rows) -> Losses:
        is_counted = rows.is_answer_BT[:, 1:].reshape(-1)
        kinds, n_kinds = rows.kinds_BT[:, 1:].reshape(-1)[is_counted], len(self.kinds)
        sums = np.bincount(kinds, loss_N[is_counted], minlength=n_kinds)
        counts = np.bincount(kinds, minlength=n_kinds)
        return Losses(minimised, sums.astype(np.float64), counts.astype(np.float64))


def _fingerprint(settings: str, texts: Texts) -> str:
    digest = hashlib.sha256(settings.encode())
    for documents in texts.values():
        for document in documents:
            digest.update(document.ids.tobytes())
    return digest.hexdigest()[:12]


def train(trainer: Trainer, out: Path, *, hours: float | None = None, say: Say = lambda _: None) -> bool:
    """Train to the end or until the time is over, with a log and a state in `out`; return whether it is the end.

    Args:
        hours: stop after so many, to resume later; None: don't stop.
        say: called with lines about the progress.
    """
    begin = mark = time.monotonic()
    parts: list[Losses] = []
    n_steps = trainer.recipe.n_steps
    while trainer.step < n_steps:
        parts.append(trainer.take_step())
        # What is logged and saved depends on the step only, not on where training was stopped
        if trainer.step % LOG_EVERY and trainer.step != n_steps:
            continue
        seconds, mark = time.monotonic() - mark, time.monotonic()
        line = {"step": trainer.step, **sum_up(parts, trainer.kinds)}
        line["tokens_per_second"] = round(len(parts) * trainer.recipe.tokens_per_step / seconds)
        parts = []
        with (out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        say(f"step {trainer.step:,} of {n_steps:,}, loss {line['loss']:.3f}, {line['tokens_per_second']:,} tokens/s")
        is_over = hours is not None and mark - begin > hours * 3600
        if is_over or trainer.step % SAVE_EVERY == 0 or trainer.step == n_steps:
            _save_state(trainer, out / STATE)
        if is_over:
            break
    return trainer.step == n_steps


def resume(trainer: Trainer, out: Path) -> None:
    """Go on from the state in `out`, if there is one; what the log says beyond it is dropped.

    Raises:
        ConfigError: the state is of another recipe, model or corpus, or broken.
    """
    path = out / STATE
    if not path.is_file():
        (out / LOG).unlink(missing_ok=True)
        return
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{str(path)!r} is not a state of a training: delete it to start again")
    state = torch.load(path, weights_only=True)
    if state["made_by"] != trainer.fingerprint:
        raise ConfigError(
            f"{str(path)!r} is of another training ({state['made_by']}, now {trainer.fingerprint}): "
            "name another --out, or delete it to start again"
        )
    trainer.restore(state)
    lines = (out / LOG).read_text(encoding="utf-8").splitlines() if (out / LOG).is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= trainer.step]
    (out / LOG).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _save_state(trainer: Trainer, path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    torch.save(trainer.state(), draft)
    draft.replace(path)


def describe_training(log: Path, recipe: Recipe, corpus: Path, *, dtype: Dtype, is_compiled: bool) -> dict[str, Any]:
    """Return what a finished checkpoint says of its training: recipe, hash of the corpus, and the log."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return {
        "steps": recipe.n_steps,
        "seed": recipe.seed,
        "tokens_per_step": recipe.tokens_per_step,
        "dtype": dtype,
        "compiled": is_compiled,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "corpus_sha256": hashlib.sha256(corpus.read_bytes()).hexdigest(),
        "log": [json.loads(line) for line in lines],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the demo model on the shipped corpus."""
    parser = argparse.ArgumentParser(prog="python -m qwen2eval.demo.train", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/qwen2-nano"), metavar="DIR", help="made if needed [default: %(default)s]"
    )
    parser.add_argument("--corpus", type=Path, metavar="FILE", help="jsonl.zst [default: the shipped one]")
    parser.add_argument(
        "--steps", type=int, default=Recipe.n_steps, metavar="N", help="updates in all [default: %(default)s]"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed, metavar="N", help="[default: %(default)s]")
    parser.add_argument("--hours", type=float, metavar="H", help="maximum training time; the same command resumes")
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), default=DTYPE, help="of matrix products [default: %(default)s]"
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=f"with torch.compile and a C++ compiler [default: for {COMPILED_FROM:,} steps and more]",
    )
    args = parser.parse_args(arguments)
    try:
        return _train_on_corpus(args)
    except Qwen2EvalError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code


def _train_on_corpus(args: argparse.Namespace) -> int:
    recipe, out, say = Recipe(n_steps=args.steps, seed=args.seed), args.out, _say
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(f"{str(out)!r} can't be made ({err}): name a folder in which you may write") from err
    if (out / MODEL).exists():
        raise ConfigError(f"{str(out / MODEL)!r} exists already: name another --out, or delete it to train again")
    corpus = args.corpus or CORPUS
    rows = read_corpus(corpus)
    tokenizer = train_tokenizer(row["text"] for row in rows[::TOKENIZER_SHARE])
    texts = tokenize(rows, tokenizer)
    n_tokens = sum(len(document.ids) for documents in texts.values() for document in documents)
    config = nano_config(tokenizer.get_vocab_size())
    say(f"{len(rows):,} documents, {n_tokens:,} tokens; {config.n_parameters:,} parameters")
    is_compiled = args.steps >= COMPILED_FROM if args.compile is None else args.compile
    trainer = Trainer(config, texts, recipe, dtype=args.dtype, is_compiled=is_compiled)
    resume(trainer, out)
    if train(trainer, out, hours=args.hours, say=say):
        save_model(trainer.model, tokenizer, out / MODEL)
        described = describe_training(out / LOG, recipe, corpus, dtype=args.dtype, is_compiled=is_compiled)
        write_json(out / MODEL / TRAINING, described)
        say(f"model  {out / MODEL}")
    else:
        say(f"stopped at step {trainer.step:,}: the same command resumes")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
