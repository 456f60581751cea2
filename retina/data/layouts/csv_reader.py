"""Label files as they are met: text in several encodings and with several separators, and spreadsheets."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import python_calamine

from retina.data.formats import is_image, suffix_of
from retina.data.layouts.grades import GradeReader, parse_grade
from retina.errors import DataError

TEXTS = {".csv", ".tsv", ".tab", ".txt"}
SPREADSHEETS = {".xls", ".xlsx", ".xlsm", ".xlsb", ".ods"}
SUFFIXES = TEXTS | SPREADSHEETS
"""Of the files that may be label files."""

_SEPARATORS = (",", ";", "\t", "|")
_MARKS = (  # the longest first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD = 2**16
_NAME_AND_GRADE = re.compile(r"(?P<name>\S.*?)[\s,;|]+(?P<grade>\S+)")

Line = tuple[int, list[str]]
"""The number of a line in its file, from 1, and its cells without the spaces around them."""


@dataclass(frozen=True)
class Table:
    """A table as it is written.

    Attributes:
        file: where it is.
        titles: the cells of its header; empty where it has none.
        lines: its rows below the header; empty ones are left out.
        legacy: whether its text is not UTF-8 and was read as Windows-1252.
        unread: of a spreadsheet, the names of further sheets with the same header; only the first sheet is read.
    """

    file: Path
    titles: list[str]
    lines: list[Line] = field(default_factory=list)
    legacy: bool = False
    unread: tuple[str, ...] = ()

    def column(self, at: int) -> list[str]:
        """The cells of one column; "" where a row ends before it."""
        return [cells[at] if at < len(cells) else "" for _, cells in self.lines]


def normalize_title(title: str) -> str:
    """The title of a column as it is compared: small letters, underscores between words."""
    return re.sub(r"[\s_-]+", "_", title.strip().lower())


def read_table(file: Path) -> Table:
    """A table with a header, or with "name grade" in each line and none.

    Raises:
        DataError: the file cannot be read; says why and what to do.
    """
    return _table(file, whole=True)


def read_head(file: Path) -> Table:
    """The header of a table, and of a text file without one its first lines.

    Raises:
        DataError: as `read_table`.
    """
    return _table(file, whole=False)


def read_column(file: Path) -> list[str]:
    """The lines of a file of one column without a header. Empty lines count, except at the end."""
    lines = [line.strip().strip('"') for line in _text(file)[0].split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _table(file: Path, *, whole: bool) -> Table:
    unread: tuple[str, ...] = ()
    if suffix_of(file.name) in SPREADSHEETS:
        (lines, unread), legacy = _spreadsheet(file), False
    else:
        text, legacy = _text(file, None if whole else _HEAD)
        if named := _names_and_grades(text):
            return Table(file, [], named, legacy)
        lines = _lines(file, text, first_only=not whole)
    if _are_names_and_grades(lines):
        return Table(file, [], lines, legacy, unread)
    return Table(file, lines[0][1] if lines else [], lines[1:], legacy, unread)


def _text(file: Path, most: int | None = None) -> tuple[str, bool]:
    """The text of a file, or its first `most` bytes; and whether it is not UTF-8 and was taken for Windows-1252."""
    try:
        with file.open("rb") as stream:
            content = stream.read() if most is None else stream.read(most)
    except OSError as error:
        raise DataError(f"{file}: cannot be read as a label file: {error.strerror}") from None
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:64]:  # UTF-16 without its mark: every other byte of plain text is 0
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    cut = most is not None and len(content) == most
    try:
        text = codecs.getincrementaldecoder(encoding or "utf-8")().decode(content, final=not cut)
    except UnicodeDecodeError as error:
        if encoding:
            said = f"its text is not whole {encoding.upper()} ({error.reason}, byte {error.start + 1:,})"
            raise DataError(f"{file}: cannot be read as a label file: {said}; save it as UTF-8") from None
        return content.decode("cp1252", errors="replace"), True
    if "\0" in text:
        raise DataError(f"{file}: cannot be read as a label file: it is no text; save the table as CSV")
    return text, False


def _lines(file: Path, text: str, *, first_only: bool = False) -> list[Line]:
    lines: list[Line] = []
    before = 0
    stream = io.StringIO(text, newline="")
    separator = _separator(text)
    if re.match(r"sep=.\r?\n", text):  # Excel's own word for the separator
        stream.readline()
        before = 1
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator == " ", strict=True)
    first = before
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((before + 1, stripped))
                if first_only:
                    break
            before = first + reader.line_num
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a label file, line {before + 1}: {error}") from None
    return lines


def _separator(text: str) -> str:
    """The character that cuts the first line that is not empty into the most cells."""
    if told := re.match(r"sep=(.)\r?\n", text):
        return told[1]
    first, *rest = [line.strip() for line in text.splitlines()[:20] if line.strip()] or [""]
    unquoted = re.sub(r'"[^"]*"', "", first)
    best = max(_SEPARATORS, key=unquoted.count)
    if best not in unquoted and len(unquoted.split()) > 1:
        return " " if {len(line.split()) for line in rest} == {len(first.split())} else best
    return best


def _names_and_grades(text: str) -> list[Line]:
    """The lines of a list without a header, "007-0004-000.jpg 2" each; empty where it is something else."""
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            match = _NAME_AND_GRADE.fullmatch(line.strip())
            lines.append((number, [match["name"].strip('"'), match["grade"].strip('"')] if match else [line.strip()]))
            if len(lines) == 1 and not _is_name_and_grade(lines[0][1]):
                return []
    return lines if _are_names_and_grades(lines) else []


def _are_names_and_grades(lines: list[Line]) -> bool:
    """Whether lines are photographs' names and grades, the first one too, rather than a header and its table.

    "name,healthy" above numbers is a header: as a row it would turn the meaning of a yes and no around.
    """
    if not lines or not _is_name_and_grade(lines[0][1]):
        return False
    if is_image(lines[0][1][0]):
        return True
    is_word = not any(map(str.isdigit, lines[0][1][1]))
    numbers = sum(any(map(str.isdigit, cells[-1])) for _, cells in lines[1:])
    if is_word and numbers >= 0.9 * (len(lines) - 1):  # the last line of a head may be cut
        return False
    labels = sum(len(cells) == 2 and _is_label(cells[1]) for _, cells in lines)
    return len(lines) > 1 and labels >= 0.9 * len(lines)


def _is_name_and_grade(cells: list[str]) -> bool:
    return len(cells) == 2 and not cells[0].isdigit() and _is_label(cells[1])


def _is_label(text: str) -> bool:
    return parse_grade(text) is not None or GradeReader({}).is_ungradable(text)


def _spreadsheet(file: Path) -> tuple[list[Line], tuple[str, ...]]:
    """Read the rows of the first sheet, and the names of further ones with the same header."""
    try:
        book = python_calamine.load_workbook(str(file))
        names = [one.name for one in book.sheets_metadata if one.typ == python_calamine.SheetTypeEnum.WorkSheet]
        rows, *further = [book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in names]
    except Exception as error:  # calamine has a kind of its own for each format
        raise DataError(
            f"{file}: cannot be read as a spreadsheet: {' '.join(str(error).split())}; save the table as CSV"
        ) from None
    lines = _filled(rows)
    same = [
        name
        for name, others in zip(names[1:], map(_filled, further), strict=True)
        if lines and others and (others[0][1] == lines[0][1] or _is_name_and_grade(others[0][1]))
    ]
    return lines, tuple(same)


def _filled(rows: Sequence[Sequence[object]]) -> list[Line]:
    lines = [(number, [_cell(cell) for cell in cells]) for number, cells in enumerate(rows, start=1)]
    return [(number, cells) for number, cells in lines if any(cells)]


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
