"""Changes of a label list, each with what is right for it."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from typing import Any

from benchmarks.robustness.case import Rng, pick
from benchmarks.robustness.datasets import DataSet

Change = Callable[[DataSet, Rng], str]

NO_GRADES = (
    "0-1", "12", "text", "NaN", "", "5", "-1", "1.5", "2,0", "1e0", "0x1", "True", "?", "3;", "2.0.0", "1 2", "11",
    "inf", "9" * 400, "\x1b[2J", "4%", "grade", "None of these", "[2]", "½", "0/1",
)  # fmt: skip
"""What is no grade, whoever reads it."""
SAME_GRADES: tuple[Callable[[str], str], ...] = (
    lambda grade: f"{grade}.0", lambda grade: f"0{grade}", lambda grade: f" {grade} ", lambda grade: f'"{grade}"',
    lambda grade: f"{grade}.00", lambda grade: f"000{grade}",
)  # fmt: skip
OUTSIDE = (
    "../{}", "/etc/{}", "..\\{}", "C:\\{}", "a/../../{}", "\\\\host\\{}", "~/{}", "file:///{}", "./../{}", "{}\x00",
    "https://example.org/{}",
)  # fmt: skip
STRANGE = ("", " ", "\x1b[2J{}", "{}\x07", "\u202e{}", "x" * 300, "x" * 5000, ".", "..", "{}/", "nan", "[red]{}", "%s")


def _row(dataset: DataSet, rng: Rng) -> int:
    return int(rng.integers(len(dataset.rows)))


def _drop_column(dataset: DataSet, rng: Rng) -> str:
    column = int(rng.integers(2))
    name = dataset.header.pop(column)
    for row in dataset.rows:
        row.pop(column)
    dataset.hopeless = f"the column {name} is gone"
    return dataset.hopeless


def _rename_column(dataset: DataSet, rng: Rng) -> str:
    column = int(rng.integers(2))
    names = (("name", "filename", "id", "Image", "foo", " image "), ("grade", "label", "dr", "bar", "LEVEL", "class"))[
        column
    ]
    was, dataset.header[column] = dataset.header[column], pick(rng, names)
    return f"the column {was} is called {dataset.header[column]!r}"


def _reorder_columns(dataset: DataSet, rng: Rng) -> str:
    order = rng.permutation(len(dataset.header))
    dataset.header = [dataset.header[at] for at in order]
    dataset.rows = [[row[at] for at in order] for row in dataset.rows]
    return f"columns in the order {', '.join(dataset.header)}"


def _column_twice(dataset: DataSet, rng: Rng) -> str:
    dataset.header.append(dataset.header[1])
    for row in dataset.rows:
        row.append(str((int(row[1]) + 1) % 5))
    dataset.hopeless = "the grade's column is there twice, with other grades"
    return dataset.hopeless


def _more_columns(dataset: DataSet, rng: Rng) -> str:
    dataset.header += ["", "note", "quality"]
    for at, row in enumerate(dataset.rows):
        row += ["", "seen", str(at % 2)]
    return "three more columns"


def _row_twice(dataset: DataSet, rng: Rng) -> str:
    at = _row(dataset, rng)
    dataset.rows.append(list(dataset.rows[at]))
    dataset.unused, dataset.bad = 1, "a row is there twice"
    return f"row {at + 1} twice"


def _row_twice_other_grade(dataset: DataSet, rng: Rng) -> str:
    at = _row(dataset, rng)
    dataset.take_out(at)
    again = list(dataset.rows[at])
    again[1] = str((int(again[1]) + 1) % 5)
    dataset.rows.append(again)
    dataset.bad = "a photograph has two grades"
    return f"row {at + 1} twice, with two grades"


def _rows_gone(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(1, 8))
    del dataset.rows[-number:]
    dataset.right()
    dataset.unused = number
    return f"{number} photographs are not listed"


def _cut(dataset: DataSet, rng: Rng) -> str:
    text = dataset.text()
    body = text.index("\n") + 1
    at = body + int(rng.integers((len(text) - body) // 2, len(text) - body - 1))
    dataset.content = text[:at].encode()
    partial = text[:at].rpartition("\n")[2]
    rows = text[body:at].count("\n")
    whole = bool(partial) and partial.split(",") in dataset.rows
    dataset.unused = len(dataset.rows) - rows - whole
    del dataset.rows[rows + whole :]
    dataset.right()
    if partial and not whole and len(dataset.header) == 2:
        dataset.bad = "the last row is not whole"
    elif partial and not whole:
        dataset.by_grade = None
    return f"cut to {at} of {len(text)} bytes"


def _separator(dataset: DataSet, rng: Rng) -> str:
    dataset.separator = pick(rng, (";", "\t", "|", ", ", " ", ":"))
    return f"separated by {dataset.separator!r}"


def _encoding(dataset: DataSet, rng: Rng) -> str:
    dataset.encoding = pick(rng, ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"))
    return f"in {dataset.encoding}"


def _line_ends(dataset: DataSet, rng: Rng) -> str:
    dataset.end = pick(rng, ("\r\n", "\r", "\n\n", " \n", "\n\r\n", ",\n", ",,,,\n"))
    return f"lines end with {dataset.end!r}"


def _nul(dataset: DataSet, rng: Rng) -> str:
    text = dataset.text()
    at = int(rng.integers(len(text)))
    dataset.content = (text[:at] + "\x00" + text[at:]).encode()
    if text[:at].count("\n"):
        dataset.bad = "a NUL in a row"
        dataset.by_grade = None
    return f"a NUL at {at}"


def _quote(dataset: DataSet, rng: Rng) -> str:
    text = dataset.text()
    at = int(rng.integers(text.index("\n") + 1, len(text)))
    dataset.content = (text[:at] + '"' + text[at:]).encode()
    dataset.by_grade, dataset.unused = None, 1
    dataset.bad = "a stray quote" if text[at - 1] in ",\n" else ""
    if text[at - 1] not in ",\n" or at == len(text):
        dataset.bad, dataset.unused = "", 0
    return f"a quote at {at}"


def _no_grade(dataset: DataSet, rng: Rng) -> str:
    at = _row(dataset, rng)
    dataset.take_out(at)
    dataset.rows[at][1] = pick(rng, NO_GRADES)
    if "," in dataset.rows[at][1]:
        dataset.rows[at][1] = f'"{dataset.rows[at][1]}"'
    dataset.bad = f"the grade {dataset.rows[at][1][:20]!r}"
    return f"row {at + 1}: {dataset.bad}"


def _no_grades(dataset: DataSet, rng: Rng) -> str:
    """All grades in another scale."""
    shift = int(rng.integers(1, 3))
    for row in dataset.rows:
        row[1] = str(int(row[1]) + shift)
    dataset.by_grade, dataset.unused, dataset.bad = None, 1, f"grades of {shift} to {shift + 4}"
    return dataset.bad


def _same_grades(dataset: DataSet, rng: Rng) -> str:
    write: Any = pick(rng, SAME_GRADES)
    for row in dataset.rows:
        row[1] = write(row[1])
    return f"grades written as {write('2')!r}"


def _grade_words(dataset: DataSet, rng: Rng) -> str:
    words = pick(
        rng, (("none", "mild", "moderate", "severe", "proliferative"), ("No DR", "Mild", "Moderate", "Severe", "PDR"))
    )
    for row in dataset.rows:
        row[1] = words[int(row[1])]
    return f"grades as words: {words}"


def _other_digits(dataset: DataSet, rng: Rng) -> str:
    zero = pick(rng, (0x0660, 0xFF10, 0x0966))
    at = _row(dataset, rng)
    dataset.rows[at][1] = chr(zero + int(dataset.rows[at][1]))
    return f"row {at + 1}: the grade {dataset.rows[at][1]!r}"


def _name_outside(dataset: DataSet, rng: Rng) -> str:
    at = _row(dataset, rng)
    dataset.take_out(at)
    dataset.rows[at][0] = pick(rng, OUTSIDE).format(dataset.rows[at][0])
    dataset.bad = "a name that leads out of the folder"
    return f"row {at + 1}: the name {dataset.rows[at][0]!r}"


def _name_strange(dataset: DataSet, rng: Rng) -> str:
    at = _row(dataset, rng)
    dataset.take_out(at)
    dataset.rows[at][0] = pick(rng, STRANGE).format(dataset.rows[at][0])
    dataset.bad = "a name without a photograph"
    return f"row {at + 1}: the name {dataset.rows[at][0][:40]!r}"


def _backslashes(dataset: DataSet, rng: Rng) -> str:
    for row in dataset.rows:
        row[0] = f"{dataset.photographs.name}\\{row[0]}"
    return "names with a folder and a backslash"


def _suffixes(dataset: DataSet, rng: Rng) -> str:
    suffix = pick(rng, (".jpg", ".png", ".JPEG", ".tif", ".jpeg"))
    for row in dataset.rows:
        row[0] = row[0].removesuffix(".jpeg") + suffix
    return f"names with {suffix}"


def _capitals(dataset: DataSet, rng: Rng) -> str:
    for row in dataset.rows:
        row[0] = row[0].upper()
    return "names in capitals"


def _normal_forms(dataset: DataSet, rng: Rng) -> str:
    """The list has the composed form of a name, the disk the decomposed one; or the other way round."""
    forms = ("NFC", "NFD") if rng.random() < 0.5 else ("NFD", "NFC")
    for row in dataset.rows[:3]:
        stem = row[0].removesuffix(".jpeg")
        file = dataset.photographs / f"{stem}.jpeg"
        patient, _, eye = stem.partition("_")
        file.rename(file.with_name(unicodedata.normalize(forms[1], f"{patient}é_{eye}.jpeg")))
        row[0] = unicodedata.normalize(forms[0], row[0].replace("_", "é_", 1))
    return f"three names in {forms[0]} in the list, in {forms[1]} on the disk"


def _huge_cell(dataset: DataSet, rng: Rng) -> str:
    at, column = _row(dataset, rng), int(rng.integers(2))
    dataset.take_out(at)
    dataset.rows[at][column] = "z" * pick(rng, (140_000, 3_000_000))
    dataset.bad = "a cell of 140,000 characters and more"
    return f"row {at + 1}, column {column}: {dataset.bad}"


def _split_words(dataset: DataSet, rng: Rng) -> str:
    word = pick(rng, ("eval", "holdout", "TRAIN ", "dev", "fold1", "0", "val/test", "nan", "\x1b[2J", "public"))
    if "split" not in dataset.header:
        dataset.header.append("split")
        for row in dataset.rows:
            row.append("train")
    column = dataset.header.index("split")
    at = _row(dataset, rng)
    dataset.rows[at][column] = word
    if word in {"fold1", "0", "val/test", "\x1b[2J"}:
        dataset.take_out(at)
        dataset.bad = f"the split {word!r}"
    elif dataset.by_grade:
        dataset.by_grade = None
    return f"row {at + 1}: the split {word!r}"


def _missing_photographs(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(1, 6))
    for at in rng.choice(len(dataset.rows), number, replace=False):
        dataset.take_out(int(at))
        (dataset.photographs / f"{dataset.rows[at][0].removesuffix('.jpeg')}.jpeg").unlink()
    dataset.bad = f"{number} photographs are missing"
    return dataset.bad


def _all_missing(dataset: DataSet, rng: Rng) -> str:
    for file in dataset.photographs.glob("*.jpeg"):
        file.unlink()
    dataset.hopeless = "no photograph is there"
    return dataset.hopeless


def _no_header(dataset: DataSet, rng: Rng) -> str:
    dataset.header = []
    return "without a header"


def _lines_between(dataset: DataSet, rng: Rng) -> str:
    line = pick(rng, ("# a comment", "   ", ",", ",,,", "image,level", "total,30"))
    text = dataset.text().splitlines(keepends=True)
    text.insert(int(rng.integers(1, len(text))), f"{line}\n")
    dataset.content = "".join(text).encode()
    dataset.by_grade = None
    return f"a line {line!r}"


def _other_content(dataset: DataSet, rng: Rng) -> str:
    contents = (
        b"", b"\n", dataset.text().split("\n")[0].encode() + b"\n", b"\xff\xfe\xfd" * 100, b"PK\x03\x04" + bytes(500),
        b"<html></html>", bytes(2000), b"\xef\xbb\xbf",
    )  # fmt: skip
    dataset.content = contents[int(rng.integers(len(contents)))]
    dataset.hopeless = "a list without rows"
    return f"its content is {dataset.content[:20]!r}"


def _no_file(dataset: DataSet, rng: Rng) -> str:
    if rng.random() < 0.5:
        dataset.file.mkdir()
        dataset.hopeless = "a folder in the place of the list"
    else:
        dataset.file.symlink_to(dataset.file.name)
        dataset.hopeless = "a list that links to itself"
    return dataset.hopeless


def _bytes_changed(dataset: DataSet, rng: Rng) -> str:
    data = bytearray(dataset.text().encode())
    at = int(rng.integers(len(data)))
    data[at] ^= int(rng.integers(1, 256))
    dataset.content = bytes(data)
    dataset.by_grade = None
    return f"byte {at} flipped"


def _copies_beside(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(3, 10))
    place = dataset.root / pick(rng, ("train_augmented", "backup", "test", ".hidden", "extra"))
    place.mkdir(exist_ok=True)
    for row in dataset.rows[:number]:
        stem = row[0].removesuffix(".jpeg")
        shutil.copyfile(dataset.photographs / f"{stem}.jpeg", place / f"augmented_{stem}.jpeg")
    dataset.unused = 0 if place.name.startswith(".") else number
    return f"{number} photographs that no list names, in {place.name}"


def _same_name_twice(dataset: DataSet, rng: Rng) -> str:
    place = dataset.root / "test"
    place.mkdir(exist_ok=True)
    row, other = dataset.rows[0], dataset.rows[1]
    shutil.copyfile(
        dataset.photographs / f"{other[0].removesuffix('.jpeg')}.jpeg", place / f"{row[0].removesuffix('.jpeg')}.jpeg"
    )
    dataset.take_out(0)
    dataset.bad = "a name that two photographs have"
    return dataset.bad


LISTS: tuple[Change, ...] = (
    _drop_column, _rename_column, _reorder_columns, _column_twice, _more_columns, _row_twice, _row_twice_other_grade,
    _rows_gone, _cut, _separator, _encoding, _line_ends, _nul, _quote, _no_grade, _no_grades, _same_grades,
    _grade_words, _other_digits, _name_outside, _name_strange, _backslashes, _suffixes, _capitals, _normal_forms,
    _huge_cell, _split_words, _missing_photographs, _all_missing, _no_header, _lines_between, _other_content, _no_file,
    _bytes_changed, _copies_beside, _same_name_twice, _no_grade, _no_grade,
)  # fmt: skip
