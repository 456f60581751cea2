"""The arguments of `retina train`: the report's, short and long, with its defaults, and ours for the photographs."""

from __future__ import annotations

import argparse
from pathlib import Path

from retina.config import DataConfig, TrialConfig

NETWORKS = {"resnet18": "ResNet18", "resnet50": "ResNet50"}
DATA = "data/eyepacs"
SETTINGS = ("batch_size", "learning_rate", "epochs", "optimizer", "momentum", "weight_decay", "seed")
"""Arguments that are settings of the training run by the same name."""
DESCRIPTION = """Train a network in this process, with and without ImageNet's weights, and compare the two. The test
accuracy is followed by epoch, as the report did, but for the curves alone: the epoch whose model is kept is the best by
validation accuracy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to a command's parser."""
    parser.description = DESCRIPTION
    run, data = TrialConfig(), DataConfig()
    add = parser.add_argument
    add("-t", "--target_model", type=_arch, default="resnet18", metavar="ResNet18|ResNet50", help="(default: ResNet18)")
    _switch(parser, "-c", "--comparison", True, "train with and without pretraining, and compare")
    _switch(parser, "-p", "--pretrain", False, "with -c 0: train with pretraining")
    load = "reload the stored models and accuracies, train only what is missing, then compare and draw"
    _switch(parser, "-l", "--load", False, load)
    _switch(parser, "-s", "--show_only", False, "train nothing, only draw what is stored and print the accuracies")
    said = "(default: %(default)s)"
    add("-b", "--batch_size", type=int, default=4, metavar="N", help=said)
    add("-lr", "--learning_rate", type=float, default=1e-3, metavar="N", help=said)
    add("-e", "--epochs", type=int, default=10, metavar="N", help=said)
    add("-o", "--optimizer", default="sgd", metavar="sgd|adam|adamw", help="(default: sgd)")
    add("-m", "--momentum", type=float, default=0.9, metavar="N", help="of sgd (default: %(default)s)")
    add("-w", "--weight_decay", type=float, default=5e-4, metavar="N", help=said)
    levels = "0: only the results; 1: a line an epoch; 2: every measure of it (default: 1)"
    add("-v", "--verbosity", type=int, choices=(0, 1, 2), default=1, help=levels)
    add("--data", default=DATA, metavar="PATH|synthetic", help="the photographs (default: %(default)s)")
    size = "side of the square that the model sees (default: %(default)s)"
    add("--image-size", type=int, default=data.image_size, metavar="PIXELS", help=size)
    add("--weights", type=Path, metavar="FILE|DIR", help="pretrained weights, instead of torchvision's download")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where results/<name>/ goes")
    add(
        "--name",
        type=_name,
        metavar="NAME",
        help="(default: resnet18-comparison, or resnet18-pretrained, resnet18-scratch with -c 0)",
    )
    add("--seed", type=int, default=run.seed, metavar="N", help=said)


def name_of(options: argparse.Namespace) -> str:
    """The run's name: the given one, else one that says what is trained."""
    kind = "comparison" if options.comparison else "pretrained" if options.pretrain else "scratch"
    return options.name or f"{options.target_model}-{kind}"


def _name(text: str) -> str:
    """Refuse what would be another folder than one in the results folder."""
    if not text.strip() or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: a name, without /")
    return text


def _switch(parser: argparse.ArgumentParser, short: str, long: str, default: bool, what: str) -> None:
    said = f"{what} (default: {int(default)})"
    parser.add_argument(short, long, type=_truth, nargs="?", const=True, default=default, metavar="0|1", help=said)


def _truth(text: str) -> bool:
    """The report's command line took 0 and 1."""
    if text.lower() not in {"0", "1", "false", "true"}:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: 0, 1, false, true")
    return text.lower() in {"1", "true"}


def _arch(text: str) -> str:
    if text.lower() not in NETWORKS:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: {', '.join(NETWORKS.values())}")
    return text.lower()
