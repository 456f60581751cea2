"""Figures as SVG that stands in a page: text stays text, ids are the figure's own, trials can be found by name."""

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
"""Before a trial's id in the id of what is drawn of it."""

CSS_INCH = 96
"""Pixels."""

_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]+)')
_PATH = re.compile(r'\bd="([^"]+)"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_TRIAL = re.compile(rf'<g id="{re.escape(TRIAL)}([^"]+)">')


@dataclass(frozen=True)
class Picture:
    """A figure of the page: `svg`, a heading, a line below it, and whether it is wider than a phone."""

    name: str
    title: str
    note: str
    svg: Markup
    wide: bool = False


def picture(figure: Figure, name: str, title: str, note: str, alt: str, *, wide: bool = False) -> Picture:
    """A figure as inline SVG.

    Args:
        figure: drawn on no canvas yet.
        name: letters, digits and dashes; tells its ids from those of the page's other figures.
        title: stands above.
        note: stands below; may be empty.
        alt: what it shows, for those who do not see it.
        wide: is to be scrolled on a phone, not made smaller.
    """
    return Picture(name, title, note, _inline(figure, name, alt), wide)


def of_trial(artist: Artist, trial: str) -> None:
    """Mark what is drawn of a trial, so that the page can tell whose it is."""
    artist.set_gid(f"{TRIAL}{trial}")


def _inline(figure: Figure, name: str, alt: str) -> Markup:
    drawn = io.StringIO()
    FigureCanvasSVG(figure)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True)
    text = drawn.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg ") :], flags=re.DOTALL)
    # wider than drawn its text would be too large beside the page's own
    text = text.replace("<svg ", f'<svg style="max-width:{round(figure.get_figwidth() * CSS_INCH * 1.2)}px" ', 1)
    text = _PATH.sub(_shortened, text)
    text = _TRIAL.sub(_named, text)
    text = _ID.sub(rf'id="{name}-\1"', text)
    text = _REFERENCE.sub(rf"\1{name}-\2", text)
    opened = f'<svg role="img" aria-label="{escape(alt)}" '
    return Markup(opened + text.removeprefix("<svg "))  # noqa: S704  # matplotlib escapes what it is given


def _shortened(found: re.Match[str]) -> str:
    path = _DECIMALS.sub(r"\1", " ".join(found[1].split()))
    return f'd="{path}"'


def _named(found: re.Match[str]) -> str:
    trial = found[1]
    return f'<g id="{TRIAL}{trial}" data-trial="{trial}"><title>{trial}</title>'
