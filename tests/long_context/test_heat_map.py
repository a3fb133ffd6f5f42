"""Heat maps of published results and of hostile names."""

import json
from collections import defaultdict

import pytest

from qwen2eval.colours import COLOUR_STOPS
from qwen2eval.reporting.heat_map import HeatCell, colour_of, heat_map, heat_maps, ink_on
from qwen2eval.reporting.heat_map_figure import draw_curves, draw_heat_maps, write_figures
from qwen2eval.reporting.heat_map_view import view_heat_map
from qwen2eval.reporting.metrics import guessed_metric
from qwen2eval.results.sample import TaskSamples
from qwen2eval.results.scores import cell_scores, scores_frame
from tests.long_context.published import published_samples
from tests.reporting.made_up import an_info, records


def test_published_grid_of_gpt_4(data_dir):
    """All 225 cells of the original's GPT-4 run come back, and its means by length and depth."""
    rows = json.loads((data_dir / "niah" / "OpenAI_OriginalResults.json").read_text())
    grid = {(row["token_limit"], float(row["depth_percent"])): float(row["score"]) for row in rows}
    assert len(grid) == len(rows) == 225
    scores = cell_scores("niah", published_samples(rows), seed=0)
    (found,) = heat_maps(an_info(model="gpt-4"), records(scores_frame(scores)))
    assert {place: cell.value for place, cell in found.cells.items() if None not in place} == grid
    assert (len(found.lengths), len(found.depths), found.top) == (15, 15, 10)
    for axis in (0, 1):
        groups = defaultdict(list)
        for place, score in grid.items():
            groups[place[axis]].append(score)
        for name, values in groups.items():
            cell = found.cells[(name, None) if axis == 0 else (None, name)]
            assert cell.value == pytest.approx(sum(values) / 15)
            assert cell.n_docs == 15
            assert cell.low <= cell.value <= cell.high
    assert len(view_heat_map(found, file="x").boxes) == 225


def test_cells_that_are_not_scored_are_blank_and_counted():
    cells = {(1024, 25.0): HeatCell(None, None, None, 2, 2), (1024, 75.0): HeatCell(0.5, 0.1, 0.9, 2, 0)}
    view = view_heat_map(heat_map(cells, model="m", task="t", metric=guessed_metric("acc")), file="x")
    assert [(box.text, box.colour is None) for box in view.boxes] == [("—", True), ("50", False)]
    assert view.boxes[0].title == "length 1,024, depth 0–50%: not scored, n = 2, 2 not scored"


def test_docs_that_are_not_scored_are_no_zeros():
    rows = [
        {"token_limit": 1000, "depth_percent": depth, "score": score}
        for depth, score in ((0, 10), (0, None), (50, None))
    ]
    found = {(s.cell_length, s.cell_depth): s for s in cell_scores("niah", published_samples(rows), seed=0)}
    assert (found[1000, 0].value, found[1000, 0].n_docs, found[1000, 0].n_unscored) == (10, 2, 1)
    assert (found[1000, 50].value, found[1000, 50].n_docs, found[1000, 50].n_unscored) == (None, 1, 1)
    assert (found[1000, None].value, found[1000, None].n_docs, found[1000, None].n_unscored) == (10, 3, 2)


@pytest.mark.parametrize("colours", COLOUR_STOPS)
def test_numbers_can_be_read_on_every_colour(colours):
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for i in range(101):
        colour = colour_of(i / 100, colours)
        light, dark = sorted((luminance(colour), luminance(ink_on(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize("colours", ["viridis", "cividis"])
def test_more_is_brighter_so_grey_tells_them_apart(colours):
    def grey(colour: str) -> float:
        return sum(w * int(colour[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5)))

    greys = [grey(colour_of(i / 20, colours)) for i in range(21)]
    assert greys == sorted(greys)


def test_a_judges_grades_have_their_own_scale_whatever_they_are():
    """Grades of up to 10 points of 100, and a judge's grades of up to 10, were put on one scale from 0 to 10."""
    cells = {(1024, 50.0): HeatCell(6.5, -38.0, 51.0, 2, 0), (1024, None): HeatCell(1.0, 1.0, 1.0, 2, 0)}
    grades, points = (
        heat_map(cells, model="m", task="t", metric=guessed_metric(metric)) for metric in ("judge_score", "points")
    )
    assert (grades.bottom, grades.top, points.bottom, points.top) == (1, 10, 0, 100)
    assert grades.cells[1024, 50.0] == HeatCell(6.5, 1.0, 10.0, 2, 0)  # of two answers Student's t reaches far beyond
    view = view_heat_map(grades, file="x")
    assert [tick.text for tick in view.ticks] == ["1", "5.5", "10"]
    assert view.boxes[0].colour == colour_of(5.5 / 9, grades.colours)
    assert "t judge_score" in view.name
    assert view.note.startswith("judge_score in 1 to 10")
    figure = draw_heat_maps([grades, heat_map(cells, model="n", task="t", metric=guessed_metric("judge_score"))])
    assert figure.axes[-1].get_ylim() == (1, 10)  # the scale of both
    assert draw_curves([grades]).axes[0].get_ylim() == pytest.approx((1, 10.27))


def test_several_maps_side_by_side_have_one_scale():
    grids = [
        {(1024, 50.0): HeatCell(value, None, None, 2, 0), (1024, None): HeatCell(value, None, None, 2, 0)}
        for value in (0.2, 1.0)
    ]
    maps = [
        heat_map(grid, model=name, task="t", metric=guessed_metric("acc"))
        for name, grid in zip("ab", grids, strict=True)
    ]
    axes = draw_heat_maps(maps).axes
    assert [one.get_title() for one in axes[:2]] == ["a: t acc", "b: t acc"]
    assert axes[2].get_ylim() == (0, 100)
    assert len(draw_curves(maps).axes[0].lines) == 2


def test_hostile_names_stay_names(tmp_path):
    cells = {(1024, 50.0): HeatCell(1.0, None, None, 2, 0), (1024, None): HeatCell(1.0, None, None, 2, 0)}
    found = heat_map(cells, model=r"$\frac{</svg><script>", task="../../x\x1b", metric=guessed_metric("acc"))
    written = write_figures(tmp_path / "figures", [found], names=["plain"])
    assert {path.parent for path in written} == {tmp_path / "figures"}
    assert not any("<script" in path.read_text() for path in written if path.suffix == ".svg")


def test_the_same_map_is_the_same_file(tmp_path):
    found = heat_map({(1024, 50.0): HeatCell(1.0, None, None, 2, 0)}, model="m", task="t", metric=guessed_metric("acc"))
    first, second = (write_figures(tmp_path / name, [found], names=["x"]) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_no_cells_no_maps():
    assert cell_scores("t", TaskSamples(published_samples([]).plan, {"none": []}), seed=0) == []
    assert heat_maps(an_info(), records(scores_frame([]))) == ()
