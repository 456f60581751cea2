"""A sweep before it starts, as a terminal shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        trials: how many it would run; of one that goes on, how many are left.
        first: the first of them, each with the settings that are searched; later ones depend on what these come to.
            Empty for a sweep that goes on.
        rungs: epochs after which a trial may be stopped.
        epochs: the most that all trials together can train.
        slots: how many trials at once were reckoned with.
        bytes_needed: on the results' disk, at the worst moment.
        bytes_free: on that disk now.
    """

    trials: int
    first: list[tuple[str, dict[str, Any]]]
    rungs: list[int]
    epochs: int
    slots: int
    bytes_needed: int
    bytes_free: int


def table(plan: Plan) -> Group:
    """The plan in words and numbers."""
    shown = [_first(plan)] if plan.first else []
    told = Table.grid(padding=(0, 2))
    rungs = ", ".join(str(epoch) for epoch in plan.rungs)
    told.add_row("rungs", f"after epochs {rungs}" if rungs else "none: every trial runs to its end")
    told.add_row("at most", f"{plan.epochs} epochs in {plan.trials} trials")
    told.add_row("at once", f"{plan.slots} on this machine")
    disk = f"{plan.bytes_needed / 1e9:.2f} GB at most for the results, {plan.bytes_free / 1e9:.2f} GB are free"
    told.add_row("disk", disk + ("" if plan.bytes_needed <= plan.bytes_free else ": not enough, it would not start"))
    return Group(*shown, told)


def _first(plan: Plan) -> Table:
    first = Table(title="Would start first", title_justify="left", box=SIMPLE_HEAD)
    alone = len(plan.first) == 1
    names = [name for name in plan.first[0][1] if alone or len({str(values[name]) for _, values in plan.first}) > 1]
    for column in ("trial", *names):
        first.add_column(column, justify="left" if column == "trial" else "right", no_wrap=True)
    for trial, values in plan.first:
        first.add_row(trial, *(_short(values[name]) for name in names))
    return first


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
