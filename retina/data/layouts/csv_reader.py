"""Reads label files: text in several encodings and with several separators, and spreadsheets."""

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
"""Suffixes of files that may be label files."""

_SEPARATORS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, whose mark is the beginning of UTF-32's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 2**16
_NAME_AND_GRADE = re.compile(r"(?P<name>\S.*?)[\s,;|]+(?P<grade>\S+)")

Line = tuple[int, list[str]]
"""The number of a line in its file, from 1, and its cells without surrounding spaces."""


@dataclass(frozen=True)
class LabelTable:
    """The cells of a label file, as written.

    Attributes:
        file: its path.
        titles: the cells of the header; empty if there is none.
        lines: the rows below the header, without empty ones.
        is_cp1252: whether the text is not UTF-8 and was read as Windows-1252.
        unread_sheets: names of a spreadsheet's further sheets with the same header; only the first sheet is read.
    """

    file: Path
    titles: list[str]
    lines: list[Line] = field(default_factory=list)
    is_cp1252: bool = False
    unread_sheets: tuple[str, ...] = ()

    def column(self, position: int) -> list[str]:
        """Return the cells of one column; "" for a row that is too short."""
        return [cells[position] if position < len(cells) else "" for _, cells in self.lines]


def normalize_title(title: str) -> str:
    """Return a column's title as titles are compared: lower case, with underscores between words."""
    return re.sub(r"[\s_-]+", "_", title.strip().lower())


def read_table(file: Path) -> LabelTable:
    """Read a table with a header, or one without a header whose lines are "name grade".

    Raises:
        DataError: if the file cannot be read; says why and what to do.
    """
    return _read_table(file, whole=True)


def read_head(file: Path) -> LabelTable:
    """Read the header of a table, or the first lines of a text file without a header.

    Raises:
        DataError: as `read_table`.
    """
    return _read_table(file, whole=False)


def read_column(file: Path) -> list[str]:
    """Read the lines of a file that has one column and no header. Empty lines count, except at the end."""
    lines = [line.strip().strip('"') for line in _read_text(file)[0].split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _read_table(file: Path, *, whole: bool) -> LabelTable:
    unread_sheets: tuple[str, ...] = ()
    if suffix_of(file.name) in SPREADSHEETS:
        (lines, unread_sheets), is_cp1252 = _read_spreadsheet(file), False
    else:
        text, is_cp1252 = _read_text(file, None if whole else _HEAD_BYTES)
        if headerless_lines := _parse_names_and_grades(text):
            return LabelTable(file, [], headerless_lines, is_cp1252)
        lines = _parse_csv(file, text, first_only=not whole)
    if _are_names_and_grades(lines):
        return LabelTable(file, [], lines, is_cp1252, unread_sheets)
    return LabelTable(file, lines[0][1] if lines else [], lines[1:], is_cp1252, unread_sheets)


def _read_text(file: Path, max_bytes: int | None = None) -> tuple[str, bool]:
    """Return the text of a file or of its first bytes, and whether it is not UTF-8 and was read as Windows-1252."""
    try:
        with file.open("rb") as stream:
            content = stream.read() if max_bytes is None else stream.read(max_bytes)
    except OSError as error:
        raise DataError(f"{file}: cannot be read as a label file: {error.strerror}") from None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:64]:  # UTF-16 without its mark: every other byte of plain text is 0
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    is_cut = max_bytes is not None and len(content) == max_bytes
    try:
        text = codecs.getincrementaldecoder(encoding or "utf-8")().decode(content, final=not is_cut)
    except UnicodeDecodeError as error:
        if encoding:
            problem = f"its text is not valid {encoding.upper()} ({error.reason}, byte {error.start + 1:,})"
            raise DataError(f"{file}: cannot be read as a label file: {problem}; save it as UTF-8") from None
        return content.decode("cp1252", errors="replace"), True
    if "\0" in text:
        raise DataError(f"{file}: cannot be read as a label file: it is not text; save the table as CSV")
    return text, False


def _parse_csv(file: Path, text: str, *, first_only: bool = False) -> list[Line]:
    lines: list[Line] = []
    last_line = 0
    stream = io.StringIO(text, newline="")
    separator = _detect_separator(text)
    if re.match(r"sep=.\r?\n", text):  # how Excel names the separator
        stream.readline()
        last_line = 1
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=separator == " ", strict=True)
    skipped_lines = last_line
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((last_line + 1, stripped))
                if first_only:
                    break
            last_line = skipped_lines + reader.line_num
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a label file, line {last_line + 1}: {error}") from None
    return lines


def _detect_separator(text: str) -> str:
    """Return the character that splits the first line that is not empty into the most cells."""
    if declaration := re.match(r"sep=(.)\r?\n", text):
        return declaration[1]
    first, *rest = [line.strip() for line in text.splitlines()[:20] if line.strip()] or [""]
    unquoted = re.sub(r'"[^"]*"', "", first)
    best = max(_SEPARATORS, key=unquoted.count)
    if best not in unquoted and len(unquoted.split()) > 1:
        return " " if {len(line.split()) for line in rest} == {len(first.split())} else best
    return best


def _parse_names_and_grades(text: str) -> list[Line]:
    """Return the lines of a list without a header, each "007-0004-000.jpg 2"; empty if the text is no such list."""
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            match = _NAME_AND_GRADE.fullmatch(line.strip())
            lines.append((number, [match["name"].strip('"'), match["grade"].strip('"')] if match else [line.strip()]))
            if len(lines) == 1 and not _is_name_and_grade(lines[0][1]):
                return []
    return lines if _are_names_and_grades(lines) else []


def _are_names_and_grades(lines: list[Line]) -> bool:
    """Return whether all lines, the first included, are names and grades, so that there is no header.

    "name,healthy" above numbers is a header: as a row, it would invert the meaning of a yes-or-no column.
    """
    if not lines or not _is_name_and_grade(lines[0][1]):
        return False
    if is_image(lines[0][1][0]):
        return True
    is_first_a_word = not any(map(str.isdigit, lines[0][1][1]))
    n_numbers = sum(any(map(str.isdigit, cells[-1])) for _, cells in lines[1:])
    if is_first_a_word and n_numbers >= 0.9 * (len(lines) - 1):  # the last line of a head may be cut
        return False
    n_labels = sum(len(cells) == 2 and _is_label(cells[1]) for _, cells in lines)
    return len(lines) > 1 and n_labels >= 0.9 * len(lines)


def _is_name_and_grade(cells: list[str]) -> bool:
    return len(cells) == 2 and not cells[0].isdigit() and _is_label(cells[1])


def _is_label(text: str) -> bool:
    return parse_grade(text) is not None or GradeReader({}).is_ungradable(text)


def _read_spreadsheet(file: Path) -> tuple[list[Line], tuple[str, ...]]:
    """Return the rows of the first sheet, and the names of further sheets with the same header."""
    try:
        workbook = python_calamine.load_workbook(str(file))
        names = [
            sheet.name for sheet in workbook.sheets_metadata if sheet.typ == python_calamine.SheetTypeEnum.WorkSheet
        ]
        rows, *further_sheets = [workbook.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in names]
    except Exception as error:  # calamine raises a different type for each format
        raise DataError(
            f"{file}: cannot be read as a spreadsheet: {' '.join(str(error).split())}; save the table as CSV"
        ) from None
    lines = _nonempty_lines(rows)
    similar_sheets = [
        name
        for name, sheet in zip(names[1:], map(_nonempty_lines, further_sheets), strict=True)
        if lines and sheet and (sheet[0][1] == lines[0][1] or _is_name_and_grade(sheet[0][1]))
    ]
    return lines, tuple(similar_sheets)


def _nonempty_lines(rows: Sequence[Sequence[object]]) -> list[Line]:
    lines = [(number, [_cell_text(value) for value in values]) for number, values in enumerate(rows, start=1)]
    return [(number, cells) for number, cells in lines if any(cells)]


def _cell_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
