"""The arguments of `retina data prepare` and `retina data audit`, and their `DataConfig`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from retina.config import DataConfig, parse, yaml_reader
from retina.errors import SpecError
from retina.system.printable import truncate

_SHOWN = 120
"""Most characters of a --set that a message quotes."""


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prepare`."""
    add = parser.add_argument
    add("path", help="a folder, a label file or an npz file")
    add("--layout", default="auto")
    add("--image-size", type=int, default=224, metavar="PIXELS")
    add("--on-bad", choices=["stop", "skip"], default="stop")
    _add_set(parser)


def add_audit(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `audit`."""
    add = parser.add_argument
    add("path", help="a folder, a label file or an npz file; the photographs may be absent")
    add("--html", type=Path, metavar="FILE", help="output page (default: audit-NAME.html in the current folder)")
    add("--layout", default="auto")
    add("--image-size", type=int, default=224, metavar="PIXELS", help="least diameter of a disc (default: 224)")
    add("--seed", type=int, default=0, help="seed of the sample of photographs on the page")
    _add_set(parser)


def config_of(options: argparse.Namespace, where: str) -> DataConfig:
    """Return the checked `DataConfig` of the arguments of `prepare` or `audit`.

    Raises:
        SpecError: naming `where`, the key, the value and what is allowed.
    """
    keys = ("path", "layout", "image_size", "on_bad", "seed")
    wish = {key: getattr(options, key) for key in keys if hasattr(options, key)}
    for override in options.overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise SpecError(f"--set {override}: allowed: KEY=VALUE, such as data.grade_column=level")
        wish[key.removeprefix("data.")] = yaml_reader.parse(text, partial(_place, override)).content
    return parse(DataConfig, wish, where)


def _place(override: str, _: int) -> str:
    return f"--set {truncate(override, _SHOWN)}"


def _add_set(parser: argparse.ArgumentParser) -> None:
    change = "set any key of data in a sweep file: --set data.grade_column=dr 'data.grade_mapping={5: ungradable}'"
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help=change
    )
