"""How the trials learned: each one's metric by epoch, coloured and dashed by its state, with ASHA's rungs."""

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
from retina.report.page.svg import Picture


def pictures(facts: RunData) -> list[Picture]:
    """All trials together, and the best one by its accuracy; none before the first epoch."""
    found = [] if facts.history.empty else [_all(facts)]
    if facts.best is not None and (best := _best(facts)) is not None:
        found.append(best)
    return found


def _all(facts: RunData) -> Picture:
    figure, axes = plot_style.canvas(height=3.9)
    best = facts.ranking[0] if facts.ranking else None
    states = dict(zip(facts.trials["trial_id"], facts.trials["state"], strict=True))
    shown = dict.fromkeys(plot_style.STATES, 0)
    for trial, epochs in facts.history.groupby("trial_id", sort=True):
        state = str(states.get(trial, "RUNNING"))
        points = epochs[["epoch", facts.metric]].apply(pd.to_numeric, errors="coerce").dropna()
        if points.empty:
            continue
        shown[state] += 1
        style = plot_style.STATES[state]
        x, y = points.to_numpy(dtype=np.float64).T
        alone = style.marker if len(x) == 1 else None  # one epoch is no line
        drawn: dict[str, Any] = {"linewidth": 1.2, "alpha": plot_style.alpha(len(states)), "zorder": 2}
        if trial == best:
            drawn = {"linewidth": 3.2, "zorder": 3}
        (line,) = axes.plot(x, y, style.line, color=style.colour, marker=alone, markersize=4, **drawn)
        svg.of_trial(line, str(trial))
    last = float(facts.history["epoch"].max())
    rungs = [rung for rung in facts.spec.rungs() if rung <= last]
    for rung in rungs:
        axes.axvline(rung, color=plot_style.MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        axes.text(
            rung, 1.01, f"rung {rung}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=plot_style.TEXT, color=plot_style.MUTED,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plot_style.label(axes, "epoch", facts.metric)
    handles = [state_handle(state, lines=True, count=count) for state, count in shown.items() if count]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=plot_style.TEXT)
    note = f"The widest line is the best trial, {best}. " if best else ""
    if rungs:
        note += "Dotted: rungs, after which ASHA lets only the best go on."
    alt = f"{facts.metric} by epoch for {sum(shown.values())} trials; rungs after epochs {rungs or 'none'}"
    return svg.picture(figure, "curves", f"{facts.metric} of every trial by epoch", note.strip(), alt)


def _best(facts: RunData) -> Picture | None:
    """The best trial's accuracy on train and validation, as figures.py draws it, in this page's size."""
    assert facts.best is not None  # noqa: S101  # the caller looked
    try:
        judged = figures.read_split_result(facts.best, "val", facts.folder.best / "metrics.json")
        trial, epoch = str(facts.best["trial_id"]), int(facts.best["epoch"])
    except (ResultsError, KeyError, TypeError, ValueError):  # an older sweep's file may lack them
        return None
    curves = facts.history[facts.history["trial_id"] == trial]
    if curves.empty:
        return None
    figure = figures.accuracy(curves, epoch, trial, judged)
    figure.set_size_inches(plot_style.WIDTH, 3.9)
    figure.axes[0].set_title("")
    for wide in figure.legends:
        wide.remove()
    plot_style.legend(figure, columns=1)
    alt = f"accuracy of trial {trial} by epoch on train and validation; epoch {epoch} was chosen"
    return svg.picture(figure, "accuracy", f"The best trial, {trial}: accuracy by epoch", "", alt)
