"""The live view of a running sweep in a terminal: trials by state, best value, rungs, load, time."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retina.results.run_folder import FINISHED
from retina.results.status import RungStatus, SweepStatus

SHOWN_RUNNING = 16


def render(status: SweepStatus) -> RenderableType:
    """Return the view of a sweep. A line keeps its position while the rungs, GPUs and running trials stay as many."""
    table = Table.grid(padding=(0, 2))
    label = f"best {status.metric}"  # the longest
    table.add_column(style="bold", no_wrap=True, min_width=len(label))
    table.add_column(no_wrap=True)  # a line that wraps only at times would move all lines below it
    done = sum(status.states.get(state, 0) for state in FINISHED)
    counts = [f"{status.states[state]} {state}" for state in (*FINISHED, "RUNNING") if status.states.get(state)]
    table.add_row("trials", f"{done} of {status.planned} done   {', '.join(counts)}")
    table.add_row("", ProgressBar(total=status.planned, completed=done, width=40))
    best = f"{status.best[1]:.4g} by {status.best[0]}" if status.best else "none yet"
    table.add_row(label, best)
    if status.rungs:
        table.add_row("rungs", "\n".join(_rung(rung) for rung in status.rungs))
    table.add_row("time", f"{format_duration(status.seconds)} used, {_time_left(status.seconds_left)}")
    table.add_row("load", _load(status))
    return Group(Text(f"Sweep {status.name}", style="bold"), table, _running_trials(status))


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    for unit, size, lower, lower_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // lower_size
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def _rung(rung: RungStatus) -> str:
    cutoff = "" if rung.cutoff is None else f", needs {rung.cutoff:.3g}"
    return f"epoch {rung.epoch}: {rung.trials} trials{cutoff}"


def _time_left(seconds: float | None) -> str:
    return "time left not known yet" if seconds is None else f"about {format_duration(seconds)} left"


def _load(status: SweepStatus) -> str:
    lines = [f"{len(status.running)} of {status.slots} slots for trials in use"]
    if status.load:
        lines[0] += f"   CPU {status.load.cpu:.0%}"
        for number, gpu in enumerate(status.load.gpus):
            memory = f"{gpu.memory_used / 2**30:.1f} of {gpu.memory / 2**30:.0f} GiB"
            lines.append(f"GPU {number} {gpu.busy:.0%}, {memory}")
    return "\n".join(lines)


def _running_trials(status: SweepStatus) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("running", "epoch", status.metric, "img/s"):
        table.add_column(column, justify="left" if column == "running" else "right", no_wrap=True)
    for trial in status.running[:SHOWN_RUNNING]:
        value = "-" if trial.value is None else f"{trial.value:.4g}"
        speed = "-" if trial.images_per_second is None else f"{trial.images_per_second:.0f}"
        table.add_row(trial.trial, f"{trial.epoch} of {trial.epochs}", value, speed)
    if len(status.running) > SHOWN_RUNNING:
        table.add_row(f"and {len(status.running) - SHOWN_RUNNING} more", "", "", "")
    return table
