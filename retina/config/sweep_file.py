"""A sweep file before it is checked: its values, the command line's changes to them, and where each came from."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from retina.config import yaml_reader
from retina.errors import SpecError
from retina.system.printable import truncate

_REPLACES = {
    "value": ("values", "ordered", "distribution", "min", "max", "step"),
    "values": ("value", "distribution", "min", "max", "step"),
    "distribution": ("value", "values", "ordered"),
}
"""Which keys of a parameter make room when `--set` gives it another shape."""


class RawSweep:
    """The raw values of a sweep, each with its origin: a line of the file, or an argument of the command line."""

    def __init__(self, values: dict[str, Any], file: Path, lines: dict[yaml_reader.KeyPath, int]) -> None:
        self.values = values
        self._file = str(file)
        self._origins = {key: f"{file}:{line}" for key, line in lines.items()}

    @classmethod
    def read(cls, file: Path) -> RawSweep:
        """Read a sweep file; its name is the file's where it gives none.

        Raises:
            SpecError: it cannot be read, is no YAML, or holds no keys.
        """
        if str(file) == ".":  # also what an empty argument becomes
            raise SpecError("--space: allowed: a sweep file, such as sweeps/demo.yaml")
        if file.is_dir():
            raise SpecError(f"--space {file}: is a folder; allowed: a sweep file, such as sweeps/demo.yaml")
        document = yaml_reader.read(file)
        if document.content is None:
            raise SpecError(f"{file}: is empty; a sweep file must hold keys such as parameters")
        if not isinstance(document.content, dict):
            raise SpecError(f"{file}: is not a sweep file; it must hold keys such as parameters")
        raw = cls(document.content, file, document.lines)
        if "run_cap" in raw.values and "trials" not in raw.values:  # W&B's word for the same
            raw.values["trials"] = raw.values.pop("run_cap")
            raw._origins[("trials",)] = raw.place(("run_cap",))
        raw.values.setdefault("name", file.stem)
        return raw

    def place(self, key: tuple[Hashable, ...]) -> str:
        """Name where the value at `key` came from: the line of its key, or of the nearest key above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self._origins:
                return self._origins[key[:length]]
        return self._file

    def replace(self, key: str, value: Any) -> None:
        """Give a top-level key the value of the option of its name."""
        self._put((key,), value, f"--{key} {value}")

    def replace_data(self, path: str) -> None:
        """Take the photographs from `path`, whose layout is then found anew; the rest of `data` stays.

        Raises:
            SpecError: `data` is neither keys nor a path: a list of them, say, would be lost without a word.
        """
        if isinstance(self.values.get("data"), str):  # a path, which is what gets replaced
            self.values["data"] = {}
        self._put(("data", "layout"), "auto", f"--data {path}")
        self._put(("data", "path"), path, f"--data {path}")

    def override(self, text: str) -> None:
        """Apply a `--set KEY=VALUE`, the key dotted, the value YAML.

        Raises:
            SpecError: it has no key, or its value is no YAML.
        """
        dotted, separator, written = text.partition("=")
        key = tuple(part.strip() for part in dotted.split("."))
        place = f"--set {truncate(text, 120)}"
        if not separator or not all(key):
            raise SpecError(f"{place}: allowed: KEY=VALUE, such as data.image_size=64")
        value = yaml_reader.parse(written, lambda _: place).content
        if key[0] == "parameters" and len(key) == 2 and not isinstance(value, dict):
            raise SpecError(f"{place}: a parameter needs a shape, such as {dotted}={{value: {written}}}")
        self._put(key, value, place)

    def _put(self, key: tuple[str, ...], value: Any, origin: str) -> None:
        holder = self.values
        for depth, part in enumerate(key[:-1], start=1):
            there = holder.setdefault(part, {})
            if there is None:
                there = holder[part] = {}
            if not isinstance(there, dict):
                above = ".".join(key[:depth])
                shown = truncate(repr(there), 60)
                raise SpecError(f"{origin}: {above} is {shown} ({self.place(key[:depth])}), not keys and their values")
            if not there:
                self._origins[key[:depth]] = origin
            holder = there
        if key[0] == "parameters":
            for other in _REPLACES.get(key[-1], ()):
                holder.pop(other, None)
        holder[key[-1]] = value
        self._origins = {known: place for known, place in self._origins.items() if known[: len(key)] != key}
        self._origins[key] = origin
