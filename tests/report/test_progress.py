"""The progress of decoding: count, speed, remaining time; and at the end, how fast."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from cache_builder import draw
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from retina import cli
from retina.report.terminal import progress
from retina.report.terminal.progress import Pace, show_progress

GRADES = {"0": 12, "2": 12}


class Clock:
    """A clock that advances when a test says so, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def result(*, terminal: bool, steps: list[tuple[float, int]], total: int = 35126) -> str:
    """All that is printed for so many photographs done after so many seconds, in a window of 80 columns."""
    clock, file = Clock(), StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, color_system=None)
    with show_progress(console, clock) as say:
        for seconds, done in steps:
            clock.now = Clock.now + seconds
            say("decoding photographs", done, total)
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_photographs_a_second_and_the_time_left_are_told(terminal: bool) -> None:
    printed = result(terminal=terminal, steps=[(0, 0), (30, 900), (60, 1800)])
    assert "30.0 a second, 0:18:31 left" in printed
    assert re.search("1800/35126" if terminal else "decoding photographs: 1,800 of 35,126, ", printed)


@pytest.mark.parametrize("terminal", [True, False])
def test_photographs_of_a_build_before_do_not_count(terminal: bool) -> None:
    printed = result(terminal=terminal, steps=[(0, 20000), (30, 20300)])
    assert "10.0 a second, 0:24:43 left" in printed


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    steps = [(second, 10 * second) for second in range(101)]
    lines = result(terminal=False, steps=steps, total=1000).splitlines()
    assert [line.split(" of ")[0] for line in lines] == [
        f"decoding photographs: {done}" for done in ("200", "400", "600", "800", "1,000")
    ]
    assert lines[-1] == "decoding photographs: 1,000 of 1,000, 10.0 a second"


def test_what_is_over_at_once_is_told_without_a_rate() -> None:
    assert result(terminal=False, steps=[(0, 5)], total=5) == "decoding photographs: 5 of 5\n"
    assert result(terminal=False, steps=[(0, 0), (0, 5)], total=5) == "decoding photographs: 5 of 5\n"


def test_a_bar_is_gone_when_it_is_done() -> None:
    clock, file = Clock(), StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    with show_progress(console, clock) as say:
        say("drawing photographs", 5, 5)
        say("decoding photographs", 0, 5)
        say("decoding photographs", 5, 5)
        assert not console._live_stack
    assert "decoding photographs" in file.getvalue()


@given(before=st.integers(0, 10**6), more=st.integers(0, 10**6), left=st.integers(0, 10**6), seconds=st.floats(0, 1e6))
def test_something_can_always_be_said(before: int, more: int, left: int, seconds: float) -> None:
    clock = Clock()
    pace = Pace(before, clock)
    clock.now = Clock.now + seconds
    said = pace(before + more, before + more + left)
    assert bool(said) == (more > 0 and clock.now > Clock.now)
    assert said.endswith(" left") == (bool(said) and left > 0)


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """24 photographs, 12 of each of two grades, in folders named by grade."""
    for grade, n in GRADES.items():
        (tmp_path / "eyes").mkdir(exist_ok=True)
        for path in draw(tmp_path / "eyes" / grade, n):
            path.rename(path.with_stem(f"{grade}{path.stem}"))
    return tmp_path / "eyes"


@pytest.fixture
def prepare(
    eyes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], str]]:
    """`retina data prepare` of them; what it printed."""
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "cache"))

    def run(*, code: int = 0) -> str:
        assert cli.main(["data", "prepare", str(eyes), "--image-size", "32"]) == code
        return capsys.readouterr().out

    return run


def test_prepare_says_how_fast_it_was(prepare: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    printed = prepare()
    assert re.search(r"decoding photographs: 6 of 24, [\d,.]+ a second, \d:\d\d:\d\d left\n", printed)
    assert re.search(r"decoding photographs: 24 of 24, [\d,.]+ a second\n", printed)
    assert re.search(r"\n24 photographs decoded in [\d.]+ s, [\d,.]+ a second\ndecoded: /\S+pixels\.npy\n$", printed)
    assert "a second" not in prepare()  # there is nothing left to decode


def test_prepare_goes_on_where_it_was_interrupted(prepare: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        patch.setattr(Pace, "__call__", interrupt)
        printed = prepare(code=130)
    (kept,) = re.findall(r"stopped; (\d+) of 24 photographs are decoded and kept", printed)
    printed = prepare()
    assert f"{kept} of them are already decoded by a build that was stopped" in printed
    assert f"\n{24 - int(kept)} photographs decoded in " in printed


def interrupt(_: Pace, done: int, total: int) -> str:
    if done:
        raise KeyboardInterrupt
    return ""
