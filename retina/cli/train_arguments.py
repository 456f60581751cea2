"""The arguments of `retina train`: those of the course report's script, with its defaults, and some for the dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from retina.config import DataConfig, TrialConfig

NETWORKS = {"resnet18": "ResNet18", "resnet50": "ResNet50"}
DATA = "data/eyepacs"
SETTINGS = ("batch_size", "learning_rate", "epochs", "optimizer", "momentum", "weight_decay", "seed")
"""Arguments that have the names of the `TrialConfig` fields that they set."""
DESCRIPTION = """Train a network in this process, with and without ImageNet's weights, and compare the two. The test
accuracy of each epoch is recorded, as in the report, but for the curves only: the epoch whose model is kept is the best
by validation accuracy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a command's parser."""
    parser.description = DESCRIPTION
    trial, data = TrialConfig(), DataConfig()
    add = parser.add_argument
    add(
        "-t",
        "--target_model",
        type=_parse_arch,
        default="resnet18",
        metavar="ResNet18|ResNet50",
        help="(default: ResNet18)",
    )
    _switch(parser, "-c", "--comparison", True, "train with and without pretraining, and compare")
    _switch(parser, "-p", "--pretrain", False, "with -c 0: train with pretraining")
    load = "reload the stored models and accuracies, train only what is missing, then compare and draw"
    _switch(parser, "-l", "--load", False, load)
    _switch(parser, "-s", "--show_only", False, "train nothing, only draw what is stored and print the accuracies")
    default = "(default: %(default)s)"
    add("-b", "--batch_size", type=int, default=4, metavar="N", help=default)
    add("-lr", "--learning_rate", type=float, default=1e-3, metavar="N", help=default)
    add("-e", "--epochs", type=int, default=10, metavar="N", help=default)
    add("-o", "--optimizer", default="sgd", metavar="sgd|adam|adamw", help="(default: sgd)")
    add("-m", "--momentum", type=float, default=0.9, metavar="N", help="of sgd (default: %(default)s)")
    add("-w", "--weight_decay", type=float, default=5e-4, metavar="N", help=default)
    levels = "0: only the results; 1: a line per epoch; 2: every metric of each epoch (default: 1)"
    add("-v", "--verbosity", type=int, choices=(0, 1, 2), default=1, help=levels)
    add("--data", default=DATA, metavar="PATH|synthetic", help="dataset (default: %(default)s)")
    size = "side of the square that the model gets as input (default: %(default)s)"
    add("--image-size", type=int, default=data.image_size, metavar="PIXELS", help=size)
    add("--weights", type=Path, metavar="FILE|DIR", help="pretrained weights, instead of torchvision's download")
    add(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder in which <name>/ is written (default: %(default)s)",
    )
    add(
        "--name",
        type=_parse_name,
        metavar="NAME",
        help="(default: resnet18-comparison, or resnet18-pretrained, resnet18-scratch with -c 0)",
    )
    add("--seed", type=int, default=trial.seed, metavar="N", help=default)


def name_of(options: argparse.Namespace) -> str:
    """Return the run's name: --name, or else the network and its pretraining."""
    kind = "comparison" if options.comparison else "pretrained" if options.pretrain else "scratch"
    return options.name or f"{options.target_model}-{kind}"


def _parse_name(text: str) -> str:
    """Return `text`; raise if it cannot be the name of a folder in the results folder."""
    if not text.strip() or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a name, without /")
    return text


def _switch(parser: argparse.ArgumentParser, short: str, long: str, default: bool, description: str) -> None:
    """Add an option with the value 0 or 1; without a value it is 1."""
    text = f"{description} (default: {int(default)})"
    parser.add_argument(
        short, long, type=_parse_switch, nargs="?", const=True, default=default, metavar="0|1", help=text
    )


def _parse_switch(text: str) -> bool:
    """Return a switch's value: 0 and 1, as in the report's script, or true and false."""
    if text.lower() not in {"0", "1", "false", "true"}:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: 0, 1, false, true")
    return text.lower() in {"1", "true"}


def _parse_arch(text: str) -> str:
    """Return the architecture that `text` names, in any capitals."""
    if text.lower() not in NETWORKS:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: {', '.join(NETWORKS.values())}")
    return text.lower()
