"""Read YAML as version 1.2 means it, with the line of every key; write YAML that 1.1 and 1.2 read alike.

PyYAML by itself reads YAML 1.1: `010` is 8, `1:30` is 90, `no` is false, `2026-01-01` is a date, and of two equal keys
the last wins. Its scanner, parser and composer are used here; what a scalar means is decided by the core schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), to which the underscores of `1_000` and the merge key `<<` are
added, since sweep files have them.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from retina.errors import DISK_ERRNOS, SpecError, as_disk_error
from retina.system.printable import cut

Key = tuple[Hashable, ...]
"""Where a value stands: the keys, and the places in lists, that lead to it."""

MAX_BYTES = 2**20
"""PyYAML reads about 100 kB a second; a file that is larger is no sweep file."""
MAX_DEPTH = 40
MAX_VALUES = 50_000
"""Values that a file may hold once its aliases are expanded; nine nested ones of nine aliases would be a billion."""
MAX_NUMBER = 1e300

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_NO_CHARACTER = re.compile(r"\\U(?!000[0-9a-fA-F]|0010)[0-9a-fA-F]{8}")
_RESOLVERS: list[tuple[str, re.Pattern[str], list[str]]] = [
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<$"), ["<"]),
]


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with the implicit tags of YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """Quotes a text that YAML 1.1 or YAML 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML calls it
        """Write a value out wherever it stands."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Node:
    """Quote a text with U+0085, U+2028 or U+2029: readers of YAML 1.1 fold these bare line breaks to spaces."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _represent_text)
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, _first)
    if _kind in {"int", "float"}:  # the others are among those of YAML 1.1
        _Dumper.add_implicit_resolver(_TAG + _kind, _pattern, _first)


@dataclass(frozen=True)
class Document:
    """The content of a YAML file.

    Attributes:
        content: None, bool, int, float, str, and dicts and lists of them. Keys need not be text.
        lines: the line, from 1, of every key and every item of a list.
    """

    content: Any
    lines: dict[Key, int] = field(default_factory=dict)

    def line_of(self, key: Key) -> int | None:
        """Return the line of `key`, else of the nearest key above it; None if there is neither."""
        lengths = range(len(key), 0, -1)
        return next((self.lines[key[:length]] for length in lengths if key[:length] in self.lines), None)


def read(file: Path) -> Document:
    """Read a YAML file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        SpecError: it cannot be read, or is not one YAML document; names the line.
        DiskError: the disk is at fault.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            raise as_disk_error(file, "cannot be read", error) from None
        raise SpecError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:  # a name with NUL
        raise SpecError(f"{file}: {error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{file}: is longer than {MAX_BYTES // 2**20} MiB; a sweep file has a few kB")
    return parse(_decoded(content, file), lambda line: f"{file}:{line}")


def parse(text: str, place: Callable[[int], str]) -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        place: names a line, from 1, for a message.

    Raises:
        SpecError: not YAML, several documents, an equal key twice, a tag of a program's own, aliases that contain
            themselves or expand to more than `MAX_VALUES`, deeper than `MAX_DEPTH`, or a number beyond a float's range.
    """
    try:
        _check_shape(text, place)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; YAML is indented with spaces" if "'\\t'" in str(error.problem) else ""
        problem = " ".join(str(error.problem or error.context).split())[:160]
        raise SpecError(f"{place(mark.line + 1 if mark else 1)}: no valid YAML: {problem}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed" if isinstance(error.character, int) else ""
        raise SpecError(f"{place(line)}: no valid YAML: {problem or error.reason}") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        # PyYAML asks chr() for whatever an escape says, "\\UFFFFFFFF"
        line = next((n for n, one in enumerate(text.splitlines(), start=1) if _NO_CHARACTER.search(one)), 1)
        raise SpecError(f"{place(line)}: no valid YAML: an escape that is no character of Unicode") from None
    if node is None:
        return Document(None)
    reader = _Values(place)
    return Document(reader.value(node, ()), reader.lines)


def dump(values: Any) -> str:
    """Write `values` as YAML, keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _decoded(content: bytes, file: Path) -> str:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise SpecError(f"{file}:{line}: is not a text file in UTF-8 ({byte}); save it as UTF-8") from None


def _check_shape(text: str, place: Callable[[int], str]) -> None:
    """Refuse several documents, and what is nested so deeply that the composer, which is recursive, would fail."""
    documents = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise SpecError(f"{place(line)}: a second document begins (---); a file holds one")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise SpecError(f"{place(line)}: is nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Values:
    """Turns composed nodes into values and notes the lines of their keys."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.lines: dict[Key, int] = {}
        self._place = place
        self._open: set[int] = set()  # the nodes above the one in hand
        self._count = 0

    def value(self, node: Node, key: Key) -> Any:
        """Return the value of a node that stands at `key`."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._refused(node, f"with its aliases expanded the file holds more than {MAX_VALUES:,} values")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag != _TAG + ("map" if isinstance(node, MappingNode) else "seq"):
            raise self._unknown_tag(node)
        if id(node) in self._open:
            raise self._refused(node, "an alias stands inside its own anchor")
        if len(self._open) >= MAX_DEPTH:  # `_check_shape` has seen each anchor by itself
            raise self._refused(node, f"is nested more than {MAX_DEPTH} deep, its aliases expanded")
        self._open.add(id(node))
        try:
            return self._mapping(node, key) if isinstance(node, MappingNode) else self._sequence(node.value, key)
        finally:
            self._open.discard(id(node))

    def _sequence(self, items: list[Node], key: Key) -> list[Any]:
        values = []
        for place, item in enumerate(items):
            self.lines[(*key, place)] = _line(item)
            values.append(self.value(item, (*key, place)))
        return values

    def _mapping(self, node: MappingNode, key: Key) -> dict[Hashable, Any]:
        seen: dict[Hashable, int] = {}
        own: list[tuple[Hashable, Node, Node]] = []
        values: dict[Hashable, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, ScalarNode):
                raise self._refused(name_node, "a list or mapping cannot be a key")
            is_merge = name_node.tag == _TAG + "merge"
            name = "<<" if is_merge else self._scalar(name_node)
            line = _line(name_node)
            if name in seen:
                where = "twice in this line" if seen[name] == line else f"twice, first in line {seen[name]}"
                shown = ".".join(str(part) for part in (*key, name))
                raise self._refused(name_node, f"the key {_short(shown)} stands {where}")
            seen[name] = line
            if is_merge:
                for source in self._merged(value_node):
                    values.update(self.value(source, key))
            else:
                own.append((name, name_node, value_node))
        for name, name_node, value_node in own:  # after what is merged, which they override
            self.lines[(*key, name)] = _line(name_node)
            values[name] = self.value(value_node, (*key, name))
        return values

    def _merged(self, node: Node) -> Iterator[MappingNode]:
        """Yield the mappings that `<<` names, the first, which overrides the others, last."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in reversed(sources):
            if not isinstance(source, MappingNode):
                raise self._refused(source, "<< takes a mapping, or a list of mappings")
            yield source

    def _scalar(self, node: ScalarNode) -> Any:
        text = node.value
        if node.tag == _TAG + "str":
            return text
        if node.tag == _TAG + "null":
            return None
        if node.tag == _TAG + "bool" and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        if node.tag == _TAG + "int" and _INT.match(text):
            return self._whole_number(node, text)
        if node.tag == _TAG + "float" and (_FLOAT.match(text) or _INT.match(text)):
            return self._decimal_number(node, text)
        if node.tag == _TAG + "merge":
            return text
        raise self._unknown_tag(node)

    def _whole_number(self, node: Node, text: str) -> int:
        digits = text.replace("_", "")
        if len(digits) <= math.log10(MAX_NUMBER):
            number = int(digits, {"0o": 8, "0x": 16}.get(digits[:2], 10))
            if abs(number) <= MAX_NUMBER:
                return number
        raise self._refused(node, f"{_short(text)} is too large a number")

    def _decimal_number(self, node: Node, text: str) -> float:
        if text.lower().endswith(("inf", "nan")):
            return float(text.replace(".", "", 1))
        number = float(self._whole_number(node, text)) if _INT.match(text) else float(text)
        mantissa = re.split("[eE]", text)[0]
        if abs(number) > MAX_NUMBER or (number == 0 and re.search("[1-9]", mantissa)):
            raise self._refused(node, f"{_short(text)} is too large or too small a number")
        return number

    def _unknown_tag(self, node: Node) -> SpecError:
        tag = str(node.tag).replace(_TAG, "!!")
        return self._refused(node, f"the tag {_short(tag)} does not fit or is not known; leave it out")

    def _refused(self, node: Node, problem: str) -> SpecError:
        return SpecError(f"{self._place(_line(node))}: {problem}")


def _line(part: Node | yaml.Event) -> int:
    """Return the line, from 1, in which a part of the document begins."""
    return part.start_mark.line + 1 if part.start_mark else 1


def _short(text: str) -> str:
    shown = text if text.isprintable() else repr(text)
    return repr(cut(shown, 60))
