"""Compiles the kernels after an installation, so that the first scan needn't: `python -m decontam.warm_up`.

Nothing imports it. Without it the first scan takes up to a minute more.
"""

import json
import tempfile
from pathlib import Path

from decontam.index import ReferenceIndex
from decontam.references import Reference
from decontam.scan import scan

_ITEM = "A ferry leaves the island every 40 minutes from six in the morning on. How many leave before noon? Nine."
_ITEM_CJK = "渡船从早上六点开始每四十分钟离开一次小岛中午之前一共有多少班船离开小岛呢请回答九班"
_OTHER = "The harbour master counts the boats, and writes their names into a book that nobody but the gulls has read."


def main() -> None:
    """Scan a document of each kind, with items that are there whole and in part."""
    items = [
        Reference("warm/0", _ITEM, "Nine", "warm"),
        Reference("warm/1", _ITEM_CJK, "", "warm"),
        Reference("warm/2", "Which boat leaves the island first?", benchmark="warm", choices=("the ferry", "the gull")),
    ]
    part = " ".join(_ITEM.split()[:15])
    texts = [_ITEM, _ITEM_CJK, f"{_OTHER} {part} {_OTHER}", f"{_OTHER} \u2028 \U0001f6a2 \\ {_ITEM.upper()}"]
    texts.append(items[2].text)
    with tempfile.TemporaryDirectory() as folder:
        jsonl, plain = Path(folder, "corpus.jsonl"), Path(folder, "corpus.txt")
        lines = [json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
        jsonl.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        plain.write_text("\n".join(texts), encoding="utf-8")
        scan([jsonl, plain], ReferenceIndex.build(items), output=Path(folder, "scan"))


if __name__ == "__main__":
    main()
