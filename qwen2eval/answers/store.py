"""The response store: every answer that a model ever gave, in one SQLite file that runs share.

An answer is found again only by the same model (fingerprint, backend and version, dtype, tokenizer, chat template) for
the same request (kind, exact tokens, generation arguments), seed and repeat. Answers are committed as they arrive, so a
run that was killed resumes where it stopped. Neither torch nor lm-eval is needed to read it.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from qwen2eval.errors import StoreError
from qwen2eval.requests import Answer

STORE_FILE = "store.sqlite"
"""Its name, next to the folders of the runs that share it."""
STORE_VERSION = 1
BUSY_SECONDS = 60
SCHEMA = """
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,   -- sha256 of identity
    identity TEXT NOT NULL              -- sorted JSON
);
CREATE TABLE answers (
    model_id INTEGER NOT NULL REFERENCES models(id),
    digest BLOB NOT NULL,               -- sha256 of the request
    seed INTEGER NOT NULL,              -- 0 for greedy and scoring requests
    repeat INTEGER NOT NULL,
    kind TEXT NOT NULL,
    logprob REAL,
    is_greedy INTEGER,
    response TEXT,
    finish_reason TEXT,
    n_response_tokens INTEGER,
    answered_at TEXT NOT NULL,
    PRIMARY KEY (model_id, digest, seed, repeat)
) WITHOUT ROWID;
"""
_ADD = "INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_REPLACE = "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?,?)"


class AnswerKey(NamedTuple):
    """Which request of a model an answer belongs to."""

    digest: bytes
    seed: int
    repeat: int


class ResponseStore:
    """An open store; use it as a context manager.

    Args:
        path: the SQLite file; made, with its folder, if it isn't there.

    Raises:
        StoreError: another version wrote the file, or it is not a store, or it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # No isolation level: transactions begin and end where this class says, not where Python guesses
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error) as err:
            raise StoreError(f"The response store {str(path)!r} can't be opened: {err}") from err
        try:
            self._prepare()
        except sqlite3.Error as err:
            self._db.close()
            raise StoreError(
                f"The response store {str(path)!r} can't be opened ({err}): move it away to begin a new one"
            ) from err
        except StoreError:
            self._db.close()
            raise

    def __enter__(self) -> "ResponseStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; committed answers are safe without it."""
        self._db.close()

    def model_id(self, identity: Mapping[str, object]) -> int:
        """Return the number under which the answers of exactly this model are kept."""
        print_ = fingerprint(identity)
        with self._explained():
            self._db.execute(
                "INSERT OR IGNORE INTO models (fingerprint, identity) VALUES (?, ?)", (print_, _canonical(identity))
            )
            row = self._db.execute("SELECT id FROM models WHERE fingerprint = ?", (print_,)).fetchone()
        return int(row[0])

    def editions(self, identity: Mapping[str, object]) -> list[int]:
        """Return the numbers of all models that could be told apart by their answers only, the newest first."""
        ids = [self.model_id(identity)]
        query = "SELECT id FROM models WHERE fingerprint = ?"
        with self._explained():
            while row := self._db.execute(query, (fingerprint(_edition(identity, len(ids))),)).fetchone():
                ids.append(int(row[0]))
        return ids[::-1]

    def new_edition(self, identity: Mapping[str, object]) -> int:
        """Return a number for a model that answers otherwise than all before, though it says the same of itself."""
        return self.model_id(_edition(identity, len(self.editions(identity))))

    def find(self, model_id: int, keys: Iterable[AnswerKey]) -> Iterator[tuple[AnswerKey, Answer]]:
        """Yield the stored answers to `keys`; keys without one are left out."""
        query = (
            "SELECT logprob, is_greedy, response, finish_reason, n_response_tokens, answered_at FROM answers "
            "WHERE model_id = ? AND digest = ? AND seed = ? AND repeat = ?"
        )
        cursor = self._db.cursor()
        with self._explained():
            for key in keys:
                if row := cursor.execute(query, (model_id, *key)).fetchone():
                    logprob, is_greedy, response, finish_reason, n_tokens, answered_at = row
                    greedy = None if is_greedy is None else bool(is_greedy)
                    yield key, Answer(logprob, greedy, response, finish_reason, n_tokens, answered_at=answered_at)

    def add(
        self, model_id: int, kind: str, answers: Iterable[tuple[AnswerKey, Answer]], *, replaces: bool = False
    ) -> None:
        """Commit answers in one transaction.

        Args:
            replaces: whether an answer that is already stored is replaced; else it is not changed.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [
            (model_id, *key, kind, a.logprob, a.is_greedy, a.response, a.finish_reason, a.n_response_tokens, now)
            for key, a in answers
        ]
        with self._explained(), self._transaction():
            self._db.executemany(_REPLACE if replaces else _ADD, rows)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors (disk full, file damaged, locked for a minute) into ours."""
        try:
            yield
        except sqlite3.Error as err:
            raise StoreError(
                f"The response store {str(self.path)!r} can't be used ({err}). Fix the cause (a full disk, a program "
                "that holds the file) and run the same command again: stored answers are kept. If the file itself "
                "is damaged, move it away to begin a new one"
            ) from err

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk has ended the transaction already
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        # One view of both: another process may be making the tables
        self._db.execute("BEGIN")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self._db.execute("COMMIT")
        if version != STORE_VERSION and (version or tables):
            raise StoreError(
                f"The response store {str(self.path)!r} is of version {version}, this qwen2eval reads version "
                f"{STORE_VERSION}: move the file away to begin a new one, or use the qwen2eval that wrote it"
            )
        self._switch_to_wal()
        # With WAL, NORMAL loses nothing when the process dies; only a power cut may lose the last answers
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not version:
            self._create()

    def _switch_to_wal(self) -> None:
        """Set the journal mode; SQLite does not wait here by itself while another process opens the file."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as err:
                if err.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _create(self) -> None:
        """Make the tables; another process may be doing the same at this moment."""
        with self._transaction():
            if not self._db.execute("PRAGMA user_version").fetchone()[0]:
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {STORE_VERSION}")


def _edition(identity: Mapping[str, object], number: int) -> dict[str, object]:
    return {**identity, "edition": number}


def fingerprint(identity: Mapping[str, object]) -> str:
    """Return the sha256 of a model's identity.

    >>> fingerprint({"a": 1, "b": None}) == fingerprint({"b": None, "a": 1})
    True
    """
    return hashlib.sha256(_canonical(identity).encode()).hexdigest()


def _canonical(identity: Mapping[str, object]) -> str:
    return json.dumps(dict(identity), sort_keys=True, ensure_ascii=False)
