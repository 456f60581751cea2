"""Creation, execution and classification of all inputs of a run, each in a process of its own, several in parallel."""

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
from benchmarks.robustness.classify import classify
from benchmarks.robustness.oracle import Prediction, read_predictions
from benchmarks.robustness.process import Limits, Main
from benchmarks.robustness.world import World

Truth = Mapping[str, Mapping[str, Prediction]]
"""Predictions of the intact export for each photograph, by runtime and file name."""
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
    """The benchmark itself does not work: intact inputs cannot be read, or one of them was changed."""


def import_package() -> Main:
    """Import the whole package and its lazy imports; return the package's command."""
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
    """Return the number of inputs of each kind; they differ by one at most."""
    return {kind: total // len(kinds) + (index < total % len(kinds)) for index, kind in enumerate(kinds)}


class Campaign:
    """A run of the mutation test: the intact inputs, their true predictions, and the folder of the changed inputs."""

    def __init__(self, main: Main, root: Path, whole: World, seed: int, limits: Limits) -> None:
        self.main, self.root, self.whole, self.seed, self.limits = main, root, whole, seed, limits
        self.truth: Truth = {}
        self.broken: list[str] = []  # inputs that could not be created or classified

    def prepare(self) -> None:
        """Create the intact inputs if they do not exist, and grade the photographs with both runtimes.

        Raises:
            BrokenError: the inputs cannot be created or graded.
        """
        if not (self.whole.root / "whole").is_file():
            self.whole.root.mkdir(parents=True, exist_ok=True)
            log = self.root / "world.log"
            if _in_child(lambda: world.make(self.whole.root), log, self.root / "cache"):
                raise BrokenError(
                    f"the intact inputs cannot be created:\n{log.read_text(encoding='utf-8', errors='replace')}"
                )
            (self.whole.root / "whole").touch()
        truth = {}
        for runtime in ("onnx", "torch"):
            folder = self.root / f"truth-{runtime}"
            folder.mkdir(parents=True)
            photographs = str(self.whole.photographs / "train")
            argv = ["predict", str(self.whole.export), photographs, "--runtime", runtime, "--csv", "out.csv"]
            result = child.run(self.main, argv, folder, self.limits)
            if result.code != 0:
                raise BrokenError(f"the intact export does not run in {runtime}:\n{result.err}{result.detail}")
            truth[runtime] = read_predictions(folder / "out.csv")
        if len({row["grade"] for row in truth["onnx"].values()}) < 3:
            raise BrokenError("the intact export predicts fewer than three grades: other weights would go unnoticed")
        self.truth = truth

    def run(
        self,
        numbers: Mapping[str, Sequence[int]],
        jobs: int,
        progress: Callable[[int, int], None] = lambda *_: None,
        *,
        keep: bool = False,
    ) -> list[Verdict]:
        """Run inputs in parallel; return their verdicts by kind and number, or those so far after Ctrl-C.

        Args:
            numbers: numbers of the inputs by kind.
            jobs: number of concurrent inputs.
            progress: called with the number of finished inputs and the total.
            keep: keep the inputs and outputs on the disk.

        Raises:
            BrokenError: a command has changed an intact input.
        """
        before = world.state(self.whole)
        waiting = [(kind, number) for kind, some in numbers.items() for number in some]
        waiting.sort(key=lambda item: item[1])  # the kinds alternate, since some take longer
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
                    progress(total - len(waiting) - len(running), total)
        except KeyboardInterrupt:
            pass
        finally:
            _kill(list(running))
        if changed := before.items() ^ world.state(self.whole).items():
            raise BrokenError(f"an intact input was changed: {min(name for name, _ in changed)}")
        order = list(KINDS)
        return sorted(verdicts, key=lambda verdict: (order.index(verdict.kind), verdict.number))

    def folder(self, kind: str, number: int) -> Path:
        """Return the folder of an input."""
        return self.root / f"{kind}-{number}"

    def _start(self, kind: str, number: int) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            answer: Any = self._case(kind, number)
        except BaseException:  # the child must end here
            answer = {"broken": traceback.format_exc()}
        with contextlib.suppress(BaseException):
            partial = self._answer_file(kind, number).with_suffix(".partial")
            partial.write_text(json.dumps(answer), encoding="utf-8")
            partial.rename(self._answer_file(kind, number))
        os._exit(0)

    def _case(self, kind: str, number: int) -> list[dict[str, Any]]:
        """Create the input in a child process, run its commands until one fails, and classify the results."""
        folder = self.folder(kind, number)
        folder.mkdir(parents=True)
        os.environ["RETINA_CACHE"] = str(folder / "cache")
        given = KINDS[kind](self.whole, self.truth, folder, rng_of(self.seed, kind, number), number)
        verdicts = []
        for index, command in enumerate(given.commands):
            result = child.run(self.main, command.argv, folder, self.limits, folder / command.cwd)
            outcome, cause, detail = classify(command, result)
            argv = tuple(part.encode(errors="backslashreplace").decode() for part in command.argv)
            shown = detail.replace(str(self.root), "...").replace(str(self.whole.root), "WHOLE")
            seconds = round(result.seconds, 2)
            verdict = Verdict(kind, number, _text(given.what), argv, outcome, cause, _text(shown), seconds)
            verdicts.append(asdict(verdict))
            (folder.with_name(f"{folder.name}.ran") / f"command-{index + 1}.txt").write_text(
                f"retina {' '.join(map(repr, argv))}\n{outcome}: {cause}\n"
                f"exit code {result.code}\nchanged {result.changed}\n"
                f"--- standard output\n{_text(result.out)}\n--- standard error\n{_text(result.err)}\n",
                encoding="utf-8",
            )  # fmt: skip
            if not result.done and len(given.commands) > 1 and kind == "results" and command.argv[0] == "export":
                break  # the next commands read the files that it would have written
        return verdicts

    def _answer_file(self, kind: str, number: int) -> Path:
        return self.root / f"{kind}-{number}.json"

    def _collect(self, kind: str, number: int) -> list[Verdict]:
        file = self._answer_file(kind, number)
        answer = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"broken": "its process died"}
        if isinstance(answer, dict):
            self.broken.append(f"{kind}:{number}: {answer['broken']}")
            return []
        return [Verdict(**{**values, "argv": tuple(values["argv"])}) for values in answer]

    def clear(self, kind: str, number: int) -> None:
        """Remove an input and its output."""
        folder = self.folder(kind, number)
        for path in (folder, folder.with_name(f"{folder.name}.ran")):
            shutil.rmtree(path, ignore_errors=True)
        self._answer_file(kind, number).unlink(missing_ok=True)


def worst(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """Yield the worst verdict on each input: a failure ranks before an unclear error, and that before a clear one."""
    rank = {name: index for index, name in enumerate(("crash", "hang", "traceback", "wrong result", UNCLEAR))}
    by_input: dict[tuple[str, int], Verdict] = {}
    for verdict in verdicts:
        key = verdict.kind, verdict.number
        if key not in by_input or rank.get(verdict.outcome, 9) < rank.get(by_input[key].outcome, 9):
            by_input[key] = verdict
    return iter(by_input.values())


def counts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Return the number of inputs by kind and class."""
    numbers: dict[str, dict[str, int]] = {}
    for verdict in worst(verdicts):
        numbers.setdefault(verdict.kind, dict.fromkeys(CLASSES, 0))[verdict.outcome] += 1
    return numbers


def _text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _kill(processes: list[int]) -> None:
    """Kill processes and their descendants."""
    for pid in processes:
        for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os.waitpid(pid, 0)


def _in_child(work: Callable[[], None], log: Path, cache: Path) -> int:
    """Call `work` in a forked child, so that none of its threads stays in this process; return the exit code."""
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
        except BaseException:  # written to the log
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
