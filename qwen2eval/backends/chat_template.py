"""A tokenizer's chat template: rendered as it is, but no message gets lost where it knows no system role."""

from collections.abc import Mapping
from typing import Any

from qwen2eval.errors import ConfigError
from qwen2eval.tokenizer import Tokenizer

Message = dict[str, str]
_PROBE = "qwen2eval-system-probe"


class ChatTemplate:
    """Renders conversations; lm-eval's `(history, add_generation_prompt=True) -> prompt`.

    A template without a system role (Gemma 2, Mistral 0.1) refuses system messages or leaves them out without a word.
    Their text then goes to the head of the first user turn, with a blank line after it.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        options: variables of the template, such as `enable_thinking`.
    """

    def __init__(self, tokenizer: Tokenizer, options: Mapping[str, object]) -> None:
        self._tokenizer, self._options = tokenizer, dict(options)
        self.has_system_role = self._takes_system()

    def __call__(self, history: list[Message], add_generation_prompt: bool = True) -> str:
        """Render `history`.

        Raises:
            ConfigError: the template refuses it.
        """
        import jinja2

        messages = history if self.has_system_role else without_system_role(history)
        try:
            return self._render(messages, add_generation_prompt=add_generation_prompt)
        except jinja2.TemplateError as err:
            roles = [message["role"] for message in messages]
            raise ConfigError(
                f"The model's chat template refuses messages with the roles {roles}: {err}. Run without "
                "--apply_chat_template"
            ) from err

    def _render(self, messages: list[Message], *, add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self._options,
        )
        return text

    def _takes_system(self) -> bool:
        """Return False where a system message is refused or left out, and a user's alone is rendered."""
        user = {"role": "user", "content": "x"}
        try:
            return _PROBE in self._render([{"role": "system", "content": _PROBE}, user], add_generation_prompt=True)
        # A template may raise anything, its own `raise_exception` among it
        except Exception:  # noqa: BLE001
            return not self._renders([user])

    def _renders(self, messages: list[Message]) -> bool:
        try:
            return bool(self._render(messages, add_generation_prompt=True))
        except Exception:  # noqa: BLE001
            return False


def without_system_role(history: list[Message]) -> list[Message]:
    r"""Return messages with the text of the system's at the head of the first user turn.

    >>> without_system_role([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    [{'role': 'user', 'content': 'Be brief.\n\nWhy?'}]
    """
    head = "\n\n".join(message["content"] for message in history if message["role"] == "system")
    rest = [dict(message) for message in history if message["role"] != "system"]
    if not head:
        return rest
    first = next((message for message in rest if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": head}, *rest]
    first["content"] = f"{head.rstrip()}\n\n{first['content']}" if first["content"] else head
    return rest


def template_of(tokenizer: Tokenizer, model_args: Mapping[str, Any], wanted: bool | str = True) -> ChatTemplate | None:
    """Return a tokenizer's template with the variables that `--model_args` gives it; None: it has none.

    Args:
        wanted: may name one of several templates.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    options = dict(model_args.get("chat_template_args") or {})
    if model_args.get("enable_thinking") is not None:
        options["enable_thinking"] = model_args["enable_thinking"]
    if isinstance(wanted, str) and (named := template_text(tokenizer, wanted)) is not None:
        options["chat_template"] = named
    return ChatTemplate(tokenizer, options)


def template_text(tokenizer: Tokenizer, wanted: bool | str) -> str | None:
    """Return the text of the chat template that a run uses; `wanted` may name one of several."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        return template.get(wanted if isinstance(wanted, str) else "default")
    return template
