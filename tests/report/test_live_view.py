"""A running sweep as a terminal shows it: what is said, and that it keeps its place."""

from __future__ import annotations

import dataclasses
import re
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from retina.report.terminal.live_view import SHOWN_RUNNING, format_duration, render
from retina.results.status import RungStatus, RunningTrial, SweepStatus
from retina.system.hardware import GpuLoad, Load

GIB = 2**30
UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}
CALM = settings(max_examples=60, deadline=None)


def running(number: int, **changes: Any) -> RunningTrial:
    return RunningTrial(
        **{"trial": f"t{number:04d}", "epoch": 3, "epochs": 9, "value": 0.5, "images_per_second": 80.4, **changes}
    )


def status(**changes: Any) -> SweepStatus:
    """A sweep in the middle of its work on a machine with a GPU."""
    usual = {
        "name": "demo",
        "metric": "val_qwk",
        "planned": 20,
        "states": {"COMPLETE": 4, "PRUNED": 5, "FAIL": 1, "RUNNING": 2},
        "best": ("t0003", 0.71234),
        "running": [running(10), running(11, epoch=0, value=None, images_per_second=None)],
        "rungs": [RungStatus(2, 8, 0.4567), RungStatus(6, 3, None)],
        "slots": 3,
        "seconds": 3725.0,
        "seconds_left": 8000.0,
        "load": Load(0.873, [GpuLoad(0.95, 12 * GIB, 80 * GIB)]),
    }
    return SweepStatus(**{**usual, **changes})


def lines(shown: SweepStatus, width: int = 100) -> list[str]:
    file = StringIO()
    Console(width=width, file=file).print(render(shown))
    return file.getvalue().splitlines()


def rows(shown: SweepStatus, width: int = 100) -> dict[str, str]:
    """What stands to the right of each word at the left; lines that follow it without a word of their own, too."""
    found: dict[str, str] = {}
    last = ""
    for line in lines(shown, width):
        word, _, rest = line.partition("  ")
        last = word or last
        found[last] = "\n".join(filter(None, [found.get(last, ""), rest.strip()]))
    return found


def seconds_of(said: str) -> int:
    """The duration that `format_duration` said, read back."""
    assert re.fullmatch(r"\d+ (d|h|min|s)( \d+ (h|min|s))?", said)
    numbers, units = said.split()[::2], said.split()[1::2]
    return sum(int(number) * UNITS[unit] for number, unit in zip(numbers, units, strict=True))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3599, "59 min 59 s"),
        (3599.6, "1 h"),
        (7800, "2 h 10 min"),
        (7859, "2 h 10 min"),
        (86399.6, "1 d"),
        (86400 + 59 * 60, "1 d"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_a_duration_is_said_as_people_do(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


@CALM
@given(st.floats(0, 1e9))
def test_a_duration_leaves_out_less_than_a_part_in_twenty_four(seconds: float) -> None:
    left_out = round(seconds) - seconds_of(format_duration(seconds))
    assert 0 <= left_out <= seconds / 24


@CALM
@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_a_longer_duration_never_sounds_shorter(one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert seconds_of(format_duration(short)) <= seconds_of(format_duration(long))


def test_everything_that_a_watcher_wants_to_know_is_there() -> None:
    said = rows(status())
    assert list(said) == ["Sweep demo", "trials", "best val_qwk", "rungs", "time", "load", "running", "t0010", "t0011"]
    assert said["trials"].splitlines()[0] == "10 of 20 done   4 COMPLETE, 5 PRUNED, 1 FAIL, 2 RUNNING"
    assert said["best val_qwk"] == "0.7123 by t0003"
    assert said["rungs"] == "epoch 2: 8 trials, needs 0.457\nepoch 6: 3 trials"
    assert said["time"] == "1 h 2 min used, about 2 h 13 min left"
    assert said["load"] == "2 of 3 slots for trials in use   CPU 87%\nGPU 0 95%, 12.0 of 80 GiB"


def test_each_running_trial_has_its_line() -> None:
    head, first, second = (line.split() for line in lines(status())[-3:])
    assert head == ["running", "epoch", "val_qwk", "img/s"]
    assert first == ["t0010", "3", "of", "9", "0.5", "80"]
    assert second == ["t0011", "0", "of", "9", "-", "-"]


def test_the_bar_grows_with_the_trials_that_are_done() -> None:
    full = [rows(status(planned=20, states={"COMPLETE": done}))["trials"].count("━") for done in (0, 5, 10, 20)]
    assert full == [0, 10, 20, 40]


def test_a_metric_where_less_is_better_is_told_by_its_own_name() -> None:
    said = rows(status(metric="val_loss", best=("t0001", 0.31), rungs=[RungStatus(2, 8, 0.9)]))
    assert said["best val_loss"] == "0.31 by t0001"
    assert said["rungs"] == "epoch 2: 8 trials, needs 0.9"


def test_before_the_first_trial_nothing_is_made_up() -> None:
    bare = SweepStatus(name="demo", metric="val_qwk", planned=20, states={}, best=None)
    said = rows(bare)
    assert said["trials"].splitlines()[0] == "0 of 20 done"
    assert said["best val_qwk"] == "none yet"
    assert said["time"] == "0 s used, time left not known yet"
    assert said["load"] == "0 of 1 slots for trials in use"
    assert "rungs" not in said
    assert lines(bare)[-1].split() == ["running", "epoch", "val_qwk", "img/s"]


def test_a_sweep_of_no_trials_is_shown_too() -> None:
    assert rows(status(planned=0, states={}, running=[]))["trials"].startswith("0 of 0 done")


def test_without_a_gpu_none_is_spoken_of() -> None:
    said = rows(status(load=Load(0.5, [])))
    assert said["load"] == "2 of 3 slots for trials in use   CPU 50%"


def test_each_gpu_has_its_line() -> None:
    gpus = [GpuLoad(number / 8, number * GIB, 24 * GIB) for number in range(8)]
    said = rows(status(load=Load(1.0, gpus)))["load"].splitlines()
    assert said[0].endswith("CPU 100%")
    assert said[1:] == [f"GPU {n} {n / 8:.0%}, {n}.0 of 24 GiB" for n in range(8)]


def test_what_is_left_may_be_no_time_at_all() -> None:
    assert rows(status(seconds_left=0.0))["time"].endswith("about 0 s left")


def test_more_running_trials_than_there_is_room_for_are_counted() -> None:
    shown = lines(status(running=[running(number) for number in range(40)]))
    trials = [line for line in shown if line.startswith("t0")]
    assert len(trials) == SHOWN_RUNNING
    assert shown[-1].strip() == f"and {40 - SHOWN_RUNNING} more"
    exactly = lines(status(running=[running(number) for number in range(SHOWN_RUNNING)]))
    assert exactly[-1].startswith(f"t{SHOWN_RUNNING - 1:04d}")


SHARES = st.floats(0, 1)
VALUES = st.none() | st.floats(-1, 1) | st.floats(0, 1e6)
RUNNINGS = st.builds(
    RunningTrial,
    trial=st.integers(0, 99999).map("t{:04d}".format),
    epoch=st.integers(0, 500),
    epochs=st.integers(1, 500),
    value=VALUES,
    images_per_second=st.none() | st.floats(0, 1e5),
)


@st.composite
def moments(draw: st.DrawFn) -> SweepStatus:
    """A moment of one and the same sweep, whose two trials run on a machine with two GPUs."""
    gpu = st.builds(GpuLoad, SHARES, st.integers(0, 80 * GIB), st.just(80 * GIB))
    states = draw(st.dictionaries(st.sampled_from(["COMPLETE", "PRUNED", "FAIL", "RUNNING"]), st.integers(0, 100000)))
    return SweepStatus(
        name="demo",
        metric="val_accuracy",
        planned=draw(st.integers(1, 100000)),
        states=states,
        best=draw(st.none() | st.tuples(st.just("t0001"), st.floats(-1, 1e6))),
        running=[draw(RUNNINGS), draw(RUNNINGS)],
        rungs=[RungStatus(epoch, draw(st.integers(0, 100000)), draw(VALUES)) for epoch in (1, 3, 9, 27)],
        slots=draw(st.integers(0, 1000)),
        seconds=draw(st.floats(0, 1e7)),
        seconds_left=draw(st.none() | st.floats(0, 1e7)),
        load=Load(draw(SHARES), [draw(gpu), draw(gpu)]),
    )


@CALM
@given(moments(), st.sampled_from([60, 80, 100]))
def test_it_keeps_its_lines_whatever_the_numbers_are(moment: SweepStatus, width: int) -> None:
    shown = lines(moment, width)
    words = [re.split(r"\s\s", line)[0] for line in shown]
    assert len(shown) == 15
    assert [words[place] for place in (0, 1, 3, 4, 8, 9)] == [
        "Sweep demo", "trials", "best val_accuracy", "rungs", "time", "load"
    ]  # fmt: skip
    assert all(len(line) <= width for line in shown)


def test_the_lines_follow_the_running_trials_alone() -> None:
    counts = []
    for number in (0, 1, 5, SHOWN_RUNNING, SHOWN_RUNNING + 1, 40):
        at_work = status(running=[running(n) for n in range(number)])
        idle = dataclasses.replace(
            at_work, states={}, best=None, seconds_left=None, rungs=[RungStatus(2, 0, None), RungStatus(6, 0, None)]
        )
        assert len(lines(at_work)) == len(lines(idle))
        counts.append(len(lines(at_work)))
    none, one, five, many, more, most = counts
    assert (one - none, five - none, many - none, more - none, most - none) == (1, 5, 16, 17, 17)
