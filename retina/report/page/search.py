"""Figures of the search: optimisation history, parallel coordinates, and slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from retina.report.page import plot_style, svg
from retina.report.page.run_data import RunData, SearchedParameter, finite_or_none, format_setting
from retina.report.page.svg import SvgPicture

UNUSED = -0.12
"""Position of a trial that does not use a parameter, below the parameter's axis from 0 to 1."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """Maps a parameter's values to an axis.

    The coordinate of a value is the value itself, its decimal logarithm if the range is searched on a logarithmic
    scale, or its index among the choices.

    Attributes:
        parameter: the parameter.
        low: coordinate of the lower end.
        high: coordinate of the upper end.
    """

    parameter: SearchedParameter
    low: float
    high: float

    @classmethod
    def from_parameter(cls, parameter: SearchedParameter) -> Scale:
        """Return the scale of a parameter's range or choices."""
        if parameter.ends is None:
            return cls(parameter, 0.0, max(len(parameter.choices) - 1.0, 1.0))
        low, high = parameter.ends
        return cls(parameter, *((float(np.log10(low)), float(np.log10(high))) if parameter.is_log else (low, high)))

    def coordinate(self, row: Row) -> float | None:
        """Return a trial's coordinate; None if it does not use the parameter, or its value is not one of the choices.

        Args:
            row: the trial's row of trials.csv.
        """
        setting = row[self.parameter.name]
        if not self.parameter.is_used(row):
            return None
        if self.parameter.ends is None:
            text, choices = format_setting(setting), self.parameter.choices
            return float(choices.index(text)) if text in choices else None
        value = finite_or_none(setting)
        if value is None or (self.parameter.is_log and value <= 0):
            return None
        return float(np.log10(value)) if self.parameter.is_log else value

    def position(self, row: Row) -> float | None:
        """Return a trial's coordinate scaled to 0 to 1.

        A value from before the search space was changed may lie outside; it is clipped to -0.05 to 1.05.
        """
        coordinate = self.coordinate(row)
        if coordinate is None:
            return None
        return min(max((coordinate - self.low) / (self.high - self.low), -0.05), 1.05)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the ticks: coordinate and text."""
        if self.parameter.ends is None:
            return [(float(index), choice) for index, choice in enumerate(self.parameter.choices)]
        if self.parameter.is_log:
            low, high = self.parameter.ends
            powers = [value for value in LogLocator(numticks=5).tick_values(low, high) if low <= value <= high]
            return [(float(np.log10(value)), f"{value:g}") for value in (powers if len(powers) > 1 else [low, high])]
        values = [value for value in MaxNLocator(5).tick_values(self.low, self.high) if self.low <= value <= self.high]
        return [(float(value), f"{value:g}") for value in values]


def pictures(run: RunData) -> list[SvgPicture]:
    """Return the optimisation history and the parallel coordinates; empty before a trial has a value."""
    return [*_history(run), *_parallel(run)] if run.ranking else []


def slices(run: RunData) -> list[SvgPicture]:
    """Return a figure for each searched parameter of which at least two values were tried."""
    scales = [Scale.from_parameter(parameter) for parameter in run.searched]
    rows = _rows_with_value(run)
    return [_slice(run, scale) for scale in scales if len({scale.coordinate(row) for row in rows} - {None}) > 1]


def _history(run: RunData) -> Iterator[SvgPicture]:
    figure, axes = plot_style.canvas(height=3.7)
    bests: list[tuple[int, float]] = []
    for index, row in enumerate(run.rows):
        value = finite_or_none(row[run.metric])
        if value is not None and row["state"] != "FAIL":
            _plot_trial(axes, (index, value), row)
            if not bests or (value - bests[-1][1]) * run.spec.metric.sign > 0:
                bests.append((index, value))
        elif row["state"] == "FAIL":
            style = plot_style.STATES["FAIL"]
            (mark,) = axes.plot([index], [0.03], style.marker, color=style.colour, transform=axes.get_xaxis_transform())
            svg.tag_trial(mark, str(row["trial_id"]))
    steps = [*bests, (len(run.rows) - 1, bests[-1][1])]
    x, y = zip(*steps, strict=True)
    axes.step(x, y, where="post", color=plot_style.DARK, linewidth=1.2, label="best so far", zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plot_style.label(axes, "trial, in order of start", run.metric)
    _add_state_legend(figure, run, lines=False, extra_handles=axes.get_legend_handles_labels()[0])
    alt = f"{run.metric} of {len(run.rows)} trials in order of start; the best is {bests[-1][1]:.3g}"
    note = "Failed trials are at the lower edge." if run.count("FAIL") else ""
    yield svg.picture(figure, "history", "Optimisation history", note, alt)


def _parallel(run: RunData) -> Iterator[SvgPicture]:
    scales = [Scale.from_parameter(parameter) for parameter in run.searched]
    if not scales:
        return
    rows = _rows_with_value(run)
    values = np.array([finite_or_none(row[run.metric]) for row in rows], dtype=np.float64)
    worst, best = (values.min(), values.max()) if run.spec.metric.sign > 0 else (values.max(), values.min())
    span = max(float(np.ptp(values)), 1e-9)
    shares = np.abs(values - worst) / span  # 0 for the worst value, 1 for the best
    width = max(plot_style.WIDTH, 1.15 * (len(scales) + 1))
    figure, axes = plot_style.canvas(width, 3.7)
    axes.grid(visible=False)
    has_unused = False
    for index in np.argsort(shares, kind="stable"):  # the best trials are drawn last, on top
        row, share = rows[index], float(shares[index])
        positions = [scale.position(row) for scale in scales]
        has_unused = has_unused or None in positions
        y = [*(UNUSED if position is None else position for position in positions), share]
        options: dict[str, Any] = {"linewidth": 1.3, "alpha": plot_style.alpha(len(rows))}
        if row["trial_id"] == run.ranking[0]:
            options = {"linewidth": 3.0}
        style = plot_style.STATES[row["state"]]
        (line,) = axes.plot(range(len(y)), y, style.line, color=plot_style.shade(share), **options)
        svg.tag_trial(line, str(row["trial_id"]))
    for x, scale in enumerate(scales):
        ticks = [((coordinate - scale.low) / (scale.high - scale.low), text) for coordinate, text in scale.ticks()]
        _plot_axis(axes, x, ticks)
    metric_ticks = [(step, f"{worst + step * (best - worst):.3g}") for step in (0.0, 0.25, 0.5, 0.75, 1.0)]
    _plot_axis(axes, len(scales), metric_ticks)
    if has_unused:
        axes.text(-0.05, UNUSED, "not used", ha="right", va="center", fontsize=plot_style.TEXT, color=plot_style.MUTED)
    names = [*(scale.parameter.name for scale in scales), run.metric]
    axes.set_xticks(range(len(names)), [name.replace("_", "_\n") if len(name) > 10 else name for name in names])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=plot_style.TEXT, labelcolor=plot_style.DARK)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.45, len(names) - 0.5)
    axes.set_ylim(UNUSED - 0.06 if has_unused else -0.06, 1.06)
    _add_state_legend(figure, run, lines=True, columns=4)
    note = f"Each line is a trial; the better its {run.metric}, the darker the line. The widest line is the best trial."
    alt = f"{len(rows)} trials as lines through {', '.join(names)}; the table of trials contains the values"
    yield svg.picture(figure, "parallel", "Parallel coordinates", note, alt, wide=True)


def _slice(run: RunData, scale: Scale) -> SvgPicture:
    parameter = scale.parameter
    figure, axes = plot_style.canvas(3.6, 2.7)
    coordinates = []
    for row in _rows_with_value(run):
        x, value = scale.coordinate(row), finite_or_none(row[run.metric])
        if x is not None and value is not None:
            coordinates.append(x)
            _plot_trial(axes, (x, value), row)
    texts = dict(scale.ticks())
    axes.xaxis.set_major_locator(FixedLocator(list(texts)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: texts.get(x, "")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    margin = 0.4 if parameter.ends is None else 0.04 * (scale.high - scale.low)
    axes.set_xlim(min(scale.low, *coordinates) - margin, max(scale.high, *coordinates) + margin)
    plot_style.label(axes, parameter.name + (" (logarithmic)" if parameter.is_log else ""), run.metric)
    alt = f"{run.metric} by {parameter.name} for {len(coordinates)} trials; the table of trials contains the values"
    return svg.picture(figure, f"slice-{parameter.name.replace('_', '-')}", parameter.name, "", alt)


def _rows_with_value(run: RunData) -> list[Row]:
    """Return the rows of the trials that have a value and did not fail."""
    return [row for row in run.rows if row["state"] != "FAIL" and finite_or_none(row[run.metric]) is not None]


def _plot_trial(axes: Axes, point: tuple[float, float], row: Row) -> None:
    style = plot_style.STATES[row["state"]]
    (mark,) = axes.plot([point[0]], [point[1]], style.marker, color=style.colour, markersize=5.5, alpha=0.85)
    svg.tag_trial(mark, str(row["trial_id"]))


def _plot_axis(axes: Axes, x: float, ticks: list[tuple[float, str]]) -> None:
    """Draw a vertical axis of the parallel coordinates, with ticks at positions from 0 to 1."""
    axes.plot([x, x], [0, 1], color=plot_style.MUTED, linewidth=1, zorder=1)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    for position, text in ticks:
        axes.plot([x - 0.03, x], [position, position], color=plot_style.MUTED, linewidth=1, zorder=3)
        axes.text(
            x - 0.05, position, text, ha="right", va="center", fontsize=plot_style.TEXT - 1, color=plot_style.DARK,
            bbox=background, zorder=4,
        )  # fmt: skip


def _add_state_legend(
    figure: Figure, run: RunData, *, lines: bool, columns: int = 3, extra_handles: list[Artist] | None = None
) -> None:
    """Add a legend of the states that occur, after `extra_handles`; lines are not drawn for failed trials."""
    states = [state for state in plot_style.STATES if run.count(state) and not (lines and state == "FAIL")]
    colour = plot_style.DARK if lines else None
    handles = [*(extra_handles or []), *(state_handle(state, lines=lines, colour=colour) for state in states)]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=plot_style.TEXT,
        labelcolor=plot_style.DARK,
    )  # fmt: skip


def state_handle(state: str, *, lines: bool, count: int | None = None, colour: str | None = None) -> Line2D:
    """Return a state's legend handle.

    Args:
        state: name of the state.
        lines: whether the figure shows trials as lines; else as points.
        count: number of trials to add to the label.
        colour: colour instead of the state's own, for lines whose colour means something else.
    """
    style = plot_style.STATES[state]
    text = state if count is None else f"{state} ({count})"
    if lines:
        return Line2D([], [], color=colour or style.colour, linestyle=style.line, linewidth=1.6, label=text)
    return Line2D([], [], color=style.colour, marker=style.marker, linestyle="none", markersize=5.5, label=text)
