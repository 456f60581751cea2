"""Figures as inline SVG: text stays text, ids are unique on the page, and a trial's elements carry its id."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

TRIAL = "trial."
"""Prefix of the id of an element that belongs to a trial; the trial's id follows."""

CSS_INCH = 96
"""CSS pixels an inch."""

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]+)')
_PATH = re.compile(r'\bd="([^"]+)"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_TRIAL = re.compile(rf'<g id="{re.escape(TRIAL)}([^"]+)">')


@dataclass(frozen=True)
class SvgPicture:
    """A figure of the page.

    Attributes:
        name: prefix of its ids.
        title: heading above it.
        note: text below it; may be empty.
        svg: the inline SVG.
        wide: whether it is wider than a phone's screen and is scrolled there.
    """

    name: str
    title: str
    note: str
    svg: Markup
    wide: bool = False


def picture(figure: Figure, name: str, title: str, note: str, alt: str, *, wide: bool = False) -> SvgPicture:
    """Return a figure as inline SVG.

    Args:
        figure: figure that has no canvas yet.
        name: letters, digits and dashes; the prefix that keeps its ids unique among the page's figures.
        title: heading above the figure.
        note: text below the figure; may be empty.
        alt: alternative text for screen readers.
        wide: whether the figure is scrolled on a phone instead of made smaller.
    """
    return SvgPicture(name, title, note, _inline(figure, name, alt), wide)


def tag_trial(artist: Artist, trial: str) -> None:
    """Store a trial's id in an artist, so that the page can highlight the trial."""
    artist.set_gid(f"{TRIAL}{trial}")


def _inline(figure: Figure, name: str, alt: str) -> Markup:
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg ") :], flags=re.DOTALL)
    # a figure enlarged further would have larger text than the page
    text = text.replace("<svg ", f'<svg style="max-width:{round(figure.get_figwidth() * CSS_INCH * 1.2)}px" ', 1)
    text = _PATH.sub(_shorten_path, text)
    text = _TRIAL.sub(_label_trial, text)
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _REFERENCE.sub(rf"\1{name}-\2", text)
    start = f'<svg role="img" aria-label="{escape(alt)}" '
    return Markup(start + text.removeprefix("<svg "))  # noqa: S704  # matplotlib escapes text


def _shorten_path(match: re.Match[str]) -> str:
    path = _DECIMALS.sub(r"\1", " ".join(match[1].split()))
    return f'd="{path}"'


def _label_trial(match: re.Match[str]) -> str:
    trial = match[1]
    return f'<g id="{TRIAL}{trial}" data-trial="{trial}"><title>{trial}</title>'
