"""How the page's figures look: colours that the colour-blind tell apart, and never colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina.report.figures import BLUES

DARK, MUTED, FAINT = "#10243e", "#5b6773", "#dfe4e8"
TEXT = 10.0
"""Points. Figures are about as wide as a phone, so that this is what is read there; wider ones are scrolled."""
WIDTH = 4.9
"""Inches, of a figure that stands beside another one on a wide screen."""


@dataclass(frozen=True)
class Style:
    """How the trials of one state are drawn: colour, dashes of their lines, marker of their points."""

    colour: str
    line: Literal["-", "--", "-.", ":"]
    marker: str


MANY = 40
"""Trials from which on their lines let through what lies below them."""


def alpha(trials: int) -> float:
    """How opaque a line is that is one of so many."""
    return 1.0 if trials <= MANY else 0.6


STATES = {
    # three of Okabe and Ito's colours and a grey, all at least 3 : 1 on white; page.css has them too
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
    """A blue that is the darker the larger `share`, 0 to 1; its palest still shows on white."""
    red, green, blue, _ = BLUES(0.3 + 0.7 * min(max(share, 0.0), 1.0))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def canvas(width: float = WIDTH, height: float = 3.4) -> tuple[Figure, Axes]:
    """An empty figure, inches, with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=TEXT, labelcolor=DARK, color=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, x: str, y: str) -> None:
    """Name the axes."""
    axes.set_xlabel(x, color=DARK, fontsize=TEXT)
    axes.set_ylabel(y, color=DARK, fontsize=TEXT)


def legend(figure: Figure, columns: int = 2) -> None:
    """What is what, below the axes."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT, labelcolor=DARK)
