"""Stop signals end a process as Ctrl-C does, with their own exit codes; streams that nobody reads end nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retina import cli
from retina.system import process

WAITING = """
import sys, time
from retina.system import process
with process.handle_stop_signals():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("heard", flush=True)
        if sys.argv[1:] == ["deaf"]:
            time.sleep(60)
        sys.exit(process.exit_code())
"""


@contextlib.contextmanager
def waiting(*arguments: str, ignored: int | None = None) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WAITING, *arguments]
    before = signal.signal(ignored, signal.SIG_IGN) if ignored else None  # a child inherits it
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        if ignored:
            signal.signal(ignored, before)
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        yield one
        one.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_stop_signal_acts_like_ctrl_c(number: signal.Signals, code: int) -> None:
    with waiting() as one:
        one.send_signal(number)
        printed, complaints = one.communicate(timeout=30)
        assert (printed, complaints, one.returncode) == ("heard\n", "", code)


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    with waiting(ignored=signal.SIGHUP) as one:
        one.send_signal(signal.SIGHUP)
        one.send_signal(signal.SIGTERM)
        assert one.communicate(timeout=30)[0] == "heard\n"
        assert one.returncode == 143


def test_a_second_signal_ends_the_process_at_once() -> None:
    with waiting("deaf") as one:
        one.send_signal(signal.SIGTERM)
        assert one.stdout is not None
        assert one.stdout.readline() == "heard\n"
        time.sleep(process.REPEAT_SECONDS)  # else it counts as the first one, delivered twice
        one.send_signal(signal.SIGTERM)
        assert one.communicate(timeout=30)[1] == "stopped at once\n"
        assert one.returncode == 143


BUSY = """
import threading, time
from retina.system import process
with process.handle_stop_signals(), process.exit_on_first_signal():
    ready = "ready"
    while True:
        try:
            print(end=ready and f"{ready}\\n", flush=True)
            ready = ""
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


def test_a_start_that_does_not_hear_a_signal_is_ended_soon() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=-1, stderr=-1, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
        one.send_signal(signal.SIGTERM)
        assert one.communicate(timeout=30)[1] == "interrupted\n"
        assert one.returncode == 143


def test_a_signal_that_arrives_twice_counts_once() -> None:
    with process.handle_stop_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # `timeout` sends it to the process and to its group
        assert process.exit_code() == 143
        with pytest.raises(KeyboardInterrupt):
            process.raise_if_stop_requested()


def test_a_library_that_has_taken_ctrl_c_gets_the_other_signals_too() -> None:
    heard = []
    with process.handle_stop_signals():
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        signal.raise_signal(signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        assert process.stop_requested()
        assert process.exit_code() == 129


def test_handlers_are_given_back(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    assert cli.main(["list", str(tmp_path)]) == 0
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_command_that_is_stopped_says_so_and_exits_with_the_signal_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retina.report.terminal import list_sweeps

    monkeypatch.setattr(list_sweeps, "read_summaries", lambda _: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["list", str(tmp_path)]) == 143
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("gone", ["stdout", "stderr"])
def test_nobody_who_reads_is_no_failure(gone: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, gone: writer}
    arguments = ["list"] if gone == "stdout" else ["report", "nowhere"]
    with subprocess.Popen([sys.executable, "-m", "retina", *arguments], cwd=tmp_path, text=True, **streams) as one:
        os.close(writer)
        printed, complaints = one.communicate(timeout=60)
    assert (printed or "") + (complaints or "") == ""
    assert one.returncode == (0 if gone == "stdout" else 2)
