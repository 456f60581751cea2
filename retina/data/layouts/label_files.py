"""The layouts of label files: which files below the data folder are label files, and which of them belong together."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from retina.config import DataConfig
from retina.config.splits import SPLITS
from retina.data.formats import is_image, own_name, suffix_of
from retina.data.layouts import columns, split_words
from retina.data.layouts.columns import Columns
from retina.data.layouts.csv_reader import SUFFIXES, Table, plain, read_head, read_table
from retina.data.layouts.file_index import Place, Tree
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.label_rows import rows_of
from retina.data.layouts.locate import locate
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import Labels, Row
from retina.errors import DataError

__all__ = ["LabelFiles", "NoLabelsError", "Place", "find", "not_labels"]

_log = logging.getLogger(__name__)

_NO_LABELS = re.compile(r"sample.?submission|submission|_upload\b", re.IGNORECASE)
"""Forms to be filled in, which have the columns of a label file and grades that nobody gave."""
_MANY = 50
"""Tables in a folder from which on its text files are no label files: there is one for each photograph."""
_SMALL = 2**14
"""Bytes up to which a table may be a legend of the grades, or notes."""
_BARE_NUMBER = re.compile(r"[\d.,]+")
_SOLUTION = "retinopathy_solution"
_IDRID = re.compile(r"[ab]\. IDRiD_Disease Grading_(Training|Testing) Labels", re.IGNORECASE)
_OWN_SCALE = "Messidor grades 0 to 3 by a scale of its own, which is not that of 0 to 4 (data.grade_mapping)"
_LIKELY = re.compile(r"label|grade|grading|diagnos|annotation|solution|ground.?truth", re.IGNORECASE)


@dataclass(frozen=True)
class LabelFiles:
    """The label files that are read together.

    Attributes:
        name: the public set whose files they are, or "list".
        labels: their rows.
        notes: what a person should know of them.
        are_strangers: whether they have neither a header nor the names of photographs, of which there are others: notes
            of two words a line look so.
    """

    name: str
    labels: list[Labels]
    notes: list[str]
    are_strangers: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A file that may be a label file; `is_sure` if its header, or its lines without one, say that it is.

    `is_stranger`: see `LabelFiles.are_strangers`. `source` is what messages call it: its name, or where several have
    that its path.
    """

    file: Path
    split: str
    is_sure: bool
    is_stranger: bool = False
    source: str = ""


@dataclass(frozen=True)
class _LabelFile:
    """One label file, read. `source` is what messages call it."""

    file: Path
    source: str
    split: str
    titles: list[str]
    rows: list[Row]
    choices: list[str] = field(default_factory=list)

    @property
    def grades(self) -> dict[str, str]:
        """The grades by the photographs' names, as text."""
        return {own_name(row.name).casefold(): row.grade for row in self.rows if row.name}


def find(
    tree: Tree, place: Place, config: DataConfig, reader: GradeReader, index: PhotographIndex | None
) -> LabelFiles | None:
    """The label files that the user pointed at, or those nearest to the top of the folder; None where there are none.

    Args:
        tree: the folders.
        place: what the user pointed at.
        config: the user's own choice of columns.
        reader: tells grades.
        index: the photographs that are there; None where they may be absent.

    Raises:
        DataError: a file cannot be read, lacks a column that the user named, or several files could be meant.
        NoLabelsError: the only table has no columns of known names, and its content does not tell either.
    """
    if place.file:
        if suffix_of(place.file.name) not in SUFFIXES:
            return None
        wanted = [
            _Candidate(place.file, _split_of_name(place.file), is_sure=True),
            *_companions(tree, place.file, config),
        ]
    else:
        wanted = _nearest(tree, place.root, config, reader, index)
    if not wanted:
        return None
    wanted.sort(key=lambda one: SPLITS.index(one.split) if one.split else -1)
    names = Counter(one.file.name for one in wanted)
    sources = [one.file.name if names[one.file.name] == 1 else _inside(one.file, place.root) for one in wanted]
    wanted = [replace(one, source=source) for one, source in zip(wanted, sources, strict=True)]
    try:
        files = _part(place, [_read(one, place.root, config, reader, index) for one in wanted], index)
    except DataError as error:
        raise error if wanted[0].is_sure else NoLabelsError(str(error)) from None
    name = _family(files)
    notes = [_OWN_SCALE] if any(_is_messidor(one) for one in files) else []
    labels = [_labels(one, name, place.root, several=len(files) > 1) for one in files]
    return LabelFiles(name, labels, notes, are_strangers=all(one.is_stranger for one in wanted))


def not_labels(tree: Tree, place: Place, config: DataConfig) -> Table | None:
    """A table that is no label file, for a message that shows its columns; below the top one that is called so."""
    for file in [place.file] if place.file else _unread(tree, place.root):
        if suffix_of(file.name) in SUFFIXES and (place.file or suffix_of(file.name) != ".txt"):
            table = read_table(file)
            if table.titles and not columns.known(table.titles, config).are_enough:
                return table
    return None


def _unread(tree: Tree, root: Path) -> Iterator[Path]:
    for folder in tree.walk(root):
        for file in _tables(tree, folder):
            if folder == root or _LIKELY.search(file.name) or _split_of_name(file):
                yield file


def _nearest(
    tree: Tree, root: Path, config: DataConfig, reader: GradeReader, index: PhotographIndex | None
) -> list[_Candidate]:
    """The label files that are the fewest folders below the root; where no header tells, those that may be some.

    Legends, which say what the grades are called, are none. Strangers count where there is nothing else.
    """
    by_depth: dict[int, list[Path]] = defaultdict(list)
    for folder in tree.walk(root):
        by_depth[len(folder.relative_to(root).parts)].append(folder)
    doubtful: list[_Candidate] = []
    strangers: list[_Candidate] = []
    lacking: list[str] = []
    for depth in sorted(by_depth):
        found = []
        for file in (file for folder in by_depth[depth] for file in _tables(tree, folder)):
            try:
                if candidate := _candidate(file, root, config):
                    found += _looked_into(candidate, config, reader, index)
            except _LacksColumnError as error:
                lacking.append(str(error))
            except DataError:
                if suffix_of(file.name) != ".txt" and (_LIKELY.search(file.name) or _split_of_name(file)):
                    raise
        if sure := [one for one in found if one.is_sure and not one.is_stranger]:
            return sure
        strangers = strangers or [one for one in found if one.is_stranger]
        doubtful = doubtful or [one for one in found if not one.is_sure]
    if lacking and not doubtful:
        raise DataError("\n".join(lacking[:3]))
    return doubtful if len(doubtful) == 1 else strangers


class NoLabelsError(DataError):
    """A table that may well be no label file."""


class _LacksColumnError(DataError):
    """A table without a column that the user named."""


def _candidate(file: Path, root: Path, config: DataConfig) -> _Candidate | None:
    """What the head of a file says of it; None where it is no label file."""
    head = read_head(file)
    if not head.titles:
        return _Candidate(file, _split_of(file, root), is_sure=True) if head.lines else None
    try:
        found = columns.known(head.titles, config)
    except DataError as error:
        raise _LacksColumnError(f"{file}: {error}") from None
    if not found.are_enough and sum(bool(title) for title in head.titles) < 2:
        return None
    return _Candidate(file, _split_of(file, root), found.are_enough)


def _looked_into(
    one: _Candidate, config: DataConfig, reader: GradeReader, index: PhotographIndex | None
) -> list[_Candidate]:
    """The candidate, marked if it is a stranger; nothing if it is a legend: "Mild 1" a line, and no such photograph."""
    if not one.is_sure or one.file.stat().st_size > _SMALL:
        return [one]
    try:
        table = read_table(one.file)
    except DataError:  # is said where it is read
        return [one]
    found = columns.known(table.titles, config) if table.titles else Columns(image=0, grade=1)
    if found.image is None or found.grade is None:
        return [one]
    pairs = zip(table.column(found.image), table.column(found.grade), strict=True)
    named = {name: reader(grade) for name, grade in pairs if name}
    if not named or any(is_image(name) or (index is not None and index.has(name)) for name in named):
        return [one]
    meant = {name: None if _BARE_NUMBER.fullmatch(name) else reader(name) for name in named}
    if None not in meant.values() and (index is not None or meant == named):
        return []
    are_others_there = index is not None and bool(index.counts)
    return [replace(one, is_stranger=not table.titles and are_others_there and not _split_of_name(one.file))]


def _tables(tree: Tree, folder: Path) -> list[Path]:
    names = [name for name in tree.others(folder) if suffix_of(name) in SUFFIXES and not _NO_LABELS.search(name)]
    if len(names) > _MANY:
        names = [name for name in names if suffix_of(name) != ".txt"]
    return [folder / name for name in names]


def _companions(tree: Tree, file: Path, config: DataConfig) -> list[_Candidate]:
    """The label files of the other splits beside the one that was given: train.csv and test.csv."""
    split = _split_of_name(file)
    found: dict[str, _Candidate] = {}
    for other in _tables(tree, file.parent) if split else ():
        theirs = _split_of_name(other)
        if theirs and theirs != split and theirs not in found and _template(other) == _template(file):
            try:
                candidate = _candidate(other, file.parent, config)
            except _LacksColumnError:
                continue
            if candidate and candidate.is_sure:
                found[theirs] = candidate
    return list(found.values())


def _split_of_name(file: Path) -> str:
    return "test" if _SOLUTION in file.name.lower() else split_words.of_name(file.stem)


def _split_of(file: Path, root: Path) -> str:
    """The split of all rows of a label file: by its name, else by the nearest folder below the root that names one."""
    above = reversed(file.parent.relative_to(root).parts)
    return _split_of_name(file) or next((split for part in above if (split := split_words.of_folder(part))), "")


def _template(file: Path) -> frozenset[str]:
    """The words of a label file's name that are not its split's: equal for trainLabels.csv and testLabels.csv."""
    if _SOLUTION in file.name.lower():
        return frozenset({"labels"})
    return frozenset(
        word for word in split_words.words(file.stem) if word not in split_words.SPLIT_BY_WORD and len(word) > 1
    )


def _read(
    one: _Candidate, root: Path, config: DataConfig, reader: GradeReader, index: PhotographIndex | None
) -> _LabelFile:
    table = read_table(one.file)
    prefix = f"{one.split}_" if _IDRID.fullmatch(one.file.stem) else ""
    if not table.titles:
        found = Columns(image=0, grade=1, choices=["photographs and grades from its two columns, which have no titles"])
    else:
        found = columns.choose(table, config, reader, index)
    by = "list" if one.split == _split_of_name(one.file) else "folder"
    rows = rows_of(table, found, one.split, root=root, source=one.source, prefix=prefix, split_from=by)
    if found.patient is not None and _repeats_names(rows):
        title = table.titles[found.patient]
        choices = [*found.choices, f"column {title} repeats the photographs' names and tells no patient"]
        found = replace(found, patient=None)
        rows = rows_of(table, found, one.split, root=root, source=one.source, prefix=prefix, split_from=by)
    else:
        choices = found.choices
    return _LabelFile(one.file, one.source, one.split, table.titles, rows, choices)


def _repeats_names(rows: list[Row]) -> bool:
    told = [row for row in rows if row.patient]
    return len(told) > 1 and all(own_name(row.patient) == own_name(row.name) for row in told)


def _part(place: Place, files: list[_LabelFile], index: PhotographIndex | None) -> list[_LabelFile]:
    """The files that are read together: one for each split, or several that list photographs of their own.

    Raises:
        DataError: two files list the same photographs for one split, and not the same grades of all of them; or
            photographs of the same names, which may be those of two places or two versions of one.
    """
    kept: list[_LabelFile] = []
    for one in files:
        rivals = [other for other in kept if other.split == one.split or not (other.split and one.split)]
        is_repeated = False
        for other in rivals:
            shared = one.grades.keys() & other.grades.keys()
            if not shared:
                continue
            are_same = _are_same(one, other, shared, index)
            is_repeated = are_same and other.grades == one.grades and other.split == one.split
            if is_repeated:
                _log.info("%s has the same photographs and grades as %s", one.file.name, other.file.name)
                break
            are_apart = not are_same and one.file.parent != other.file.parent
            how, remedy = "each in its own way", ""
            if are_apart:
                how = "each other files of these names"
                remedy = "; or write one list with the folder before each name"
            raise DataError(
                f"{place.root}: {_inside(other.file, place.root)} and {_inside(one.file, place.root)} both list "
                f"{len(shared):,} of the photographs ({min(shared)}, say), {how}.\n"
                f"Give the one that is meant instead of the folder: {other.file} or {one.file}{remedy}"
            )
        if not is_repeated:
            kept.append(one)
    return kept


def _are_same(one: _LabelFile, other: _LabelFile, names: AbstractSet[str], index: PhotographIndex | None) -> bool:
    """Whether names that are in two label files mean the same photographs; so they do where these may be absent."""
    if index is None:
        return True
    found = []
    for file in (one, other):
        locate([Labels(file.source, file.rows)], index)
        mine = {own_name(row.name).casefold(): (row.path, row.rivals) for row in file.rows if row.name}
        found.append({name: mine[name] for name in names})
    return found[0] == found[1]


def _family(files: Iterable[_LabelFile]) -> str:
    """The public set whose names or columns the label files have; a name for the manifest, no more."""
    titles = {plain(title) for one in files for title in one.titles}
    official = any(_IDRID.fullmatch(one.file.stem) for one in files)
    if official or (titles & {"dme_risk", "risk_of_macular_edema"} and not any(map(_is_messidor, files))):
        return "idrid"
    if "id_code" in titles:
        return "aptos"
    if any(one.file.stem.lower().startswith(("trainlabels", _SOLUTION)) for one in files) or "level" in titles:
        return "eyepacs"
    return "list"


def _is_messidor(one: _LabelFile) -> bool:
    return "ophthalmologic_department" in map(plain, one.titles)


_BELONGS = {"eyepacs": "{split}", "aptos": "{split}_images"}


def _labels(one: _LabelFile, family: str, root: Path, *, several: bool) -> Labels:
    is_idrid = bool(_IDRID.fullmatch(one.file.stem))
    belongs = one.file.parent
    if (split := _split_of_name(one.file)) and family in _BELONGS:
        belongs = root / _BELONGS[family].format(split=split)
    elif is_idrid:
        belongs = root / "1. Original Images" / ("a. Training Set" if one.split == "train" else "b. Testing Set")
    choices = tuple(f"{_inside(one.file, root)}: {choice}" for choice in one.choices)
    optional = several and one.split in {"val", "test"} and not is_idrid
    return Labels(one.source, one.rows, optional, belongs, (one.file,), choices)


def _inside(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
