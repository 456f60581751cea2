"""All inputs of a run: each made, given to its commands and judged in a process of its own, some at a time."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.robustness import arrays, commandlines, exports, lists, photographs, runs, sweepfiles, world
from benchmarks.robustness import process as child
from benchmarks.robustness.case import CLASSES, UNCLEAR, Input, Rng, Verdict, rng_of
from benchmarks.robustness.judge import judge
from benchmarks.robustness.oracle import Prediction, read_predictions
from benchmarks.robustness.process import Limits, Main
from benchmarks.robustness.world import World

Truth = Mapping[str, Mapping[str, Prediction]]
"""What the whole export says of each photograph, by runtime and file name."""
Maker = Callable[[World, Truth, Path, Rng, int], Input]

KINDS: dict[str, Maker] = {
    "photographs": photographs.make,
    "lists": lists.make,
    "npz": arrays.make,
    "sweep": sweepfiles.make,
    "export": exports.make,
    "results": runs.make,
    "commands": commandlines.make,
}


class BrokenError(RuntimeError):
    """The benchmark itself does not work: not even whole inputs are read, or one of them was changed."""


def warm() -> Main:
    """Import all of the package and what it imports late; returns the package's command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.tune  # noqa: F401, PLC0415
        import torch._dynamo  # noqa: PLC0415
        import torch.export  # noqa: PLC0415
        import torch.onnx  # noqa: PLC0415

        import retina  # noqa: PLC0415

        for module in pkgutil.walk_packages(retina.__path__, "retina."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        with contextlib.suppress(ImportError):
            importlib.import_module("onnxscript")
    torch.set_num_threads(1)
    return sys.modules["retina.cli"].main


def shares(total: int, kinds: Sequence[str]) -> dict[str, int]:
    """How many inputs each kind gets, as equal as can be."""
    return {kind: total // len(kinds) + (at < total % len(kinds)) for at, kind in enumerate(kinds)}


class Campaign:
    """The whole inputs, what is true of them, and where changed ones are written."""

    def __init__(self, main: Main, place: Path, whole: World, seed: int, limits: Limits) -> None:
        self.main, self.place, self.whole, self.seed, self.limits = main, place, whole, seed, limits
        self.truth: Truth = {}
        self.broken: list[str] = []  # inputs that could not be made or judged

    def prepare(self) -> None:
        """Make the whole inputs, if they are not there, and grade the photographs by both runtimes.

        Raises:
            BrokenError: they cannot be made or graded.
        """
        if not (self.whole.root / "whole").is_file():
            self.whole.root.mkdir(parents=True, exist_ok=True)
            log = self.place / "world.log"
            if _in_child(lambda: world.make(self.whole.root), log, self.place / "cache"):
                raise BrokenError(
                    f"the whole inputs cannot be made:\n{log.read_text(encoding='utf-8', errors='replace')}"
                )
            (self.whole.root / "whole").touch()
        truth = {}
        for runtime in ("onnx", "torch"):
            folder = self.place / f"truth-{runtime}"
            folder.mkdir(parents=True)
            photographs = str(self.whole.photographs / "train")
            argv = ["predict", str(self.whole.export), photographs, "--runtime", runtime, "--csv", "out.csv"]
            ran = child.run(self.main, argv, folder, self.limits)
            if ran.code != 0:
                raise BrokenError(f"the whole export does not run in {runtime}:\n{ran.err}{ran.detail}")
            truth[runtime] = read_predictions(folder / "out.csv")
        if len({row["grade"] for row in truth["onnx"].values()}) < 3:
            raise BrokenError("the whole export gives fewer than three grades: other weights would not be seen")
        self.truth = truth

    def run(
        self,
        numbers: Mapping[str, Sequence[int]],
        jobs: int,
        told: Callable[[int, int], None] = lambda *_: None,
        *,
        keep: bool = False,
    ) -> list[Verdict]:
        """Run inputs, some at a time; their verdicts by kind and number. Ctrl-C ends it with those that there are.

        Args:
            numbers: which inputs of each kind.
            jobs: how many at a time.
            told: is called with how many are done and how many there are.
            keep: leave what was written.

        Raises:
            BrokenError: a command has changed a whole input.
        """
        before = world.state(self.whole)
        waiting = [(kind, number) for kind, some in numbers.items() for number in some]
        waiting.sort(key=lambda one: one[1])  # kinds take turns, since some take longer
        total, verdicts = len(waiting), []
        running: dict[int, tuple[str, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    kind, number = waiting.pop(0)
                    running[self._start(kind, number)] = kind, number
                pid, _ = os.wait()
                if pid in running:
                    kind, number = running.pop(pid)
                    verdicts += self._collect(kind, number)
                    if not keep:
                        self.clear(kind, number)
                    told(total - len(waiting) - len(running), total)
        except KeyboardInterrupt:
            pass
        finally:
            _end(list(running))
        if changed := before.items() ^ world.state(self.whole).items():
            raise BrokenError(f"a whole input was changed: {min(name for name, _ in changed)}")
        order = list(KINDS)
        return sorted(verdicts, key=lambda one: (order.index(one.kind), one.number))

    def folder(self, kind: str, number: int) -> Path:
        """Where an input is written."""
        return self.place / f"{kind}-{number}"

    def _start(self, kind: str, number: int) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            found = self._case(kind, number)
        except BaseException:  # the child must end here
            found = {"broken": traceback.format_exc()}
        with contextlib.suppress(BaseException):
            partial = self._told(kind, number).with_suffix(".partial")
            partial.write_text(json.dumps(found), encoding="utf-8")
            partial.rename(self._told(kind, number))
        os._exit(0)

    def _case(self, kind: str, number: int) -> list[dict[str, Any]]:
        """In a child: make the input, run its commands until one fails, and judge them."""
        folder = self.folder(kind, number)
        folder.mkdir(parents=True)
        os.environ["RETINA_CACHE"] = str(folder / "cache")
        given = KINDS[kind](self.whole, self.truth, folder, rng_of(self.seed, kind, number), number)
        found = []
        for at, command in enumerate(given.commands):
            ran = child.run(self.main, command.argv, folder, self.limits, folder / command.cwd)
            outcome, cause, detail = judge(command, ran)
            argv = tuple(part.encode(errors="backslashreplace").decode() for part in command.argv)
            shown = detail.replace(str(self.place), "...").replace(str(self.whole.root), "WHOLE")
            found.append(
                asdict(
                    Verdict(kind, number, _text(given.what), argv, outcome, cause, _text(shown), round(ran.seconds, 2))
                )
            )
            (folder.with_name(f"{folder.name}.ran") / f"command-{at + 1}.txt").write_text(
                f"retina {' '.join(map(repr, argv))}\n{outcome}: {cause}\nexit code {ran.code}\nchanged {ran.changed}\n"
                f"--- standard output\n{_text(ran.out)}\n--- standard error\n{_text(ran.err)}\n", encoding="utf-8",
            )  # fmt: skip
            if not ran.done and len(given.commands) > 1 and kind == "results" and command.argv[0] == "export":
                break  # what follows reads what it would have written
        return found

    def _told(self, kind: str, number: int) -> Path:
        return self.place / f"{kind}-{number}.json"

    def _collect(self, kind: str, number: int) -> list[Verdict]:
        file = self._told(kind, number)
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"broken": "the case's process died"}
        if isinstance(told, dict):
            self.broken.append(f"{kind}:{number}: {told['broken']}")
            return []
        return [Verdict(**{**one, "argv": tuple(one["argv"])}) for one in told]

    def clear(self, kind: str, number: int) -> None:
        """Remove an input and what was made of it."""
        folder = self.folder(kind, number)
        for place in (folder, folder.with_name(f"{folder.name}.ran")):
            shutil.rmtree(place, ignore_errors=True)
        self._told(kind, number).unlink(missing_ok=True)


def worst(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """The worst verdict on each input: a failure before an unclear error, that before a clear one."""
    rank = {name: at for at, name in enumerate(("crash", "hang", "traceback", "wrong result", UNCLEAR))}
    by_input: dict[tuple[str, int], Verdict] = {}
    for one in verdicts:
        key = one.kind, one.number
        if key not in by_input or rank.get(one.outcome, 9) < rank.get(by_input[key].outcome, 9):
            by_input[key] = one
    return iter(by_input.values())


def counts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Inputs by kind and class."""
    found: dict[str, dict[str, int]] = {}
    for one in worst(verdicts):
        found.setdefault(one.kind, dict.fromkeys(CLASSES, 0))[one.outcome] += 1
    return found


def _text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _end(processes: list[int]) -> None:
    """Kill processes and all that they have started."""
    for pid in processes:
        for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os.waitpid(pid, 0)


def _in_child(work: Callable[[], None], log: Path, cache: Path) -> int:
    """Do something in a forked child, so that no thread of it stays in this process; its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["RETINA_CACHE"] = str(cache)
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            work()
            code = 0
        except BaseException:  # said in the log
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
