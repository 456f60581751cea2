"""The parser of the command line: commands and their arguments."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import retina
from retina.cli import data_arguments, train_arguments
from retina.config import SyntheticConfig
from retina.errors import SpecError
from retina.system.printable import printable, truncate_lines

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take two lines."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", Path, path)

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help; exit with code 2."""
        self.exit(2, f"{self.prog}: {truncate_lines(printable(message))}\nsee {self.prog} --help\n")


def path(text: str) -> Path:
    """Return a path, which may exist or not.

    Raises:
        argparse.ArgumentTypeError: the text is empty, for example an unset shell variable, which would be the current
            folder; or no such path can exist: a name is too long, contains NUL, or is a circular link.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a path; . is the current folder")
    try:
        Path(text).stat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a path without NUL") from None
    except OSError as error:
        if error.errno in {errno.ENAMETOOLONG, errno.ELOOP}:  # other errors are reported by the command
            raise argparse.ArgumentTypeError(f"{text!r}: {error.strerror}") from None
    return Path(text)


def count(text: str) -> int:
    """Return a count.

    Raises:
        argparse.ArgumentTypeError: the text is not an integer of 1 or more.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: 1 and more")
    return int(text)


def refuse_lost_folder() -> None:
    """Raise if the current folder does not exist any more: relative paths start from it.

    Raises:
        SpecError: it was removed, or cannot be reached.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise SpecError(
            f"the current folder was removed or cannot be reached ({error.strerror}); cd to one that exists"
        ) from None


def create(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        commands: the function of each command, by its words, for example "data draw". A parsed namespace has it as
            `command`.
    """
    parser = Parser(prog="retina", description="Find the best diabetic-retinopathy grader your photographs can buy.")
    parser.add_argument("--version", action="version", version=retina.__version__)
    of_all = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    of_data: Any = None
    for words, (add_arguments, text) in _COMMANDS.items():
        parent = of_all
        if words.startswith("data "):
            if of_data is None:
                data = of_all.add_parser("data", help="draw photographs, or check and decode your own")
                of_data = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
            parent = of_data
        one = parent.add_parser(words.removeprefix("data "), help=text)
        add_arguments(one)
        one.set_defaults(command=commands[words])
    return parser


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--space", type=Path, required=True, metavar="FILE", help="the sweep file, for example sweeps/demo.yaml")
    add("--data", metavar="PATH|synthetic", help="replaces data.path of the sweep file")
    add("--results", default="results", metavar="DIR", help="folder of all sweeps (default: results)")
    add("--name", help="replaces name of the sweep file")
    add("--trials", type=int, metavar="N", help="replaces trials of the sweep file")
    change = "change any key of the sweep file: --set data.image_size=64 'parameters.epochs={values: [2]}'"
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help=change)
    add("--weights", type=Path, metavar="FILE|DIR", help="pretrained weights (default: torchvision downloads them)")
    join = "join a running Ray cluster (default: $RAY_ADDRESS, else start Ray here)"
    add("--address", metavar="auto|HOST:PORT", help=join)
    add("--resume", action="store_true", help="continue a sweep that was interrupted or killed")
    add(
        "--extend",
        type=count,
        default=0,
        metavar="N",
        help="add N trials to a sweep; the search keeps what it has learned",
    )
    add(
        "--force",
        action="store_true",
        help="continue although the sweep file, the photographs or the code have changed",
    )
    add("--dry-run", action="store_true", help="print what the sweep would do, and start nothing")
    add("--verbose", action="store_true", help="show the log output of Ray and Optuna")


def _draw_arguments(parser: argparse.ArgumentParser) -> None:
    default = SyntheticConfig()
    add = parser.add_argument
    add("folder", type=Path, help="a new folder")
    add("--photographs", type=int, default=default.photographs, metavar="N")
    add("--size", type=int, default=default.size, metavar="PIXELS", help="height of a photograph")
    add("--proportions", choices=["eyepacs", "balanced"], default=default.proportions)
    add("--seed", type=int, default=default.seed)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a results folder, for example results/demo")
    parser.add_argument("--out", type=Path, metavar="FILE", help="output file (default: RUN/report.html)")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a results folder, for example results/demo")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: RUN/export)")


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="an exported model's folder")
    add("images", nargs="+", metavar="IMAGE", help="photographs, folders of them, or globs")
    add("--csv", type=Path, metavar="FILE")
    add("--json", type=Path, metavar="FILE")
    runtime = "runtime of the model (auto: torch if there is a GPU, else onnxruntime)"
    add("--runtime", choices=["auto", "torch", "onnx"], default="auto", help=runtime)
    add("--on-bad", choices=["stop", "skip"], default="stop")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), metavar="DIR")


_COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "sweep": (_sweep_arguments, "search for the best grader (python tune_main.py is the same)"),
    "train": (train_arguments.add_arguments, "train a network with and without pretraining, and compare"),
    "data draw": (_draw_arguments, "draw fundus photographs in the layout of EyePACS"),
    "data prepare": (data_arguments.add_prepare, "check a data set and decode it into the cache"),
    "data audit": (data_arguments.add_audit, "find problems in a data set"),
    "list": (_list_arguments, "list the sweeps in a results folder: state, trials, best, age"),
    "report": (_report_arguments, "write a sweep's report.html, also while it runs"),
    "export": (_export_arguments, "write the best model as a folder that runs elsewhere"),
    "predict": (_predict_arguments, "grade photographs with an exported model"),
}
"""Function that adds the arguments of each command, and its line in the help."""
