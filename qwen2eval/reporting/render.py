"""Reports of a finished run: one HTML file that opens anywhere, and the same in markdown."""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from qwen2eval.content import content_dir
from qwen2eval.errors import RunFolderError
from qwen2eval.reporting.examples import Example, run_examples
from qwen2eval.reporting.heat_map import heat_maps
from qwen2eval.reporting.heat_map_view import figure_names
from qwen2eval.reporting.markup import FORMATS, Markdown, md_block, md_code, md_prose, visible
from qwen2eval.reporting.numbers import NOTHING
from qwen2eval.reporting.view import build_view
from qwen2eval.run_folder.folder import Run, ScoreRecord
from qwen2eval.run_info import RunInfo


def render_report(
    info: RunInfo,
    scores: Sequence[ScoreRecord],
    *,
    examples: Mapping[str, tuple[Example, ...]] | None = None,
    formats: Iterable[str] = FORMATS,
) -> dict[str, str]:
    """Render the reports of a run and return their texts by file name, "report.html" and "report.md".

    Args:
        info: the run as in run.json.
        scores: as in scores.parquet.
        examples: by task, docs that are shown.
        formats: which reports to render.
    """
    return render_page("report", formats=formats, report=build_view(info, scores, examples=examples))


def write_pages(run: Run, *, formats: Iterable[str] = FORMATS) -> tuple[Path, ...]:
    """Render the reports and figures of a run into its folder, each completely or not at all, and return their paths.

    Raises:
        RunFolderError: the folder can't be written to, or a file of it can't be read.
    """
    scores = run.score_rows()
    texts = render_report(run.info, scores, examples=run_examples(run), formats=formats)
    figures: tuple[Path, ...] = ()
    # Imported only if needed: matplotlib takes a second to load. Before the pages, which refer to the figures
    if maps := heat_maps(run.info, scores):
        from qwen2eval.reporting.heat_map_figure import write_figures

        figures = tuple(write_figures(run.path / "figures", maps, names=figure_names(maps)))
    return (*(write_whole(run.path / name, text) for name, text in texts.items()), *figures)


def render_page(name: str, *, formats: Iterable[str] = FORMATS, **values: object) -> dict[str, str]:
    """Return a page as HTML, markdown or both, by file name.

    Args:
        name: of its templates.
        formats: "html", "md".
        values: what they show.
    """
    templates = content_dir("reports") / "templates"
    pages = {}
    for kind in formats:
        template = _environment(templates, is_html=kind == "html").get_template(f"{name}.{kind}.j2")
        style = _style(templates, f"{name}.css") if kind == "html" else {}
        pages[f"{name}.{kind}"] = template.render(**values, **style)
    return pages


def _style(templates: Path, own: str = "") -> dict[str, Markup]:
    """Return the style sheet and its hash for the page's policy. It is our own file; everything else is escaped."""
    style = (templates / "style.css").read_text(encoding="utf-8")
    if own and (templates / own).is_file():
        style += (templates / own).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": Markup(style), "style_hash": Markup(f"sha256-{digest}")}  # noqa: S704


def _environment(templates: Path, *, is_html: bool) -> jinja2.Environment:
    """Return Jinja2 with everything escaped unless marked safe, by its autoescape or by our `finalize`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=is_html,  # noqa: S701  markdown is escaped by `finalize`
        finalize=_finish_html if is_html else _finish_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": md_code, "block": md_block, "own_file": Markdown}
    return environment


def _finish_html(value: object) -> object:
    if value is None:
        return NOTHING
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finish_markdown(value: object) -> object:
    if value is None:
        return NOTHING
    return value if isinstance(value, Markdown) else md_prose(str(value))


def write_whole(path: Path, text: str) -> Path:
    """Write a temporary file and rename it: a reader finds the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    except OSError as err:
        beside.unlink(missing_ok=True)
        raise RunFolderError(
            f"Can't write {str(path)!r}: {err.strerror}. Make the folder writable, then run `qwen2eval report` again."
        ) from err
    return path
