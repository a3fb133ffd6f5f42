"""NeedleBench's published files (opencompass/NeedleBench on the hub): needles, names, chains of facts, haystacks."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from qwen2eval.data.hub_files import hub_file
from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.data.locate import find_folder, missing, text_of, texts_of
from qwen2eval.errors import DataFileError

_Item = TypeVar("_Item")
Language = Literal["English", "Chinese"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
HUB = "opencompass/NeedleBench"
NEEDLES, NAMES = "needles.jsonl", "names.json"
HAYSTACKS = {"English": "PaulGrahamEssays.jsonl", "Chinese": "zh_finance.jsonl"}
CHAINS = {"English": "multi_needle_reasoning_en.json", "Chinese": "multi_needle_reasoning_zh.json"}
FILES = (NEEDLES, NAMES, *CHAINS.values(), *HAYSTACKS.values())


@dataclass(frozen=True)
class Needle:
    """One sentence to hide."""

    text: str
    question: str
    """Asks for the keyword; ends with the format of the answer, in single quotes."""
    subject: str
    """`arg1`: what the sentence is about."""
    keyword: str
    """`arg2`: the right answer."""


@dataclass(frozen=True)
class Chain:
    """Facts to hide that give the answer together."""

    facts: tuple[str, ...]
    question: str
    answer: str


@dataclass
class NeedleBenchData:
    """The published files, read one by one as they are asked for.

    Args:
        package_data: a folder inside qwen2eval that wins over every other place.
        data_dir: the user's folder: `needlebench/` in it, or itself.
        offline: forbid the hub.

    Every method raises MissingDataError for a file that is in none of the places, DataFileError for a broken one.
    """

    package_data: str | None = None
    data_dir: str | None = None
    offline: bool = False
    files: list[Path] = field(default_factory=list)
    """What was read, in order."""

    def needles(self, language: Language) -> list[Needle]:
        """Return the needles of a language, in the file's order."""
        columns = ("language", "needle", "retrieval_question", "arg1", "arg2")
        rows = read_jsonl(path := self._file(NEEDLES), columns=columns)
        for number, row in enumerate(rows, 1):
            for column in columns:
                if not isinstance(row[column], str) or not row[column].strip():
                    raise DataFileError(f"{path}, row {number}: {column} is {row[column]!r}, not a text with words")
        found = [
            Needle(row["needle"], row["retrieval_question"], row["arg1"], row["arg2"])
            for row in rows
            if row["language"] == language
        ]
        return _some(found, path, f"needles with the language {language!r}")

    def names(self, language: Language) -> list[str]:
        """Return the people's names of a language."""
        path = self._file(NAMES)
        names = _read_json(path)
        text = names.get(language) if isinstance(names, dict) else None
        if not isinstance(text, str):
            raise DataFileError(f"{path}: expected an object with the names as text under {language!r}")
        return _some([name for name in text.split(",") if name], path, f"names under {language!r}")

    def chains(self, language: Language, n_facts: int) -> list[Chain]:
        """Return the chains of `n_facts` facts, in the file's order."""
        path = self._file(CHAINS[language])
        rows = _read_json(path)
        try:
            found = [
                Chain(tuple(texts_of(row, "derivations")), text_of(row, "question"), text_of(row, "answer"))
                for row in rows
                if row["derivation_count"] == n_facts
            ]
        except (KeyError, TypeError) as err:
            raise DataFileError(
                f"{path}: expected a list of objects with derivations, derivation_count, question and answer ({err})"
            ) from err
        return _some(found, path, f"chains of {n_facts} facts")

    def haystack(self, language: Language) -> list[str]:
        """Return the texts that needles are hidden in, in the file's order."""
        rows = read_jsonl(path := self._file(HAYSTACKS[language]), columns=("text",))
        if wrong := next((row["text"] for row in rows if not isinstance(row["text"], str)), None):
            raise DataFileError(f"{path}: a text is {wrong!r:.60}")
        return [row["text"] for row in rows]

    @property
    def source(self) -> str:
        """Where the files are from."""
        return str(self.files[0].parent) if self.files else ""

    def _file(self, name: str) -> Path:
        folder = find_folder(
            "needlebench",
            package_data=self.package_data,
            data_dir=self.data_dir,
            is_there=lambda path: any((path / file).is_file() for file in FILES),
        )
        # Who has none wants to know of all
        lacking = name if folder else ", ".join(FILES)
        error = missing("needlebench", files=lacking, hub=HUB, data_dir=self.data_dir)
        if folder is None:
            path = hub_file(HUB, name, offline=self.offline, error=error)
        elif not (path := folder / name).is_file():
            raise error
        if path not in self.files:
            self.files.append(path)
        return path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise DataFileError(f"{path}: not JSON in UTF-8 ({err}); is the file cut off?") from err
    except OSError as err:
        raise DataFileError(f"{path} can't be read: {err.strerror}") from err


def _some(found: list[_Item], path: Path, what: str) -> list[_Item]:
    if not found:
        raise DataFileError(f"{path} holds no {what}")
    return found
