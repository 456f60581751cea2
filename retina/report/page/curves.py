"""Learning curves: each trial's metric by epoch, in the colour and dashes of its state, with the rungs of ASHA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from retina.errors import ResultsError
from retina.report import figures
from retina.report.page import plot_style, svg
from retina.report.page.run_data import RunData
from retina.report.page.search import state_handle
from retina.report.page.svg import SvgPicture


def pictures(run: RunData) -> list[SvgPicture]:
    """Return the curves of all trials and the best trial's accuracy; empty before the first epoch has ended."""
    drawn = [] if run.history.empty else [_all_trials(run)]
    if run.best is not None and (best := _best_trial(run)) is not None:
        drawn.append(best)
    return drawn


def _all_trials(run: RunData) -> SvgPicture:
    figure, axes = plot_style.canvas(height=3.9)
    best = run.ranking[0] if run.ranking else None
    states = dict(zip(run.trials["trial_id"], run.trials["state"], strict=True))
    counts = dict.fromkeys(plot_style.STATES, 0)
    for trial, epochs in run.history.groupby("trial_id", sort=True):
        state = str(states.get(trial, "RUNNING"))
        points = epochs[["epoch", run.metric]].apply(pd.to_numeric, errors="coerce").dropna()
        if points.empty:
            continue
        counts[state] += 1
        style = plot_style.STATES[state]
        x, y = points.to_numpy(dtype=np.float64).T
        marker = style.marker if len(x) == 1 else None  # a single epoch has no line
        options: dict[str, Any] = {"linewidth": 1.2, "alpha": plot_style.alpha(len(states)), "zorder": 2}
        if trial == best:
            options = {"linewidth": 3.2, "zorder": 3}
        (line,) = axes.plot(x, y, style.line, color=style.colour, marker=marker, markersize=4, **options)
        svg.tag_trial(line, str(trial))
    last_epoch = float(run.history["epoch"].max())
    rungs = [rung for rung in run.spec.rungs() if rung <= last_epoch]
    for rung in rungs:
        axes.axvline(rung, color=plot_style.MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        axes.text(
            rung, 1.01, f"rung {rung}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=plot_style.TEXT, color=plot_style.MUTED,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plot_style.label(axes, "epoch", run.metric)
    handles = [state_handle(state, lines=True, count=count) for state, count in counts.items() if count]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=plot_style.TEXT)
    note = f"The widest line is the best trial, {best}. " if best else ""
    if rungs:
        note += "Dotted lines: rungs, after which ASHA continues only the best trials."
    alt = f"{run.metric} by epoch for {sum(counts.values())} trials; rungs after epochs {rungs or 'none'}"
    return svg.picture(figure, "curves", f"{run.metric} of every trial by epoch", note.strip(), alt)


def _best_trial(run: RunData) -> SvgPicture | None:
    """Return the best trial's accuracy on train and validation: the figure of figures.py in the page's size.

    None if the sweep's version did not record what it needs.
    """
    assert run.best is not None  # noqa: S101  # the caller has checked it
    try:
        validation = figures.read_split_result(run.best, "val", run.folder.best / "metrics.json")
        trial, epoch = str(run.best["trial_id"]), int(run.best["epoch"])
    except (ResultsError, KeyError, TypeError, ValueError):  # an older sweep's file may lack them
        return None
    curves = run.history[run.history["trial_id"] == trial]
    if curves.empty:
        return None
    figure = figures.accuracy(curves, epoch, trial, validation)
    figure.set_size_inches(plot_style.WIDTH, 3.9)
    figure.axes[0].set_title("")
    for wide_legend in figure.legends:
        wide_legend.remove()
    plot_style.legend(figure, columns=1)
    alt = f"accuracy of trial {trial} by epoch on train and validation; epoch {epoch} was chosen"
    return svg.picture(figure, "accuracy", f"Accuracy of the best trial, {trial}, by epoch", "", alt)
