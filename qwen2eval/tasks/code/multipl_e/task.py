"""MultiPL-E: functions to complete in other languages than Python (Cassano et al. 2022, arXiv 2208.08227).

Otherwise than MultiPL-E's own runner, which asks for exit status 0 only, a program must reach the end of its tests; see
`sandbox.compiled`. A doc whose language can't be run on this machine is not scored.
"""

import re
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from qwen2eval.requests import Doc
from qwen2eval.sandbox.compiled import CompiledCheck, CompiledSandbox
from qwen2eval.scoring.code_blocks import fenced_blocks
from qwen2eval.scoring.programs import without_thoughts
from qwen2eval.tasks.code.multipl_e.data import language_of
from qwen2eval.tasks.code.program_runs import ProgramRuns
from qwen2eval.tasks.code.task import CodeTask, digest
from qwen2eval.tasks.protocols import Responses
from qwen2eval.typed_json import JsonObject

_OTHER_NAMES = {
    "cpp": ("c++", "cc", "cxx"),
    "cs": ("csharp", "c#"),
    "go": ("golang",),
    "jl": ("julia",),
    "js": ("javascript", "node"),
    "pl": ("perl",),
    "rb": ("ruby",),
    "rkt": ("racket", "scheme", "lisp"),
    "rs": ("rust",),
    "sh": ("bash", "shell", "zsh"),
    "ts": ("typescript",),
}
"""What chat models call languages behind a fence."""


class MultiplETask(CodeTask):
    """A `CodeTask` whose docs have `prompt`, `tests`, put behind the program, and `stop_tokens`.

    `dataset_kwargs`: `configuration`, such as `humaneval-cpp`; it names the language.
    """

    def __init__(self, config: JsonObject) -> None:
        super().__init__(config=config)
        self.language = language_of(str((self.config.dataset_kwargs or {}).get("configuration")))
        self._sandbox = CompiledSandbox(str(self.config.metadata.get("sandbox") or "auto"))
        self._runs = ProgramRuns(lambda: self._sandbox)

    def construct_requests(self, doc: Doc, ctx: str, **kwargs: Any) -> Instance:
        """Return the request, which stops where this doc's language says, and where the YAML does.

        A run that asks is warned if the answers can't be scored here; who only reads the docs waits for no compiler.
        """
        self.dataset.warning = self._sandbox.why_not(self.language)
        request = super().construct_requests(doc, ctx, **kwargs)
        context, arguments = request.arguments
        stops = dict.fromkeys([*doc["stop_tokens"], *_listed(arguments.get("until"))])
        request.arguments = (context, {**arguments, "until": list(stops)})
        return request

    def process_results(self, doc: Doc, results: Responses) -> dict[str, float]:
        """Return pass@k of one doc whose programs were run.

        Before that nothing: the check before a run has no right answer to try.

        Raises:
            ValueError: the language can't be run here, so the doc has no score.
        """
        if not all(self.key(doc, program) in self._runs for program in results[0]):
            return {}
        return super().process_results(doc, results)

    def checks(self, doc: Doc, program: str) -> Sequence[CompiledCheck]:
        """Return what decides on a program: its tests, in the same process."""
        return [CompiledCheck(program, self.language, tests=doc["tests"], **self._limits)]  # type: ignore[arg-type]

    def key(self, doc: Doc, program: str) -> str:
        """Return what a program and its tests are known by."""
        return digest(doc["tests"], self.language, program)


def complete(responses: Sequence[Sequence[str]], docs: Sequence[Doc]) -> list[list[str]]:
    r"""Return programs: the prompt and the response up to the first of the doc's stop tokens.

    Of a response without its thoughts; of a chat model's, what its fenced block says behind the prompt's last line.

    >>> complete([["  return 1;\n}\nint main"]], [{"prompt": "int f() {\n", "stop_tokens": ["\n}"]}])
    [['int f() {\n  return 1;']]
    """

    def completed(text: str, doc: Doc) -> str:
        return str(doc["prompt"]) + cut(body_of(without_thoughts(text), doc), doc["stop_tokens"])

    pairs = zip(responses, docs, strict=True)
    return [[completed(text, doc) for text in of_doc] for of_doc, doc in pairs]


def body_of(answer: str, doc: Doc) -> str:
    r"""Return what an answer says behind the prompt: all of it, where it has neither a fence nor the prompt again.

    >>> body_of("Sure:\n```cpp\nint f() {\n  return 1;\n}\n```", {"prompt": "// One.\nint f() {\n", "language": "cpp"})
    '  return 1;\n}\n'
    """
    lines = doc["prompt"].rstrip().split("\n")
    signature = re.compile(rf"^[ \t]*{re.escape(lines[-1].strip())}[ \t]*\n", re.MULTILINE)
    blocks = fenced_blocks(answer.replace("\r\n", "\n"))
    for source in [*(block.code for block in reversed(blocks)), answer]:
        if found := signature.search(source):
            return source[found.end() :]
    names = (doc.get("language"), *_OTHER_NAMES.get(str(doc.get("language")), ()))
    own = [block.code for block in blocks if block.language in names] or [b.code for b in blocks if not b.language]
    return own[-1] if own else answer


def cut(text: str, stops: Sequence[str]) -> str:
    r"""Return the text before the first of the stop tokens.

    >>> cut("a\nb\nc", ["\nc", "\nb"])
    'a'
    """
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _listed(until: str | list[str] | None) -> list[str]:
    return [until] if isinstance(until, str) else list(until or ())
