"""Style of the page's figures: colours that colour-blind readers can distinguish, always with dashes or markers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina.report.figures import BLUES

DARK, MUTED, FAINT = "#10243e", "#5b6773", "#dfe4e8"
TEXT = 10.0
"""Font size in points. A figure is about as wide as a phone, so text keeps this size there; wider figures scroll."""
WIDTH = 4.9
"""Width in inches of a figure that fits beside another figure on a wide screen."""


@dataclass(frozen=True)
class Style:
    """Style of a trial's state or of a split: colour, dashes of lines, and marker of points."""

    colour: str
    line: Literal["-", "--", "-.", ":"]
    marker: str


MAX_OPAQUE_TRIALS = 40
"""Largest number of trials whose lines are opaque."""


def alpha(trials: int) -> float:
    """Return the opacity of a line in a figure of so many trials."""
    return 1.0 if trials <= MAX_OPAQUE_TRIALS else 0.6


STATES = {
    # three colours of Okabe and Ito and a grey, with a contrast of at least 3 : 1 on white; page.css repeats them
    "COMPLETE": Style("#0072b2", "-", "o"),
    "PRUNED": Style("#d55e00", "--", "v"),
    "RUNNING": Style("#cc79a7", "-.", "s"),
    "FAIL": Style("#4d4d4d", ":", "x"),
}
SPLIT_STYLES = {
    "train": Style("#767676", ":", "s"),
    "val": Style("#0072b2", "-", "o"),
    "test": Style("#d55e00", "--", "^"),
}


def shade(share: float) -> str:
    """Return a blue as a hex colour, the darker the larger `share` (0 to 1); the palest is still visible on white."""
    red, green, blue, _ = BLUES(0.3 + 0.7 * min(max(share, 0.0), 1.0))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def canvas(width: float = WIDTH, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return an empty figure, with its size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=TEXT, labelcolor=DARK, color=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, x: str, y: str) -> None:
    """Label the axes."""
    axes.set_xlabel(x, color=DARK, fontsize=TEXT)
    axes.set_ylabel(y, color=DARK, fontsize=TEXT)


def legend(figure: Figure, columns: int = 2) -> None:
    """Add a legend below the axes."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT, labelcolor=DARK)
