"""The raw values of a sweep file with the command line's changes, and the origin of each value."""

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
"""Keys of a parameter that are removed when `--set` gives it another form."""


class RawSweep:
    """The raw values of a sweep, each with its origin: a line of the file, or a command-line argument."""

    def __init__(self, values: dict[str, Any], file: Path, lines: dict[yaml_reader.KeyPath, int]) -> None:
        self.values = values
        self._file = str(file)
        self._origins = {key: f"{file}:{line}" for key, line in lines.items()}

    @classmethod
    def read(cls, file: Path) -> RawSweep:
        """Read a sweep file; `name` defaults to the file's name.

        Raises:
            SpecError: the file cannot be read, is not YAML, or does not hold keys.
        """
        if str(file) == ".":  # Path("") is "." too
            raise SpecError("--space: allowed: a sweep file, such as sweeps/demo.yaml")
        if file.is_dir():
            raise SpecError(f"--space {file}: is a folder; allowed: a sweep file, such as sweeps/demo.yaml")
        document = yaml_reader.read(file)
        if document.content is None:
            raise SpecError(f"{file}: is empty; a sweep file must hold keys such as parameters")
        if not isinstance(document.content, dict):
            raise SpecError(f"{file}: is not a sweep file; it must hold keys such as parameters")
        raw = cls(document.content, file, document.lines)
        if "run_cap" in raw.values and "trials" not in raw.values:  # the W&B key for the same setting
            raw.values["trials"] = raw.values.pop("run_cap")
            raw._origins[("trials",)] = raw.origin_of(("run_cap",))
        raw.values.setdefault("name", file.stem)
        return raw

    def origin_of(self, key: tuple[Hashable, ...]) -> str:
        """Return the origin of the value at `key`: the line of its key, or of the nearest key above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self._origins:
                return self._origins[key[:length]]
        return self._file

    def replace(self, key: str, value: Any) -> None:
        """Set a top-level key to the value of the command-line option of the same name."""
        self._set((key,), value, f"--{key} {value}")

    def replace_data(self, path: str) -> None:
        """Set the photographs' path; their layout is then detected again, the rest of `data` stays.

        Raises:
            SpecError: `data` is neither a mapping nor a path, for example a list, which would be lost silently.
        """
        if isinstance(self.values.get("data"), str):  # a path, which is replaced
            self.values["data"] = {}
        self._set(("data", "layout"), "auto", f"--data {path}")
        self._set(("data", "path"), path, f"--data {path}")

    def override(self, text: str) -> None:
        """Apply a `--set KEY=VALUE`, with a dotted key and a YAML value.

        Raises:
            SpecError: the key is missing, or the value is not YAML.
        """
        dotted, separator, value_text = text.partition("=")
        key = tuple(part.strip() for part in dotted.split("."))
        origin = f"--set {truncate(text, 120)}"
        if not separator or not all(key):
            raise SpecError(f"{origin}: allowed: KEY=VALUE, such as data.image_size=64")
        value = yaml_reader.parse(value_text, lambda _: origin).content
        if key[0] == "parameters" and len(key) == 2 and not isinstance(value, dict):
            raise SpecError(f"{origin}: a parameter is written as a mapping, such as {dotted}={{value: {value_text}}}")
        self._set(key, value, origin)

    def _set(self, key: tuple[str, ...], value: Any, origin: str) -> None:
        mapping = self.values
        for depth, part in enumerate(key[:-1], start=1):
            child = mapping.setdefault(part, {})
            if child is None:
                child = mapping[part] = {}
            if not isinstance(child, dict):
                parent = ".".join(key[:depth])
                shown = truncate(repr(child), 60)
                raise SpecError(f"{origin}: {parent} is {shown} ({self.origin_of(key[:depth])}), not a mapping of keys")
            if not child:
                self._origins[key[:depth]] = origin
            mapping = child
        if key[0] == "parameters":
            for other in _REPLACES.get(key[-1], ()):
                mapping.pop(other, None)
        mapping[key[-1]] = value
        self._origins = {known: source for known, source in self._origins.items() if known[: len(key)] != key}
        self._origins[key] = origin
