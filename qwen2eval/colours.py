"""Colour maps of heat maps: a task names one, a report draws with it."""

from collections.abc import Mapping

DEFAULT_COLOURS = "viridis"
# Nine stops of matplotlib's maps, and the three of gkamradt/LLMTest_NeedleInAHaystack.
COLOUR_STOPS: Mapping[str, tuple[str, ...]] = {
    "viridis": ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"),
    "cividis": ("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bcae6c", "#dec958", "#fee838"),
    "classic": ("#f0496e", "#ebb839", "#0cd79f"),
}
"""The first two can be distinguished by colour-blind readers and in grey; classic is red to green."""
