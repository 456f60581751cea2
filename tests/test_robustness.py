"""The mutation test itself: whether it finds faults that are planted, and makes the same inputs again."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.robustness import campaign, damage, process
from benchmarks.robustness.campaign import KINDS, Campaign
from benchmarks.robustness.case import (
    CLEAR,
    CRASH,
    HANG,
    RIGHT,
    TRACEBACK,
    UNCLEAR,
    WRONG,
    Command,
    Verdict,
    must_be_refused,
    rng_of,
)
from benchmarks.robustness.classify import classify
from benchmarks.robustness.oracle import P, finds, predicts, prepares
from benchmarks.robustness.process import Limits
from benchmarks.robustness.world import World
from retina import cli
from retina.config import SyntheticConfig
from retina.data import synthetic

LIMITS = Limits(seconds=120)
ROW = {
    "image": "eye.png",
    "grade": "2",
    "name": "moderate",
    "referable_score": "0.9",
    "referable": "True",
    "problem": "",
}
ROW |= dict.fromkeys(P, "0.1") | {"p2": "0.6"}


def outcome(
    main: process.Main, folder: Path, command: Command | None = None, limits: Limits = LIMITS
) -> tuple[str, str]:
    """The class and the cause of what a planted command does with a photograph in `folder`."""
    (folder / "eye.png").write_bytes(b"a photograph")
    command = command or Command(("eye.png",), writes=("out.csv",), names=("eye.png",))
    return classify(command, process.run(main, command.argv, folder, limits))[:2]


def says(code: int, err: str = "", out: str = "") -> process.Main:
    def main(_: Sequence[str]) -> int:
        sys.stdout.write(out)
        sys.stderr.write(err)
        return code

    return main


def writes(text: str, name: str = "out.csv") -> process.Main:
    def main(_: Sequence[str]) -> int:
        Path(name).write_text(text, encoding="utf-8")
        return 0

    return main


def raises(_: Sequence[str]) -> int:
    return int({}["a key"])


def sleeps(_: Sequence[str]) -> int:
    time.sleep(60)
    return 0


def dies(_: Sequence[str]) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def asks_for_help(_: Sequence[str]) -> int:
    sys.exit("eye.png: is no photograph")


def warns(_: Sequence[str]) -> int:
    warnings.warn("a library's own words", UserWarning, stacklevel=1)
    return 0


def takes_memory(_: Sequence[str]) -> int:
    return len(np.ones(3 * 2**30, np.uint8)) * 0


def test_a_clean_answer_is_no_failure(tmp_path: Path) -> None:
    assert outcome(says(0, out="graded\n"), tmp_path) == (RIGHT, "")
    assert outcome(says(2, "eye.png: is no photograph; allowed: JPEG, PNG\n"), tmp_path) == (CLEAR, "")
    assert outcome(asks_for_help, tmp_path) == (CLEAR, "")
    listed = "".join(f"  {number}.png: cannot be read\n" for number in range(10))
    assert outcome(says(2, f"eye.png and more cannot be read:\n{listed}  ... and 5 more\n"), tmp_path) == (CLEAR, "")


def test_a_planted_traceback_is_found(tmp_path: Path) -> None:
    found, cause = outcome(raises, tmp_path)
    assert found == TRACEBACK
    assert cause.startswith("KeyError at ")
    caught = "eye.png\nTraceback (most recent call last):\n  File x\nValueError: no\n"
    assert outcome(says(2, caught), tmp_path)[0] == TRACEBACK
    assert outcome(says(0, caught), tmp_path)[0] == TRACEBACK


def test_a_planted_hang_and_crash_are_found(tmp_path: Path) -> None:
    assert outcome(sleeps, tmp_path, limits=Limits(seconds=0.5)) == (HANG, "no end")
    assert outcome(dies, tmp_path) == (CRASH, "SIGSEGV")
    assert outcome(says(3), tmp_path) == (CRASH, "exit code 3")


def test_taking_all_memory_is_found(tmp_path: Path) -> None:
    found, cause = outcome(takes_memory, tmp_path, limits=Limits(memory=2**30))
    assert found == TRACEBACK
    assert "Memory" in cause


@pytest.mark.parametrize(
    ("err", "cause"),
    [
        ("", "an error without a message"),
        ("eye.png: 1\neye.png: 2\neye.png: 3\neye.png: 4\n", "too long: # lines"),
        ("eye.png: KeyError: 'grade'\n", "an internal message: KeyError:"),
        ("cannot be used\n", "names neither file nor argument"),
        ("eye.png: \x1b[2J is no grade\n", "control character U+#B on standard error"),
        ("eye.png: Unable to allocate 9 GiB\n", "not checked before memory or disk is used: Unable to allocate"),
        ("eye.png: " + "x" * 3000, "a line of more than # characters"),
    ],
)
def test_an_unclear_error_is_found(err: str, cause: str, tmp_path: Path) -> None:
    assert outcome(says(2, err), tmp_path) == (UNCLEAR, cause)


def test_what_libraries_say_by_themselves_is_found(tmp_path: Path) -> None:
    assert outcome(warns, tmp_path) == (UNCLEAR, "a library's message")
    assert outcome(says(0, "[W:onnxruntime:x] a warning\n"), tmp_path)[0] == UNCLEAR
    assert outcome(says(0, out="graded \x1b[31mred\n"), tmp_path)[0] == UNCLEAR


def test_files_that_are_left_or_changed_are_found(tmp_path: Path) -> None:
    assert outcome(writes("x", ".out.csv.17.partial"), tmp_path) == (WRONG, "left over")
    (tmp_path / ".out.csv.17.partial").unlink()
    assert outcome(writes("x", "eye.png"), tmp_path) == (WRONG, "changed a file that is not its own: eye.png")

    def half(_: Sequence[str]) -> int:
        Path("out.csv").write_text("half", encoding="utf-8")
        sys.stderr.write("eye.png: is no photograph\n")
        return 2

    assert outcome(half, tmp_path) == (WRONG, "changed after an error: out.csv")


def test_an_input_that_must_be_refused_and_is_taken_is_wrong(tmp_path: Path) -> None:
    command = Command(("eye.png",), check=must_be_refused("the grade 12"), names=("eye.png",))
    assert outcome(says(0), tmp_path, command) == (WRONG, "accepted: the grade #")
    assert outcome(says(2, "eye.png: the grade is 12\n"), tmp_path, command) == (CLEAR, "")


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, ""),
        ({"p2": "0.6005"}, ""),
        ({"p2": "nan"}, "probabilities"),
        (dict.fromkeys(P, "nan") | {"grade": "0", "name": "none"}, "probabilities"),
        ({"grade": "4"}, "grade 4, right is 2"),
        ({"name": "mild"}, "name mild, right is moderate"),
        ({"p2": "0.5", "p0": "0.2"}, "a probability is off by 0.1"),
        ({"referable": "False"}, "referable False, right is True"),
        ({"grade": "", "problem": "cannot be read"}, "grade none, right is 2"),
    ],
)
def test_a_wrong_grade_is_found(changed: dict[str, str], wrong: str, tmp_path: Path) -> None:
    row = {**ROW, **changed}
    command = Command(("eye.png",), ("out.csv",), predicts(tmp_path / "out.csv", {"eye.png": ROW}))
    ran = process.run(writes(f"{','.join(row)}\n{','.join(row.values())}\n"), command.argv, tmp_path, LIMITS)
    found, _, detail = classify(command, ran)
    assert found == (WRONG if wrong else RIGHT)
    assert detail.startswith(wrong)


def test_nan_that_is_shown_is_found(tmp_path: Path) -> None:
    assert outcome(says(0, out=" eye.png  0  none  nan \n"), tmp_path) == (WRONG, "NaN or infinity in the output")
    assert outcome(says(0, out="nan.png is an info\n"), tmp_path) == (RIGHT, "")


def test_photographs_that_are_lost_are_found() -> None:
    table = "    train   5   1   1   1   1   1\n    val   1   0   0   1   0   0\n    test   0   0   0   0   0   0\n"
    ran = process.CommandResult(code=0, out=table)
    assert prepares([1, 1, 2, 1, 1])(ran) == ""
    assert "counts [1, 1, 2, 1, 1]" in prepares([1, 1, 2, 1, 2])(ran)
    assert "says nothing of 3" in prepares([1, 1, 2, 1, 1], unused=3)(ran)
    assert prepares([1, 1, 2, 1, 1], unused=3)(process.CommandResult(code=0, out=f"{table}note: 3 are not used")) == ""
    assert "finds 5" in finds(6)(process.CommandResult(code=0, out="photographs: 5 photographs in set\n"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Drawn photographs; of the models and sweeps files of the right names and formats, which no test here runs."""
    root = tmp_path_factory.mktemp("whole")
    world = World(root)
    synthetic.draw(world.photographs, SyntheticConfig(photographs=30, size=64, proportions="balanced"), workers=1)
    noise = np.random.default_rng(0).integers(0, 256, 2000, dtype="uint8").tobytes()
    table = "trial_id,state,epoch\nt0000,COMPLETE,1\nt0001,RUNNING,2\n"
    texts = {".csv": table, ".json": '{"a": [1, 2.5], "b": {"c": "x"}}', ".yaml": "name: x\n", ".txt": "x\n"}
    files = [
        "config.json",
        "preprocess.json",
        "metrics.json",
        "MODEL_CARD.md",
        "model.onnx",
        "model.safetensors",
        "model.pt2",
    ]
    runs = [
        "trials.csv",
        "history.csv",
        "study.db",
        "sweep.yaml",
        "environment.json",
        "best/metrics.json",
        "best/config.json",
    ]
    runs += ["best/predictions.csv", "best/model.pt", "trials/t0001/config.json", "trials/t0000/log.txt"]
    places = [(folder, files) for folder in ("export", "other")]
    places += [(folder, runs) for folder in ("results/finished", "results/stopped", "another")]
    for file in (root / folder / name for folder, names in places for name in names):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(texts[file.suffix].encode() if file.suffix in texts else noise)
    return world


def truth(world: World) -> campaign.Truth:
    return {runtime: {file.name: ROW for file in world.files()} for runtime in ("onnx", "torch")}


def run(main: process.Main, whole: World, place: Path, numbers: dict[str, Sequence[int]], **how: int) -> list[Verdict]:
    place.mkdir()
    some = Campaign(main, place, whole, how.get("seed", 0), LIMITS)
    some.truth = truth(whole)
    found = some.run(numbers, how.get("jobs", 1))
    assert not some.broken
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_the_same_again(kind: str, whole: World, tmp_path: Path) -> None:
    """Whatever was made before it; and another seed makes another one."""

    def made(name: str, seed: int, numbers: Sequence[int]) -> list[tuple[object, ...]]:
        found = []
        for number in sorted(numbers, reverse=name == "again"):
            folder = tmp_path / name / str(number)
            folder.mkdir(parents=True)
            given = KINDS[kind](whole, truth(whole), folder, rng_of(seed, kind, number), number)
            argv = [str(part).replace(str(folder), "") for command in given.commands for part in command.argv]
            found.append((number, given.what, argv, process.snapshot(folder)))
        return sorted(found, key=lambda one: int(str(one[0])))

    numbers = range(12)
    first, again = made("first", 3, numbers), made("again", 3, numbers)
    assert [one[:3] for one in first] == [one[:3] for one in again]
    assert [_without_times(one[3]) for one in first] == [_without_times(one[3]) for one in again]
    assert [one[1] for one in first] != [one[1] for one in made("other", 4, numbers)]


def _without_times(files: object) -> object:
    """A sweep file names the folder that it lies in."""
    assert isinstance(files, dict)
    return {name: state for name, state in files.items() if not name.endswith(".yaml")}


def test_verdicts_depend_neither_on_order_nor_on_jobs(whole: World, tmp_path: Path) -> None:
    numbers = {"sweep": range(8), "npz": range(6)}
    main = says(2, "x.yaml, eyes.npz: cannot be used\n")
    one = run(main, whole, tmp_path / "one", numbers)
    two = run(main, whole, tmp_path / "two", dict(reversed(numbers.items())), jobs=2)
    assert [(v.kind, v.number, v.what, v.argv, v.outcome) for v in one] == [
        (v.kind, v.number, v.what, v.argv, v.outcome) for v in two
    ]
    assert {v.outcome for v in one} == {CLEAR}
    assert campaign.counts(one)["sweep"][CLEAR] == 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_that_takes_everything_for_good_is_found(kind: str, whole: World, tmp_path: Path) -> None:
    """Or one that fails at everything."""
    bad = campaign.counts(run(raises, whole, tmp_path / "raises", {kind: range(3)}))
    assert bad == {kind: {**dict.fromkeys(bad[kind], 0), TRACEBACK: 3}}
    if kind != "commands":  # whose arguments may be right by chance
        good = campaign.counts(run(says(0), whole, tmp_path / "good", {kind: range(6)}))
        assert good[kind][WRONG] > 0


@pytest.mark.parametrize("name", ["lists", "npz", "sweep"])
def test_what_is_whole_is_right(name: str, whole: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real command: an oracle that finds fault with whole inputs would find nothing."""
    for module in ("retina.data.dataset", "retina.audit.page", "retina.sweep.ray_session"):
        importlib.import_module(module)  # here, else each child imports torch and Ray for itself
    unchanged: dict[str, Callable[[], None]] = {
        "lists": lambda: monkeypatch.setattr("benchmarks.robustness.lists.LISTS", (lambda *_: "",)),
        "npz": lambda: monkeypatch.setattr("benchmarks.robustness.arrays.CHANGES", (lambda *_: "",)),
        "sweep": lambda: monkeypatch.setattr("benchmarks.robustness.sweepfiles._scalar", _same_sweep),
    }
    unchanged[name]()
    monkeypatch.setattr("benchmarks.robustness.lists.FOLDERS", (lambda *_: "",))
    verdicts = run(cli.main, whole, tmp_path / "run", {name: range(1 if name == "sweep" else 2)})
    assert {(one.outcome, one.cause) for one in verdicts} == {(RIGHT, "")}


def _same_sweep(*_: object) -> object:
    from benchmarks.robustness import sweepfiles

    return sweepfiles.WHOLE.encode(), "", sweepfiles._is_the_whole_one


def test_damage_never_writes_into_a_link(tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text('{"a": 1}', encoding="utf-8")
    for number in range(24):
        link = tmp_path / "link.json"
        link.unlink(missing_ok=True)
        link.hardlink_to(tmp_path / "whole.json")
        rng = np.random.default_rng(number)
        damage.change_json(link, rng, number) if number % 2 else damage.damage_bytes(link, rng, number)
        assert (tmp_path / "whole.json").read_text(encoding="utf-8") == '{"a": 1}'
