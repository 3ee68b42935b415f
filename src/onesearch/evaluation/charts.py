"""Charts of a report: a panel per metric or group of requests, a line per method, so that names need no legend."""

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onesearch.common.extras import from_extra

with from_extra("train"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7", "#666666")
"""Told apart with every kind of colour vision: the palette of Okabe and Ito (2008), and grey for its yellow, which is
hard to see on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ACROSS = 5  # panels side by side


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: no two methods have both in common, and those of a marker differ in colour."""
    pairs = cycle(product(MARKERS, COLOURS))
    return {method: (colour, marker) for method, (marker, colour) in zip(methods, pairs, strict=False)}


def panels(names: Sequence[str], values: Mapping[str, NDArray[np.float64]], title: str) -> Figure:
    """Means with their intervals.

    Args:
        names: of the panels, P.
        values: method -> mean, low and high, [P, 3]; nan leaves a gap.
        title: of the whole chart.
    """
    # So many panels as fit beside each other, and names of methods on the left.
    across = min(len(names), _ACROSS)
    down = -(-len(names) // across)
    size = (2.2 + 2.1 * across, 0.7 + down * (0.75 + 0.2 * len(values)))
    figure = Figure(figsize=size, layout="constrained")
    grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
    # The first method stands at the top, the same one in the same colour everywhere.
    places = np.arange(len(values))[::-1]
    styles = method_styles(list(values))
    for number, axes in enumerate(grid.ravel()):
        if number >= len(names):
            axes.set_visible(False)
            continue
        for place, (method, rows) in zip(places, values.items(), strict=True):
            mean, low, high = rows[number]
            colour, marker = styles[method]
            axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
            axes.plot([mean], [place], color=colour, marker=marker, markersize=5.5, linestyle="none")
        axes.set_title(names[number], fontsize=9)
        axes.set_yticks(places, list(values), fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.suptitle(title, fontsize=10)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    FigureCanvasAgg(figure).print_png(path)
