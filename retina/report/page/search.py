"""What the search tried and what it came to: optimisation history, parallel coordinates, slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from retina.report.page import plot_style, svg
from retina.report.page.run_data import RunData, SearchedParameter, finite_or_none, format_setting
from retina.report.page.svg import Picture

UNUSED = -0.12
"""Where a trial that does not use a parameter stands, below its axis from 0 to 1."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Places from 0 to 1 for a parameter's values, and the ticks: place and text."""

    parameter: SearchedParameter
    low: float
    high: float

    @classmethod
    def of(cls, parameter: SearchedParameter) -> Scale:
        """For a range by its ends, in orders of magnitude where it is searched so; else a place for each value."""
        if parameter.ends is None:
            return cls(parameter, 0.0, max(len(parameter.choices) - 1.0, 1.0))
        low, high = parameter.ends
        return cls(parameter, *((float(np.log10(low)), float(np.log10(high))) if parameter.is_log else (low, high)))

    def raw(self, row: Row) -> float | None:
        """A trial's value on the axis; None where it does not use the parameter, or has a value outside its choices."""
        told = row[self.parameter.name]
        if not self.parameter.is_used(row):
            return None
        if self.parameter.ends is None:
            return (
                float(self.parameter.choices.index(format_setting(told)))
                if format_setting(told) in self.parameter.choices
                else None
            )
        value = finite_or_none(told)
        if value is None or (self.parameter.is_log and value <= 0):
            return None
        return float(np.log10(value)) if self.parameter.is_log else value

    def place(self, row: Row) -> float | None:
        """The same from 0 to 1; a little outside for a value that was tried before the space was changed."""
        value = self.raw(row)
        return None if value is None else min(max((value - self.low) / (self.high - self.low), -0.05), 1.05)

    def ticks(self) -> list[tuple[float, str]]:
        """On the raw axis."""
        if self.parameter.ends is None:
            return [(float(place), choice) for place, choice in enumerate(self.parameter.choices)]
        if self.parameter.is_log:
            low, high = self.parameter.ends
            powers = [value for value in LogLocator(numticks=5).tick_values(low, high) if low <= value <= high]
            return [(float(np.log10(value)), f"{value:g}") for value in (powers if len(powers) > 1 else [low, high])]
        shown = [value for value in MaxNLocator(5).tick_values(self.low, self.high) if self.low <= value <= self.high]
        return [(float(value), f"{value:g}") for value in shown]


def pictures(facts: RunData) -> list[Picture]:
    """History and parallel coordinates; none before a trial has a value."""
    return [*_history(facts), *_parallel(facts)] if facts.ranking else []


def slices(facts: RunData) -> list[Picture]:
    """One figure a parameter that was searched, in which at least two values were tried."""
    scales = [Scale.of(parameter) for parameter in facts.searched]
    told = [scale for scale in scales if len({scale.raw(row) for row in _valued(facts)} - {None}) > 1]
    return [_slice(facts, scale) for scale in told]


def _history(facts: RunData) -> Iterator[Picture]:
    figure, axes = plot_style.canvas(height=3.7)
    bests: list[tuple[int, float]] = []
    for place, row in enumerate(facts.rows):
        value = finite_or_none(row[facts.metric])
        if value is not None and row["state"] != "FAIL":
            _point(axes, (place, value), row)
            if not bests or (value - bests[-1][1]) * facts.spec.metric.sign > 0:
                bests.append((place, value))
        elif row["state"] == "FAIL":
            style = plot_style.STATES["FAIL"]
            (drawn,) = axes.plot(
                [place], [0.03], style.marker, color=style.colour, transform=axes.get_xaxis_transform()
            )
            svg.of_trial(drawn, str(row["trial_id"]))
    steps = [*bests, (len(facts.rows) - 1, bests[-1][1])]
    x, y = zip(*steps, strict=True)
    axes.step(x, y, where="post", color=plot_style.DARK, linewidth=1.2, label="best so far", zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plot_style.label(axes, "trial, in the order in which they were started", facts.metric)
    _states(figure, facts, lines=False, more=axes.get_legend_handles_labels()[0])
    alt = f"{facts.metric} of {len(facts.rows)} trials in their order; the best is {bests[-1][1]:.3g}"
    note = "A trial that failed stands at the lower edge." if facts.count("FAIL") else ""
    yield svg.picture(figure, "history", "Optimisation history", note, alt)


def _parallel(facts: RunData) -> Iterator[Picture]:
    scales = [Scale.of(parameter) for parameter in facts.searched]
    if not scales:
        return
    rows = _valued(facts)
    values = np.array([finite_or_none(row[facts.metric]) for row in rows], dtype=np.float64)
    span = max(float(np.ptp(values)), 1e-9)
    shares = (values - values.min()) / span if facts.spec.metric.sign > 0 else (values.max() - values) / span
    width = max(plot_style.WIDTH, 1.15 * (len(scales) + 1))
    figure, axes = plot_style.canvas(width, 3.7)
    axes.grid(visible=False)
    unused = False
    for index in np.argsort(shares, kind="stable"):  # the best are drawn last, on top
        row, share = rows[index], float(shares[index])
        places = [scale.place(row) for scale in scales]
        unused = unused or None in places
        y = [*(UNUSED if place is None else place for place in places), share]
        style, best = plot_style.STATES[row["state"]], row["trial_id"] == facts.ranking[0]
        drawn: dict[str, Any] = {"linewidth": 3.0} if best else {"linewidth": 1.3, "alpha": plot_style.alpha(len(rows))}
        (line,) = axes.plot(range(len(y)), y, style.line, color=plot_style.shade(share), **drawn)
        svg.of_trial(line, str(row["trial_id"]))
    for place, scale in enumerate(scales):
        _axis(axes, place, [((at - scale.low) / (scale.high - scale.low), text) for at, text in scale.ticks()])
    low, high = (values.min(), values.max()) if facts.spec.metric.sign > 0 else (values.max(), values.min())
    _axis(axes, len(scales), [(step, f"{low + step * (high - low):.3g}") for step in (0.0, 0.25, 0.5, 0.75, 1.0)])
    if unused:
        axes.text(-0.05, UNUSED, "not used", ha="right", va="center", fontsize=plot_style.TEXT, color=plot_style.MUTED)
    names = [*(scale.parameter.name for scale in scales), facts.metric]
    axes.set_xticks(range(len(names)), [name.replace("_", "_\n") if len(name) > 10 else name for name in names])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=plot_style.TEXT, labelcolor=plot_style.DARK)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.45, len(names) - 0.5)
    axes.set_ylim(UNUSED - 0.06 if unused else -0.06, 1.06)
    _states(figure, facts, lines=True, columns=4)
    note = f"A line a trial, the darker the better its {facts.metric}; the widest is the best."
    alt = f"{len(rows)} trials as lines through {', '.join(names)}; the numbers are in the table of trials"
    yield svg.picture(figure, "parallel", "Parallel coordinates", note, alt, wide=True)


def _slice(facts: RunData, scale: Scale) -> Picture:
    parameter = scale.parameter
    figure, axes = plot_style.canvas(3.6, 2.7)
    for row in _valued(facts):
        at, value = scale.raw(row), finite_or_none(row[facts.metric])
        if at is not None and value is not None:
            _point(axes, (at, value), row)
    ticks = scale.ticks()
    axes.xaxis.set_major_locator(FixedLocator([place for place, _ in ticks]))
    texts = dict(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: texts.get(place, "")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    edge = 0.4 if parameter.ends is None else 0.04 * (scale.high - scale.low)
    seen = [at for row in _valued(facts) if (at := scale.raw(row)) is not None]
    axes.set_xlim(min(scale.low, *seen) - edge, max(scale.high, *seen) + edge)
    plot_style.label(axes, parameter.name + (" (logarithmic)" if parameter.is_log else ""), facts.metric)
    alt = f"{facts.metric} by {parameter.name} for {len(seen)} trials; the numbers are in the table of trials"
    return svg.picture(figure, f"slice-{parameter.name.replace('_', '-')}", parameter.name, "", alt)


def _valued(facts: RunData) -> list[Row]:
    """The trials that have a value and did not fail."""
    return [row for row in facts.rows if row["state"] != "FAIL" and finite_or_none(row[facts.metric]) is not None]


def _point(axes: Axes, at: tuple[float, float], row: Row) -> None:
    style = plot_style.STATES[row["state"]]
    (drawn,) = axes.plot([at[0]], [at[1]], style.marker, color=style.colour, markersize=5.5, alpha=0.85)
    svg.of_trial(drawn, str(row["trial_id"]))


def _axis(axes: Axes, place: float, ticks: list[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color=plot_style.MUTED, linewidth=1, zorder=1)
    for at, text in ticks:
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
        axes.plot([place - 0.03, place], [at, at], color=plot_style.MUTED, linewidth=1, zorder=3)
        axes.text(
            place - 0.05,
            at,
            text,
            ha="right",
            va="center",
            fontsize=plot_style.TEXT - 1,
            color=plot_style.DARK,
            bbox=halo,
            zorder=4,
        )


def _states(figure: Figure, facts: RunData, *, lines: bool, columns: int = 3, more: Any = ()) -> None:
    """A legend of the states that there are."""
    shown = [state for state in plot_style.STATES if facts.count(state) and not (lines and state == "FAIL")]
    handles = [*more, *(state_handle(state, lines=lines, colour=plot_style.DARK if lines else None) for state in shown)]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=plot_style.TEXT,
        labelcolor=plot_style.DARK,
    )  # fmt: skip


def state_handle(state: str, *, lines: bool, count: int | None = None, colour: str | None = None) -> Line2D:
    """What a legend shows of a state; `colour` instead of its own where the colour says something else."""
    style = plot_style.STATES[state]
    text = state if count is None else f"{state} ({count})"
    if lines:
        return Line2D([], [], color=colour or style.colour, linestyle=style.line, linewidth=1.6, label=text)
    return Line2D([], [], color=style.colour, marker=style.marker, linestyle="none", markersize=5.5, label=text)
