"""Reports of a finished run: one HTML file that opens anywhere, and the same in markdown."""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from qwen2eval.content import content_dir
from qwen2eval.errors import RunFolderError
from qwen2eval.finished_run import Run
from qwen2eval.reporting.examples import Example, run_examples
from qwen2eval.reporting.heat_map import HeatMap, heat_maps
from qwen2eval.reporting.heat_map_view import HeatMapView, view_heat_map
from qwen2eval.reporting.markup import Markdown, md_block, md_code, md_prose, visible
from qwen2eval.reporting.numbers import NOTHING
from qwen2eval.reporting.view import ReportView, build_view

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("html", "md")


def render_report(
    info: Mapping[str, Any],
    scores: "pd.DataFrame",
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
    view = build_view(info, scores, examples=examples)
    maps = heat_maps(info, scores)
    figures = [view_heat_map(one, file=name) for one, name in zip(maps, _figure_names(maps), strict=True)]
    renderers = {"html": _render_html, "md": _render_markdown}
    return {f"report.{name}": renderers[name](view, figures) for name in formats}


def write_pages(run: Run, *, formats: Iterable[str] = FORMATS) -> tuple[Path, ...]:
    """Render the reports and figures of a run into its folder, each whole or not at all, and return their paths.

    Raises:
        RunFolderError: the folder can't be written to, or a file of it can't be read.
    """
    texts = render_report(run.info, run.scores, examples=run_examples(run), formats=formats)
    written = [_write_whole(run.path / name, text) for name, text in texts.items()]
    if maps := heat_maps(run.info, run.scores):  # matplotlib takes a second to load
        from qwen2eval.reporting.heat_map_figure import write_figures

        written += write_figures(run.path / "figures", maps, names=_figure_names(maps))
    return tuple(written)


def render_page(name: str, **values: Any) -> dict[str, str]:
    """Return a page that is no run's report as HTML and markdown, by file name.

    Args:
        name: of its templates.
        values: what they show.
    """
    templates = content_dir("reports") / "templates"
    html = _environment(templates, is_html=True).get_template(f"{name}.html.j2").render(**values, **_style(templates))
    markdown = _environment(templates, is_html=False).get_template(f"{name}.md.j2").render(**values)
    return {f"{name}.html": html, f"{name}.md": markdown}


def _style(templates: Path) -> dict[str, Markup]:
    """Return the style sheet and its hash for the page's policy. It is our own file; everything else is escaped."""
    style = (templates / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": Markup(style), "style_hash": Markup(f"sha256-{digest}")}  # noqa: S704


def _render_html(view: ReportView, figures: Sequence[HeatMapView]) -> str:
    templates = content_dir("reports") / "templates"
    template = _environment(templates, is_html=True).get_template(_template(figures, "html"))
    return template.render(report=view, figures=figures, **_style(templates))


def _render_markdown(view: ReportView, figures: Sequence[HeatMapView]) -> str:
    templates = content_dir("reports") / "templates"
    template = _environment(templates, is_html=False).get_template(_template(figures, "md"))
    return template.render(report=view, figures=figures)


def _template(figures: Sequence[HeatMapView], ending: str) -> str:
    """Return the template of a report; the one with figures fills a block of the plain one."""
    return f"figures.{ending}.j2" if figures else f"report.{ending}.j2"


def _figure_names(maps: Sequence[HeatMap]) -> list[str]:
    """Return a file name for each heat map, without ending; no two are alike, and none can steer what names it."""
    names: list[str] = []
    for one in maps:
        plain = re.sub(r"[^\w.-]+", "-", one.name).strip(".-")[:80] or "figure"
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


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


def _finish_html(value: Any) -> Any:
    if value is None:
        return NOTHING
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finish_markdown(value: Any) -> Any:
    if value is None:
        return NOTHING
    return value if isinstance(value, Markdown) else md_prose(str(value))


def _write_whole(path: Path, text: str) -> Path:
    """Write beside the target and rename, so that a reader meets the old file or the new one, never a half."""
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
