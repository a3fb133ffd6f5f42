"""Small corpora with items planted in them, in every format."""

import gzip
import json
import lzma
import random

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from decontam import Reference

_FILLER = ("river", "stone", "cloud", "lamp", "seven", "green", "walks", "often", "paper", "under", "bright", "table")
_SYLLABLES = ["ka", "lo", "mi", "ru", "te", "va", "so", "ne", "pi", "du"]


def make_question(number):
    """Return twenty made-up words, others for each number."""
    rng = random.Random(number)
    words = ["".join(rng.choices(_SYLLABLES, k=3)) for _ in range(20)]
    return f"If {' '.join(words[:10])}, then {' '.join(words[10:])}: how many?"


_SHORT = Reference("quiz/short", "What is the colour of tar?", "Black", "quiz")
ITEMS = [
    *(Reference(f"quiz/{i}", make_question(i), f"It is {i + 1}.", "quiz" if i % 2 else "riddles") for i in range(12)),
    _SHORT,
]


def make_documents(n_documents, *, seed=0):
    """Return texts; in some an item stands, exactly, in capitals or only its question's end."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n_documents):
        words = [rng.choice(_FILLER) for _ in range(rng.randrange(5, 80))]
        if rng.random() < 0.3:
            item = rng.choice(ITEMS)
            planted = rng.choice([item.text, item.text.upper(), f"{item.text} {item.answer}", "é 中文 " + item.text])
            words.insert(rng.randrange(len(words)), planted)
        texts.append(rng.choice([" ", "\n"]).join(words))
    return texts


def as_jsonl(texts, *, line_end="\n", ascii_=False):
    rows = (json.dumps({"id": i, "text": text, "n": {"x": 1.5}}, ensure_ascii=ascii_) for i, text in enumerate(texts))
    return "".join(row + line_end for row in rows).encode()


def write(folder, texts, form):
    """Write texts in one of FORMS, and return the file and the text field."""
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[form](folder, texts)


def _plain(name, pack=bytes, **options):
    def make(folder, texts):
        path = folder / name
        path.write_bytes(pack(as_jsonl(texts, **options)))
        return path, "text"

    return make


def _nested(folder, texts):
    path = folder / "nested.jsonl"
    path.write_text("".join(json.dumps({"meta": {"body": text}}) + "\n" for text in texts), encoding="utf-8")
    return path, "meta.body"


def _chat(folder, texts):
    path = folder / "chat.jsonl"
    rows = (
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]} for text in texts
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path, "messages"


def _tool_chat(folder, texts):
    path = folder / "chat.jsonl"
    rows = (
        {"chat": [{"role": "tool", "content": None, "tool_calls": [{"function": {"arguments": {"q": text}}}]}]}
        if i % 2
        else {"chat": [{"from": "gpt", "value": text}]}
        for i, text in enumerate(texts)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path, "chat"


def _parquet(folder, texts, *, kind=None, field="text"):
    path = folder / "rows.parquet"
    column = pa.array(texts, kind or pa.string())
    pq.write_table(pa.table({"id": range(len(texts)), field: column}), path, row_group_size=17)
    return path, field


def _dictionary(folder, texts):
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array(texts).dictionary_encode()}), path, row_group_size=17)
    return path, "text"


def _binary(folder, texts):
    return _parquet(folder, [text.encode() for text in texts], kind=pa.binary())


def _struct(folder, texts):
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"meta": [{"body": text, "n": 1} for text in texts]}), path, row_group_size=17)
    return path, "meta.body"


def _chat_parquet(folder, texts):
    path = folder / "rows.parquet"
    messages = [[{"role": "user", "content": text}] for text in texts]
    pq.write_table(pa.table({"messages": messages}), path, row_group_size=17)
    return path, "messages"


FORMS = {
    "jsonl": _plain("a.jsonl"),
    "escaped": _plain("a.jsonl", ascii_=True),
    "crlf": _plain("a.ndjson", line_end="\r\n"),
    "gz": _plain("a.jsonl.gz", gzip.compress),
    "xz": _plain("a.jsonl.xz", lzma.compress),
    "zst": _plain("a.jsonl.zst", zstandard.ZstdCompressor().compress),
    "nested": _nested,
    "chat": _chat,
    "tool chat": _tool_chat,
    "parquet": _parquet,
    "large parquet": lambda folder, texts: _parquet(folder, texts, kind=pa.large_string()),
    "view parquet": lambda folder, texts: _parquet(folder, texts, kind=pa.string_view()),
    "binary parquet": _binary,
    "dictionary parquet": _dictionary,
    "struct parquet": _struct,
    "chat parquet": _chat_parquet,
}
