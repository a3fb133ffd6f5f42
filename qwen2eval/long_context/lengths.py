"""How long a prompt is for the model under test: in its own tokens, chat template and system instruction included.

Where the tokenizer allows it, pieces between blank lines are tokenized once and remembered (`prompts.TokenCounter`):
the prompts of a long-context task share most of theirs, and counting one of 128K tokens takes milliseconds.
"""

from array import array
from collections.abc import Iterable
from functools import lru_cache

from qwen2eval.backends.model_spec import ModelSpec
from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError
from qwen2eval.prompts import PromptPool, TokenCounter, before_plain_text, has_cutting_pattern, special_token_options
from qwen2eval.requests import GenKwargs

REMEMBERED_PARTS = 1 << 14
"""Short texts whose number of tokens is remembered."""
MARK = "\u00a4"
"""Marks the place of a context where the rest of a prompt is asked for."""


class PromptCounter:
    """Counts and cuts in tokens of one model.

    Args:
        spec: the model; it needs a tokenizer.
        config: the run, which decides on chat template, system instruction and BOS.
        description: the task's, which comes before what the user says.

    Raises:
        ConfigError: the model's tokenizer is not known.
    """

    def __init__(self, spec: ModelSpec, config: RunConfig, *, description: str = "") -> None:
        if spec.tokenizer is None:
            raise ConfigError(
                f"Prompts of a given length need the tokenizer of model {spec.name!r}, which is not known: name it "
                "with tokenizer=NAME_OR_FOLDER in --model_args"
            )
        self.spec, self.config = spec, config
        self._description = description
        self._tokenizer = spec.tokenizer
        self._pieces, self._pool = TokenCounter(spec.tokenizer), PromptPool()
        self._starts: dict[str, array[int]] = {}
        self.has_safe_cuts = has_cutting_pattern(spec.tokenizer)
        """Whether texts may be counted in parts, between `safe_cuts`."""
        self.n_lost = 0
        """Tokens without a place in their text, so far; `token_starts` leaves them out."""
        self._count_part = lru_cache(REMEMBERED_PARTS)(self._new_count)

    @property
    def front(self) -> ModelSpec:
        """The former name of `spec`, which classes of users read."""
        return self.spec

    @property
    def is_piecewise(self) -> bool:
        """Whether a text between blank lines has as many tokens by itself as within a prompt."""
        return self._pieces.is_piecewise

    def render(self, user_text: str) -> str:
        """Return the final prompt, as lm-eval's tasks build it for `user_text` without examples."""
        from lm_eval.api.utils import Message, maybe_delimit, multiturn_to_singleturn

        is_plain = not self.config.apply_chat_template or self.spec.chat_template is None
        said = self.config.system_instruction
        system = maybe_delimit(before_plain_text(said) if is_plain else said, self._description, "\n\n")
        messages = [Message("system", system)] if system else []
        messages.append(Message("user", user_text))
        if self.spec.chat_template is None or is_plain:
            return "".join(message.to_text() for message in messages)
        if self.config.fewshot_as_multiturn:
            return self.spec.chat_template([message.to_dict() for message in messages], add_generation_prompt=True)
        return self.spec.chat_template(multiturn_to_singleturn(messages), add_generation_prompt=True)

    def count(self, user_text: str) -> int:
        """Return the tokens of the final prompt in which the user says `user_text`."""
        return self.count_rendered(self.render(user_text))

    def count_rendered(self, prompt: str) -> int:
        """Return the tokens of a prompt that is final already; BOS counts where the model gets one."""
        if self.is_piecewise and self._pieces.is_in_pieces(pooled := self._pool.add(prompt)):
            return sum(map(len, self._pieces.pieces(pooled)))
        # Must count as the backends do: one BOS too many would make every prompt a token longer than asked
        options = special_token_options(self._tokenizer, prompt, self.config.model_args.get("add_bos_token"))
        return len(self._tokenizer(prompt, verbose=False, **options)["input_ids"])

    def count_part(self, text: str) -> int:
        """Return the tokens of a text by itself; within a prompt it may have a few less or more, at its ends."""
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def count_alone(self, text: str) -> int:
        """Return the tokens of a short text by itself, remembered; for tokenizers with safe cuts only."""
        return self._count_part(text)

    def around(self, before: str, after: str) -> tuple[str, str] | None:
        """Return the text before and behind a context in the final prompt; None where the template hides it.

        Args:
            before: what the user says before it.
            after: and behind it.
        """
        parts = self.render(before + MARK + after).split(MARK)
        # Rendered a second time with white space, which shows what the template strips
        spaced = self.render(f"{before} \n{MARK}\n {after}").split(MARK)
        # a template that strips what the user says would strip a context at its end, too
        is_plain = len(parts) == 2 and spaced == [f"{parts[0]} \n", f"\n {parts[1]}"]
        return (parts[0], parts[1]) if is_plain else None

    def token_starts(self, text: str) -> "array[int]":
        """Return where each token of a text by itself begins, in characters; the end of the text is the last entry.

        Of a character of several tokens each has the character's begin, so a cut at any entry leaves characters whole.
        """
        if text not in self._starts:
            self._starts[text] = array("I", [*self._find_starts(text), len(text)])
        return self._starts[text]

    def first_tokens(self, text: str, n_tokens: int) -> str:
        """Return the beginning of `text` up to where its token number `n_tokens` begins."""
        starts = self.token_starts(text)
        return text[: starts[min(n_tokens, len(starts) - 1)]]

    def max_prompt_tokens(self, gen_kwargs: GenKwargs | None) -> int | None:
        """Return how long a prompt may be with an answer behind it; None where the model's length is unknown."""
        if self.spec.max_length is None:
            return None
        return self.spec.max_length - self.spec.answer_tokens(gen_kwargs)

    def no_tokens_error(self, text: str) -> ConfigError:
        """Return the error for a haystack of which the tokenizer knows nothing: no length could ever be reached."""
        return ConfigError(
            f"The tokenizer of {self.spec.name!r} gives no tokens for the haystack ({text[:60]!r} …), so no prompt of "
            "a given length can be made of it. Name the right one with tokenizer=NAME_OR_FOLDER in --model_args"
        )

    def prepare(self, texts: Iterable[str]) -> None:
        """Tokenize texts that prompts will be made of, in one batch."""
        if self.is_piecewise:
            self._pieces.prepare(self._pool.add(text) for text in texts)

    def forget(self) -> None:
        """Drop what was remembered."""
        self._pieces.forget_prompts()
        self._pool = PromptPool()
        self._starts.clear()

    def _find_starts(self, text: str) -> Iterable[int]:
        if getattr(self._tokenizer, "is_fast", False):
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            starts = sorted(begin for begin, end in encoded["offset_mapping"] if end > begin)
            self.n_lost += len(encoded["input_ids"]) - len(starts)
            return starts
        # Without offsets: spread evenly, the count decides
        pieces = self._tokenizer.tokenize(text)
        return [len(text) * i // len(pieces) for i in range(len(pieces))]

    def _new_count(self, text: str) -> int:
        # the tokenizer itself: what transformers does around it takes longer than a short text
        return len(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False))
