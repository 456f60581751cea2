"""Reader of YAML 1.2 that records the line of every key, and writer of YAML that means the same in 1.1 and 1.2.

PyYAML by itself reads YAML 1.1: `010` is 8, `1:30` is 90, `no` is false, `2026-01-01` is a date, and of two equal keys
the last wins. This module uses its scanner, parser and composer, and resolves scalars by the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema), extended by the underscores of `1_000` and the merge key `<<`, which
sweep files use.
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

from retina.errors import DISK_ERRNOS, SpecError, wrap_os_error
from retina.system.printable import truncate

KeyPath = tuple[Hashable, ...]
"""The keys and list indices that lead to a value."""

MAX_BYTES = 2**20
"""Maximum size: PyYAML reads about 100 kB a second, and a sweep file has a few kB."""
MAX_DEPTH = 40
MAX_VALUES = 50_000
"""Maximum number of values after aliases are expanded; nine nested aliases of nine each would be a billion."""
MAX_NUMBER = 1e300

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_INVALID_ESCAPE = re.compile(r"\\U(?!000[0-9a-fA-F]|0010)[0-9a-fA-F]{8}")
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
    """A dumper that quotes a text that YAML 1.1 or YAML 1.2 would resolve to something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML calls it
        """Return True, so that every value is written out instead of as an alias."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Node:
    """Quote a text with U+0085, U+2028 or U+2029: readers of YAML 1.1 fold these line breaks to spaces."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _represent_text)
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, _first)
    if _kind in {"int", "float"}:  # the other resolvers are among those of YAML 1.1
        _Dumper.add_implicit_resolver(_TAG + _kind, _pattern, _first)


@dataclass(frozen=True)
class Document:
    """The content of a YAML file.

    Attributes:
        content: None, bool, int, float, str, and dicts and lists of them. Keys may have any scalar type.
        lines: the line, from 1, of every key and every list item.
    """

    content: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line_of(self, key: KeyPath) -> int | None:
        """Return the line of `key`, else of the nearest key above it; None if there is neither."""
        lengths = range(len(key), 0, -1)
        return next((self.lines[key[:length]] for length in lengths if key[:length] in self.lines), None)


def read(file: Path) -> Document:
    """Read a YAML file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        SpecError: the file cannot be read, or is not one YAML document; names the line.
        DiskError: the disk is at fault.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            raise wrap_os_error(file, "cannot be read", error) from None
        raise SpecError(f"{file}: {error.strerror or error}") from None
    except ValueError as error:  # a file name with NUL
        raise SpecError(f"{file}: {error}") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{file}: is longer than {MAX_BYTES // 2**20} MiB; a sweep file has a few kB")
    return parse(_decode(content, file), lambda line: f"{file}:{line}")


def parse(text: str, origin_of_line: Callable[[int], str]) -> Document:
    """Parse one YAML document.

    Args:
        text: the document.
        origin_of_line: returns the name of a line, from 1, for a message.

    Raises:
        SpecError: the text is not YAML, holds several documents, an equal key twice, an application-specific tag,
            aliases that contain themselves or expand to more than `MAX_VALUES`, is nested deeper than `MAX_DEPTH`, or
            has a number outside a float's range.
    """
    try:
        _check_structure(text, origin_of_line)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; YAML is indented with spaces" if "'\\t'" in str(error.problem) else ""
        problem = " ".join(str(error.problem or error.context).split())[:160]
        raise SpecError(f"{origin_of_line(mark.line + 1 if mark else 1)}: not valid YAML: {problem}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed" if isinstance(error.character, int) else ""
        raise SpecError(f"{origin_of_line(line)}: not valid YAML: {problem or error.reason}") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        # PyYAML calls chr() with whatever number an escape holds, "\\UFFFFFFFF"
        numbered = enumerate(text.splitlines(), start=1)
        line = next((number for number, line_text in numbered if _INVALID_ESCAPE.search(line_text)), 1)
        raise SpecError(f"{origin_of_line(line)}: not valid YAML: an escape that is not a Unicode character") from None
    if node is None:
        return Document(None)
    reader = _ValueReader(origin_of_line)
    return Document(reader.value(node, ()), reader.lines)


def dump(values: Any) -> str:
    """Return `values` as YAML, with the keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _decode(content: bytes, file: Path) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise SpecError(f"{file}:{line}: is not a text file in UTF-8 ({byte}); save it as UTF-8") from None


def _check_structure(text: str, origin_of_line: Callable[[int], str]) -> None:
    """Raise if there are several documents, or nesting so deep that the composer, which is recursive, would fail."""
    documents = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise SpecError(f"{origin_of_line(line)}: a second document begins (---); a file holds one")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise SpecError(f"{origin_of_line(line)}: is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _ValueReader:
    """A converter of composed nodes to values that records the lines of their keys."""

    def __init__(self, origin_of_line: Callable[[int], str]) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._origin_of_line = origin_of_line
        self._open: set[int] = set()  # the ids of the current node's ancestors
        self._count = 0

    def value(self, node: Node, key: KeyPath) -> Any:
        """Return the value of the node at `key`."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(node, f"the file holds more than {MAX_VALUES:,} values after its aliases are expanded")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag != _TAG + ("map" if isinstance(node, MappingNode) else "seq"):
            raise self._unknown_tag(node)
        if id(node) in self._open:
            raise self._error(node, "an alias is inside its own anchor")
        if len(self._open) >= MAX_DEPTH:  # `_check_structure` examines each anchor separately
            raise self._error(node, f"is nested more than {MAX_DEPTH} levels deep after its aliases are expanded")
        self._open.add(id(node))
        try:
            return self._mapping(node, key) if isinstance(node, MappingNode) else self._sequence(node.value, key)
        finally:
            self._open.discard(id(node))

    def _sequence(self, items: list[Node], key: KeyPath) -> list[Any]:
        values = []
        for index, item in enumerate(items):
            self.lines[(*key, index)] = _line(item)
            values.append(self.value(item, (*key, index)))
        return values

    def _mapping(self, node: MappingNode, key: KeyPath) -> dict[Hashable, Any]:
        known: dict[Hashable, int] = {}
        own: list[tuple[Hashable, Node, Node]] = []
        values: dict[Hashable, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, ScalarNode):
                raise self._error(name_node, "a list or mapping cannot be a key")
            is_merge = name_node.tag == _TAG + "merge"
            name = "<<" if is_merge else self._scalar(name_node)
            line = _line(name_node)
            if name in known:
                where = "twice in this line" if known[name] == line else f"twice, first in line {known[name]}"
                shown = ".".join(str(part) for part in (*key, name))
                raise self._error(name_node, f"the key {_quote(shown)} is given {where}")
            known[name] = line
            if is_merge:
                for source in self._merged(value_node):
                    values.update(self.value(source, key))
            else:
                own.append((name, name_node, value_node))
        for name, name_node, value_node in own:  # after the merged mappings, which these override
            self.lines[(*key, name)] = _line(name_node)
            values[name] = self.value(value_node, (*key, name))
        return values

    def _merged(self, node: Node) -> Iterator[MappingNode]:
        """Yield the mappings that `<<` names; the first, which overrides the others, comes last."""
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in reversed(sources):
            if not isinstance(source, MappingNode):
                raise self._error(source, "<< takes a mapping, or a list of mappings")
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
        raise self._error(node, f"the number {_quote(text)} is too large")

    def _decimal_number(self, node: Node, text: str) -> float:
        if text.lower().endswith(("inf", "nan")):
            return float(text.replace(".", "", 1))
        number = float(self._whole_number(node, text)) if _INT.match(text) else float(text)
        mantissa = re.split("[eE]", text)[0]
        if abs(number) > MAX_NUMBER or (number == 0 and re.search("[1-9]", mantissa)):
            raise self._error(node, f"the number {_quote(text)} is too large or too small")
        return number

    def _unknown_tag(self, node: Node) -> SpecError:
        tag = str(node.tag).replace(_TAG, "!!")
        return self._error(node, f"the tag {_quote(tag)} does not fit or is not known; leave it out")

    def _error(self, node: Node, problem: str) -> SpecError:
        return SpecError(f"{self._origin_of_line(_line(node))}: {problem}")


def _line(part: Node | yaml.Event) -> int:
    """Return the line, from 1, in which a node or event begins."""
    return part.start_mark.line + 1 if part.start_mark else 1


def _quote(text: str) -> str:
    shown = text if text.isprintable() else repr(text)
    return repr(truncate(shown, 60))
