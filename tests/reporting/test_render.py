"""Whole reports: compared with checked-in ones, and proved inert with hostile text in every place.

`UPDATE_GOLD=1 pytest tests/reporting` writes the gold reports anew; look at the diff before you keep it.
"""

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from qwen2eval.reporting.examples import choose_examples
from qwen2eval.reporting.render import render_report
from qwen2eval.reporting.report import write_report
from qwen2eval.run_folder.folder import REQUIRED_SAMPLE_COLUMNS, Run
from tests.reporting.made_up import read, records

REPOSITORY = Path(__file__).parents[2]
GOLD = Path(__file__).parent / "gold"
_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "style-end": "</style><script>alert(1)</script><style>*{display:none}",
    "block-end": "</pre></code></details></summary></table></main></body><h1>owned</h1>",
    "attribute": "\"><img src=x onerror=alert(1)> '><svg/onload=alert(1)>",
    "comment": "<!-- --> <![CDATA[ ]]> <?php ?> <!doctype x>",
    "table-break": "a | b | c\n|---|---|\n| d \\| e \\\\| f |",
    "javascript-link": "[click](javascript:alert(1)) <javascript:alert(1)> [a]: javascript:b\n\n[a]: https://a.bc",
    "image": "![x](https://a.bc/x.png) ![][a] <img src=https://a.bc/x.png>",
    "autolinks": "https://a.bc www.a.bc x@y.org <https://a.bc> ftp://a.bc @someone #12 a/b#12",
    "fence": "```\n</details>\n~~~~\n``````\n<b>bold</b>\n    indented\n`",
    "blocks": "# big\n===\n---\n> quote\n- item\n1. one\n***\n* * *\n",
    "inline": "**bold** __bold__ _it_ ~~gone~~ `code` \\` `` ` $x^2$ :tada: [^1] &lt; &#60;b>",
    "template": "{{ 7 * 7 }} {% raw %} {# #} {{ report.config }}",
    "steering": "\x1b[2J\x00\x07\u202egnp.exe\u2066 \u2028 \ud800 \ufeff",
    "long-line": "<b>x|" * 20_000,
}


CONTAMINATION = {
    "matches": "runs/decontam/1",
    "rule": {"ngram_size": 13, "ngram_size_cjk": None, "min_lcs": 13, "min_lcs_ratio": 0.6, "sequence": "window"},
    "corpus": {"n_documents": 12, "n_bytes": 3400},
    "problems": {},
    "tasks": {
        "facts": {
            "n_docs": 100,
            "n_clean": 80,
            "n_contaminated": 20,
            "n_contaminated_qwen2": 12,
            "n_not_testable": 0,
            "n_found_whole": 0,
            "evidence": [],
            "scores": [
                {
                    "metric": "acc",
                    "filter": "none",
                    "original": [0.97, 0.91, 1.0, 100],
                    "clean": [0.96, 0.9, 1.0, 80],
                    "contaminated": [1.0, 0.8, 1.0, 20],
                    "delta": [-0.01, None, None],
                }
            ],
        }
    },
}


class _Skeleton(HTMLParser):
    """The elements and attributes of a page in order, and what stands in and outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.prose: list[str] = []
        self._n_code = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]
        self._n_code += tag in ("code", "pre", "style")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))
        self._n_code -= tag in ("code", "pre", "style")

    def handle_data(self, data: str) -> None:
        if not self._n_code:
            self.prose.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append((f"comment {data}", ()))


def _filled(value: Any, text: str) -> Any:
    """Put a text in place of each text of a run, names of tasks, metrics, filters and settings included."""
    keep = {"status", "level"}
    names = {"filter", "filters", "check", "output_type"}
    if isinstance(value, dict):
        texts = {key: text[:200] if key in names else text for key in value}
        return {key: each if key in keep else _filled(each, texts[key]) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, text) for each in value]
    return text if isinstance(value, str) else value


def _poisoned(info, scores, samples, text) -> dict[str, Any]:
    """Return the arguments of a report in which a task and all texts are `text`."""
    poisoned = _filled(info, text)
    name = text[:200]
    task = poisoned["tasks"]["sums"] | {"metrics": {name: {"higher_is_better": True}}}
    failed = task | {"status": "failed", "metrics": {}}
    poisoned["tasks"] = {name: task, "letters": failed}
    poisoned["health"] = {name: poisoned["health"]["sums"] | {"n_extraction_failures": {name: 3}}}
    poisoned["groups"] = {f"{name}s": {"tasks": [name]}}
    poisoned |= {"config": _filled(info["config"], name), "command": _filled(info["command"], name)}
    poisoned["environment"]["packages"] = {text: text}
    names = [pd.Series(each, dtype=object, index=[4, 7]) for each in ([name, f"{name}s"], [name] * 2)]
    rows = scores.loc[[4, 7]].assign(task=names[0], metric=names[1], filter=names[1])
    examples = {name: [_filled(row, text) | {name: 0.5, "truncated": True} for row in samples["sums"]]}
    return {"info": poisoned, "scores": rows, "examples": examples}


def _rendered(info: Any, scores: pd.DataFrame, examples: Any) -> dict[str, str]:
    return render_report(read(info), records(scores), examples=choose_examples(examples, read(info)))


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request) -> str:
    return request.param


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_gold(name, info, scores, samples):
    text = _rendered(info, scores, samples)[name]
    text = re.sub(r"<style>.*?</style>", "<style>[style.css]</style>", text, flags=re.DOTALL)
    text = re.sub(r"sha256-[\w+/=]+", "sha256-[style.css]", text)
    if os.environ.get("UPDATE_GOLD"):
        (GOLD / name).write_text(text, encoding="utf-8")
    assert text == (GOLD / name).read_text(encoding="utf-8")


def test_hostile_text_adds_no_element_and_no_attribute_to_html(info, scores, samples, hostile):
    page = _Skeleton(_rendered(**_poisoned(info, scores, samples, hostile))["report.html"])
    harmless = _Skeleton(_rendered(**_poisoned(info, scores, samples, "x" * len(hostile)))["report.html"])
    assert page.elements == harmless.elements
    assert page.links == []


def test_hostile_text_adds_nothing_but_code_to_markdown(info, scores, samples, hostile):
    page = _Skeleton(_MARKDOWN.render(_rendered(**_poisoned(info, scores, samples, hostile))["report.md"]))
    harmless = _Skeleton(_MARKDOWN.render(_rendered(**_poisoned(info, scores, samples, "x"))["report.md"]))
    assert _without_code(page) == _without_code(harmless)
    assert page.links == []
    assert re.findall(r"://|www\.|@\w|#\d", " ".join(page.prose)) == []


def _without_code(page: _Skeleton) -> list[tuple[str, tuple[str, ...]]]:
    return [element for element in page.elements if element[0] not in ("code", "/code")]


def test_hostile_text_keeps_every_table_row_whole(info, scores, samples, hostile):
    text = _rendered(**_poisoned(info, scores, samples, hostile))["report.md"]
    tables = list(_tables(text))
    assert len(tables) == 2
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1  # no pipe is left in any cell, escaped or not


def _tables(text: str) -> Iterator[list[str]]:
    outside_blocks = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", outside_blocks, flags=re.MULTILINE):
        yield table.splitlines()


def test_hostile_reports_can_be_written(info, scores, samples, hostile, tmp_path):
    for name, text in _rendered(**_poisoned(info, scores, samples, hostile)).items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", path.read_text("utf-8"))


def test_a_report_stays_small_whatever_the_model_wrote(info, scores, samples):
    for rows in samples.values():
        for row in rows:
            row |= {"prompt": "<" * 10**6, "response": "|" * 10**6, "extracted": "`" * 10**6}
    assert all(len(text) < 300_000 for text in _rendered(info, scores, samples).values())


def test_html_needs_no_network_and_forbids_it(info, scores, samples):
    text = _rendered(info, scores, samples)["report.html"]
    page = _Skeleton(text)
    assert page.links == []
    assert not {"script", "link", "iframe", "img", "object", "embed", "form", "a"} & {tag for tag, _ in page.elements}
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|@font-face", style[1])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_html_closes_what_it_opens(info, scores, samples):
    void = {"meta", "br"}
    open_tags: list[str] = []
    for tag, _ in _Skeleton(_rendered(info, scores, samples)["report.html"]).elements:
        if tag.startswith("/"):
            assert open_tags.pop() == tag[1:]
        elif tag not in void:
            open_tags.append(tag)
    assert open_tags == []


def test_the_note_of_a_stand_in_model_comes_before_any_number(info, scores):
    for text in render_report(read(info), records(scores)).values():
        assert text.index("untrained stand-in") < text.index("Headline numbers")


def test_a_clean_run_says_so_and_has_no_banner(clean_info, scores):
    for text in render_report(read(clean_info), records(scores[scores["task"] == "facts"])).values():
        assert "Every health check passed, and no task failed." in text
        assert "Read this first" not in text


def test_every_section_has_a_template_in_both_formats_and_no_template_is_left_over():
    modules = {path.stem for path in (REPOSITORY / "qwen2eval/reporting/sections").glob("*.py")}
    names = modules - {"__init__", "facts", "section"}
    templates = {path.name for path in (REPOSITORY / "reports/templates/sections").iterdir()}
    assert templates == {f"{name}.{kind}.j2" for name in names for kind in ("html", "md")}


def test_all_sections_stand_on_one_page(info, scores):
    """Figures took the place of the plain report's template, so nothing else could be added to it."""
    cells = [
        ["facts", "acc", "none", "original", 20, 0.5, 0.1, 0.4, 0.6, 0, length, depth]
        for length in (8192, None)
        for depth in (25.0, 75.0, None)
    ]
    info["contamination"] = CONTAMINATION
    frame = pd.DataFrame(cells, columns=[*scores.columns, "cell_length", "cell_depth"])
    page = render_report(read(info), (*records(scores), *records(frame)))["report.html"]
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert headings == [
        *("Headline numbers", "Scores", "Contamination", "facts acc by length and depth", "What to watch"),
        *("Protocol and examples", "Model, run and environment", "Repeat this run"),
    ]


def test_only_the_formats_asked_for(info, scores):
    assert list(render_report(read(info), records(scores), formats=["md"])) == ["report.md"]


def test_secrets_are_hidden(info, scores, samples):
    for text in _rendered(info, scores, samples).values():
        assert "hf_secret" not in text


@pytest.fixture
def run(info, scores, samples, tmp_path) -> Run:
    """The made-up run as a folder."""
    (tmp_path / "samples").mkdir()
    scores.to_parquet(tmp_path / "scores.parquet")
    for name, task in info["tasks"].items():
        if task["status"] == "scored":
            rows = samples.get(name, samples["sums"])
            frame = pd.DataFrame(rows).drop(columns="word_perplexity", errors="ignore")
            frame = frame.reindex(columns=[*dict.fromkeys((*REQUIRED_SAMPLE_COLUMNS, *frame.columns))])
            frame.assign(task=name).to_parquet(tmp_path / "samples" / f"{name}.parquet")
    return Run(tmp_path, read(info))


def test_writing_leaves_only_whole_reports(run):
    (run.path / "report.md").write_text("old", encoding="utf-8")
    report = write_report(run)
    assert (report.fault, report.exit_code) == (None, 0)
    assert sorted(report.paths) == sorted(run.path.glob("*report*"))
    assert (run.path / "report.md").read_text(encoding="utf-8").startswith("# tiny-qwen2")


def test_a_folder_that_cannot_be_written_is_named(run):
    (run.path / "report.html").mkdir()
    report = write_report(run)
    assert report.exit_code == 3
    assert re.search(r"report\.html.*qwen2eval report", report.fault)
    assert not list(run.path.glob(".report*"))
