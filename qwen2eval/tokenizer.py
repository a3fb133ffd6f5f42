"""What the harness uses of a Hugging Face tokenizer, as a type; transformers itself is imported only by backends."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """A Hugging Face tokenizer.

    Some attributes exist only in some tokenizers; code reads those with `getattr` and a default: `is_fast`,
    `chat_template`, and `backend_tokenizer` where the tokenizer may be a slow one.
    """

    name_or_path: str
    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    backend_tokenizer: Any
    """The `tokenizers.Tokenizer` below a fast tokenizer; a slow one has none."""

    def __call__(self, text: str | list[str], **options: object) -> Mapping[str, Any]:
        """Return `input_ids` (one list for a text, a list of lists for many), and `offset_mapping` on request."""
        ...

    def encode(self, text: str, **options: object) -> list[int]:
        """Return the token ids of a text."""
        ...

    def decode(self, token_ids: int | Sequence[int], **options: object) -> str:
        """Return the text of token ids."""
        ...

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, as the vocabulary spells them."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Return token -> id."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Return token -> id of the special and other added tokens only."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: object) -> Any:
        """Render messages: a text with `tokenize=False`, else token ids."""
        ...
