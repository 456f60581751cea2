"""Changes to a label list, its columns, its text and its photographs, each with the expected results."""

from __future__ import annotations

import shutil

from benchmarks.robustness.case import Rng, pick
from benchmarks.robustness.datasets import DataSet
from benchmarks.robustness.rowchanges import ROWS, Change


def _drop_column(dataset: DataSet, rng: Rng) -> str:
    column = int(rng.integers(2))
    name = dataset.header.pop(column)
    for row in dataset.rows:
        row.pop(column)
    dataset.always_refused = f"the column {name} is gone"
    return dataset.always_refused


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
    dataset.always_refused = "the grade's column is there twice, with other grades"
    return dataset.always_refused


def _more_columns(dataset: DataSet, rng: Rng) -> str:
    dataset.header += ["", "note", "quality"]
    for at, row in enumerate(dataset.rows):
        row += ["", "checked", str(at % 2)]
    return "three more columns"


def _rows_gone(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(1, 8))
    del dataset.rows[-number:]
    dataset.count_rows()
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
    dataset.count_rows()
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


def _missing_photographs(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(1, 6))
    for at in rng.choice(len(dataset.rows), number, replace=False):
        dataset.exclude(int(at))
        (dataset.photographs / f"{dataset.rows[at][0].removesuffix('.jpeg')}.jpeg").unlink()
    dataset.bad = f"{number} photographs are missing"
    return dataset.bad


def _all_missing(dataset: DataSet, rng: Rng) -> str:
    for file in dataset.photographs.glob("*.jpeg"):
        file.unlink()
    dataset.always_refused = "no photograph is there"
    return dataset.always_refused


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
    dataset.always_refused = "a list without rows"
    return f"its content is {dataset.content[:20]!r}"


def _no_file(dataset: DataSet, rng: Rng) -> str:
    if rng.random() < 0.5:
        dataset.file.mkdir()
        dataset.always_refused = "a folder instead of the list"
    else:
        dataset.file.symlink_to(dataset.file.name)
        dataset.always_refused = "a list that links to itself"
    return dataset.always_refused


def _bytes_changed(dataset: DataSet, rng: Rng) -> str:
    data = bytearray(dataset.text().encode())
    at = int(rng.integers(len(data)))
    data[at] ^= int(rng.integers(1, 256))
    dataset.content = bytes(data)
    dataset.by_grade = None
    return f"byte {at} flipped"


def _copies_beside(dataset: DataSet, rng: Rng) -> str:
    number = int(rng.integers(3, 10))
    folder = dataset.root / pick(rng, ("train_augmented", "backup", "test", ".hidden", "extra"))
    folder.mkdir(exist_ok=True)
    for row in dataset.rows[:number]:
        stem = row[0].removesuffix(".jpeg")
        shutil.copyfile(dataset.photographs / f"{stem}.jpeg", folder / f"augmented_{stem}.jpeg")
    dataset.unused = 0 if folder.name.startswith(".") else number
    return f"{number} photographs that no list names, in {folder.name}"


def _same_name_twice(dataset: DataSet, rng: Rng) -> str:
    folder = dataset.root / "test"
    folder.mkdir(exist_ok=True)
    row, other = dataset.rows[0], dataset.rows[1]
    shutil.copyfile(
        dataset.photographs / f"{other[0].removesuffix('.jpeg')}.jpeg", folder / f"{row[0].removesuffix('.jpeg')}.jpeg"
    )
    # a list that is named after the folder "train" means the photograph there
    if "train" in dataset.file.stem.lower() and dataset.photographs.name == "train":
        dataset.unused = 1
    else:
        dataset.exclude(0)
        dataset.bad = "a name that two photographs have"
    return dataset.bad


LISTS: tuple[Change, ...] = (
    *ROWS, _drop_column, _rename_column, _reorder_columns, _column_twice, _more_columns, _rows_gone, _cut, _separator,
    _encoding, _line_ends, _nul, _quote, _missing_photographs, _all_missing, _no_header, _lines_between,
    _other_content, _no_file, _bytes_changed, _copies_beside, _same_name_twice,
)  # fmt: skip
