"""Where a generation ends, and the text that its tokens are: one rule for the backends that make tokens here."""

from collections.abc import Sequence

from lm_eval.models.utils import handle_stop_sequences, postprocess_generated_text

from qwen2eval.requests import FinishReason
from qwen2eval.thoughts import Thinking
from qwen2eval.tokenizer import Tokenizer


class AnswerEnd:
    """The stop strings of one generation, which act on what follows the thought.

    Args:
        tokenizer: a Hugging Face tokenizer.
        until: the stop strings.
        prompt: what is answered.
        thinking: how thoughts are recognised.
    """

    def __init__(self, tokenizer: Tokenizer, until: Sequence[str], *, prompt: str, thinking: Thinking) -> None:
        self._tokenizer, self._prompt, self._thinking = tokenizer, prompt, thinking
        eos_id = tokenizer.eos_token_id
        eos = None if eos_id is None else tokenizer.decode([eos_id], skip_special_tokens=False)
        self.until: list[str] = [mark for mark in handle_stop_sequences(list(until), eos=eos) if mark]
        special = set(getattr(tokenizer, "all_special_tokens", ()))
        self.ends = [mark for mark in self.until if mark == eos or mark in special]
        """Those that end the text in a thought, too."""
        # two more tokens than the mark has: the same text may be cut into tokens in another way
        lengths = (len(tokenizer.encode(mark, add_special_tokens=False)) for mark in self.until)
        self._lookback = 2 + max(lengths, default=0)

    def is_complete(self, tokens: Sequence[int]) -> bool:
        """Whether a stop string that acts has just been written; to be asked after each token."""
        tail = self._tokenizer.decode(tokens[-self._lookback :], skip_special_tokens=False)
        if not any(mark in tail for mark in self.until):
            return False
        text = self._tokenizer.decode(tokens, skip_special_tokens=False)
        found = self._thinking.split(text, prompt=self._prompt, until=self.until, ends=self.ends, is_final=False)
        return found.is_stopped or any(mark in text for mark in self.ends)

    def read(self, tokens: Sequence[int], *, has_ended: bool) -> tuple[str, FinishReason]:
        """Return the text of an answer, its thought included, and why it ended.

        Args:
            tokens: all that was generated.
            has_ended: a token or `is_complete` ended it, not its length.
        """
        raw = self._tokenizer.decode(tokens, skip_special_tokens=False)
        found = self._thinking.split(raw, prompt=self._prompt, until=self.until, ends=self.ends)
        is_ended = has_ended or found.is_stopped or any(mark in raw for mark in self.ends)
        reason: FinishReason = "stop" if is_ended else "length"
        if found.thought:
            # Marks may be special tokens: only those of the answer are dropped
            return found.thought + self._without_special(found.answer), reason
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        cut: str = postprocess_generated_text(text, self.until, None)
        return cut, reason

    def _without_special(self, text: str) -> str:
        for token in getattr(self._tokenizer, "all_special_tokens", ()):
            text = text.replace(token, "")
        return text
