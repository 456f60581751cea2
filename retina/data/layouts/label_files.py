"""The layouts of label files: find the label files below the data folder and select those that belong together."""

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
from retina.data.formats import is_image, strip_image_suffix, suffix_of
from retina.data.layouts import columns, split_words
from retina.data.layouts.column_choice import choose_columns
from retina.data.layouts.columns import Columns
from retina.data.layouts.csv_reader import SUFFIXES, LabelTable, normalize_title, read_head, read_table
from retina.data.layouts.file_index import DataPath, FileIndex
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.label_rows import read_rows
from retina.data.layouts.locate import locate_photographs
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import LabelList, LabelRow
from retina.errors import DataError

_log = logging.getLogger(__name__)

_SUBMISSION_FORM = re.compile(r"sample.?submission|submission|_upload\b", re.IGNORECASE)
"""Names of forms to be filled in, which have the columns of a label file and placeholder grades."""
_MAX_TABLES = 50
"""In a folder with more tables, the text files are no label files: there is one for each photograph."""
_MAX_LEGEND_BYTES = 2**14
"""Size up to which a table may be a legend of the grades, or notes."""
_BARE_NUMBER = re.compile(r"[\d.,]+")
_SOLUTION = "retinopathy_solution"
_IDRID = re.compile(r"[ab]\. IDRiD_Disease Grading_(Training|Testing) Labels", re.IGNORECASE)
_OWN_SCALE = "Messidor grades 0 to 3 by a scale of its own, which is not that of 0 to 4 (data.grade_mapping)"
_LIKELY_NAME = re.compile(r"label|grade|grading|diagnos|annotation|solution|ground.?truth", re.IGNORECASE)


@dataclass(frozen=True)
class LabelFiles:
    """The label files that are read together.

    Attributes:
        name: the public data set whose files they are, or "list".
        label_lists: their rows, one list for each file.
        notes: lines for the user.
        may_be_notes: whether they may be notes with two words in each line: they have no header, and none of their
            names is that of a photograph although there are photographs.
    """

    name: str
    label_lists: list[LabelList]
    notes: list[str]
    may_be_notes: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A file that may be a label file.

    Attributes:
        path: its path.
        split: the split of all its rows, or "".
        is_certain: whether its header, or its lines if it has none, show that it is a label file.
        may_be_notes: see `LabelFiles.may_be_notes`.
        source: its name in messages: the file's name, or its path if several files have that name.
    """

    path: Path
    split: str
    is_certain: bool
    may_be_notes: bool = False
    source: str = ""


@dataclass(frozen=True)
class _LabelFile:
    """The content of one label file.

    Attributes:
        path: its path.
        source: its name in messages.
        split: the split of all its rows, or "".
        titles: the cells of its header; empty if there is none.
        rows: its rows.
        choices: lines on how columns were chosen, see `Columns.choices`.
    """

    path: Path
    source: str
    split: str
    titles: list[str]
    rows: list[LabelRow]
    choices: list[str] = field(default_factory=list)

    @property
    def grades(self) -> dict[str, str]:
        """The grades as written, by the photographs' names."""
        return {strip_image_suffix(row.name).casefold(): row.grade for row in self.rows if row.name}


def find(
    file_index: FileIndex,
    data_path: DataPath,
    config: DataConfig,
    reader: GradeReader,
    photograph_index: PhotographIndex | None,
) -> LabelFiles | None:
    """Return the label file that the user gave, or those nearest to the top of the folder; None if there are none.

    Args:
        file_index: the folders.
        data_path: the folder or file that the user gave.
        config: the user's choice of columns.
        reader: parses grades.
        photograph_index: the photographs that exist; None if they may be absent.

    Raises:
        DataError: if a file cannot be read or lacks a column that the user named, or if several files could be meant.
        NoLabelsError: if the only table has no columns of known names, and its content does not show which they are.
    """
    root = data_path.root
    if data_path.file:
        if suffix_of(data_path.file.name) not in SUFFIXES:
            return None
        candidates = [
            _Candidate(data_path.file, _split_of_file_name(data_path.file), is_certain=True),
            *_companions(file_index, data_path.file, config),
        ]
    else:
        candidates = _find_candidates(file_index, root, config, reader, photograph_index)
    if not candidates:
        return None
    candidates.sort(key=lambda candidate: SPLITS.index(candidate.split) if candidate.split else -1)
    name_counts = Counter(candidate.path.name for candidate in candidates)
    candidates = [
        replace(
            candidate,
            source=candidate.path.name if name_counts[candidate.path.name] == 1 else _relative(candidate.path, root),
        )
        for candidate in candidates
    ]
    try:
        read_files = [_read(candidate, root, config, reader, photograph_index) for candidate in candidates]
        files = _select_files(root, read_files, photograph_index)
    except DataError as error:
        raise error if candidates[0].is_certain else NoLabelsError(str(error)) from None
    name = _data_set_name(files)
    notes = [_OWN_SCALE] if any(_is_messidor(file) for file in files) else []
    label_lists = [_to_label_list(file, name, root, is_one_of_several=len(files) > 1) for file in files]
    may_be_notes = all(candidate.may_be_notes for candidate in candidates)
    return LabelFiles(name, label_lists, notes, may_be_notes=may_be_notes)


def find_unusable_table(file_index: FileIndex, data_path: DataPath, config: DataConfig) -> LabelTable | None:
    """Return a table that is no label file, for a message that shows its columns; None if there is none.

    Below the top of the data folder, only tables with a label file's name count.
    """
    for file in [data_path.file] if data_path.file else _possible_label_files(file_index, data_path.root):
        if suffix_of(file.name) in SUFFIXES and (data_path.file or suffix_of(file.name) != ".txt"):
            table = read_table(file)
            if table.titles and not columns.find_known_columns(table.titles, config).are_sufficient:
                return table
    return None


def _possible_label_files(file_index: FileIndex, root: Path) -> Iterator[Path]:
    for folder in file_index.walk(root):
        for file in _tables(file_index, folder):
            if folder == root or _has_likely_name(file):
                yield file


def _has_likely_name(file: Path) -> bool:
    return bool(_LIKELY_NAME.search(file.name) or _split_of_file_name(file))


def _find_candidates(
    file_index: FileIndex,
    root: Path,
    config: DataConfig,
    reader: GradeReader,
    photograph_index: PhotographIndex | None,
) -> list[_Candidate]:
    """Return the certain label files that are the fewest folders below the root, else a single uncertain one.

    Legends, which name the grades, are no label files. Files that may be notes are returned if there is nothing else.
    """
    folders_by_depth: dict[int, list[Path]] = defaultdict(list)
    for folder in file_index.walk(root):
        folders_by_depth[len(folder.relative_to(root).parts)].append(folder)
    uncertain: list[_Candidate] = []
    possible_notes: list[_Candidate] = []
    missing_column_errors: list[str] = []
    for depth in sorted(folders_by_depth):
        candidates = []
        for file in (file for folder in folders_by_depth[depth] for file in _tables(file_index, folder)):
            try:
                if candidate := _candidate_from_head(file, root, config):
                    candidates += _check_content(candidate, config, reader, photograph_index)
            except _MissingColumnError as error:
                missing_column_errors.append(str(error))
            except DataError:
                if suffix_of(file.name) != ".txt" and _has_likely_name(file):
                    raise
        if certain := [candidate for candidate in candidates if candidate.is_certain and not candidate.may_be_notes]:
            return certain
        possible_notes = possible_notes or [candidate for candidate in candidates if candidate.may_be_notes]
        uncertain = uncertain or [candidate for candidate in candidates if not candidate.is_certain]
    if missing_column_errors and not uncertain:
        raise DataError("\n".join(missing_column_errors[:3]))
    return uncertain if len(uncertain) == 1 else possible_notes


class NoLabelsError(DataError):
    """Raised for a table that may be no label file."""


class _MissingColumnError(DataError):
    """Raised for a table without a column that the user named."""


def _candidate_from_head(file: Path, root: Path, config: DataConfig) -> _Candidate | None:
    """Return a candidate by the first lines of a file; None if these show that it is no label file."""
    head = read_head(file)
    if not head.titles:
        return _Candidate(file, _split_of_file(file, root), is_certain=True) if head.lines else None
    try:
        known = columns.find_known_columns(head.titles, config)
    except DataError as error:
        raise _MissingColumnError(f"{file}: {error}") from None
    if not known.are_sufficient and sum(bool(title) for title in head.titles) < 2:
        return None
    return _Candidate(file, _split_of_file(file, root), known.are_sufficient)


def _check_content(
    candidate: _Candidate, config: DataConfig, reader: GradeReader, photograph_index: PhotographIndex | None
) -> list[_Candidate]:
    """Return the candidate, marked if it may be notes; nothing if it is a legend.

    A legend has lines such as "Mild 1" whose names are no photographs.
    """
    if not candidate.is_certain or candidate.path.stat().st_size > _MAX_LEGEND_BYTES:
        return [candidate]
    try:
        table = read_table(candidate.path)
    except DataError:  # is reported when the file is read for its rows
        return [candidate]
    known = columns.find_known_columns(table.titles, config) if table.titles else Columns(image=0, grade=1)
    if known.image is None or known.grade is None:
        return [candidate]
    pairs = zip(table.column(known.image), table.column(known.grade), strict=True)
    grades = {name: reader(grade) for name, grade in pairs if name}
    if not grades or any(
        is_image(name) or (photograph_index is not None and photograph_index.contains(name)) for name in grades
    ):
        return [candidate]
    grades_of_names = {name: None if _BARE_NUMBER.fullmatch(name) else reader(name) for name in grades}
    if None not in grades_of_names.values() and (photograph_index is not None or grades_of_names == grades):
        return []
    has_photographs = photograph_index is not None and bool(photograph_index.folder_counts)
    may_be_notes = not table.titles and has_photographs and not _split_of_file_name(candidate.path)
    return [replace(candidate, may_be_notes=may_be_notes)]


def _tables(file_index: FileIndex, folder: Path) -> list[Path]:
    names = [
        name for name in file_index.others(folder) if suffix_of(name) in SUFFIXES and not _SUBMISSION_FORM.search(name)
    ]
    if len(names) > _MAX_TABLES:
        names = [name for name in names if suffix_of(name) != ".txt"]
    return [folder / name for name in names]


def _companions(file_index: FileIndex, file: Path, config: DataConfig) -> list[_Candidate]:
    """Return the label files of the other splits beside the one that was given: test.csv beside train.csv."""
    split = _split_of_file_name(file)
    companions: dict[str, _Candidate] = {}
    for other in _tables(file_index, file.parent) if split else ():
        other_split = _split_of_file_name(other)
        if not other_split or other_split == split or other_split in companions:
            continue
        if _words_without_split(other) == _words_without_split(file):
            try:
                candidate = _candidate_from_head(other, file.parent, config)
            except _MissingColumnError:
                continue
            if candidate and candidate.is_certain:
                companions[other_split] = candidate
    return list(companions.values())


def _split_of_file_name(file: Path) -> str:
    return "test" if _SOLUTION in file.name.lower() else split_words.split_in_name(file.stem)


def _split_of_file(file: Path, root: Path) -> str:
    """Return the split of all rows of a label file, by its name, else by the nearest folder that names one."""
    above = reversed(file.parent.relative_to(root).parts)
    folder_splits = (split for part in above if (split := split_words.split_of_folder(part)))
    return _split_of_file_name(file) or next(folder_splits, "")


def _words_without_split(file: Path) -> frozenset[str]:
    """Return the words of a label file's name except its split's: equal for trainLabels.csv and testLabels.csv."""
    if _SOLUTION in file.name.lower():
        return frozenset({"labels"})
    return frozenset(
        word for word in split_words.words_in(file.stem) if word not in split_words.SPLIT_BY_WORD and len(word) > 1
    )


def _read(
    candidate: _Candidate,
    root: Path,
    config: DataConfig,
    reader: GradeReader,
    photograph_index: PhotographIndex | None,
) -> _LabelFile:
    file, source, split = candidate.path, candidate.source, candidate.split
    table = read_table(file)
    prefix = f"{split}_" if _IDRID.fullmatch(file.stem) else ""
    if not table.titles:
        chosen = Columns(
            image=0, grade=1, choices=["photographs and grades from its two columns, which have no titles"]
        )
    else:
        chosen = choose_columns(table, config, reader, photograph_index)
    split_source = "list" if split == _split_of_file_name(file) else "folder"
    rows = read_rows(table, chosen, split, root=root, source=source, prefix=prefix, split_source=split_source)
    choices = chosen.choices
    if chosen.patient is not None and _repeats_names(rows):
        title = table.titles[chosen.patient]
        choices = [*choices, f"column {title} repeats the photographs' names and names no patient"]
        chosen = replace(chosen, patient=None)
        rows = read_rows(table, chosen, split, root=root, source=source, prefix=prefix, split_source=split_source)
    return _LabelFile(file, source, split, table.titles, rows, choices)


def _repeats_names(rows: list[LabelRow]) -> bool:
    """Return whether every patient in the rows is only the name of its photograph."""
    with_patient = [row for row in rows if row.patient]
    return len(with_patient) > 1 and all(
        strip_image_suffix(row.patient) == strip_image_suffix(row.name) for row in with_patient
    )


def _select_files(root: Path, files: list[_LabelFile], photograph_index: PhotographIndex | None) -> list[_LabelFile]:
    """Return the files to be read together: one for each split, or several that list different photographs.

    Raises:
        DataError: if two files list the same photographs for one split and do not agree on all grades; or if they list
            photographs of the same names, which may be two sets or two versions of one.
    """
    selected: list[_LabelFile] = []
    for file in files:
        is_duplicate = False
        for other in selected:
            if other.split and file.split and other.split != file.split:
                continue
            shared = file.grades.keys() & other.grades.keys()
            if not shared:
                continue
            are_same = _name_same_photographs(file, other, shared, photograph_index)
            is_duplicate = are_same and other.grades == file.grades and other.split == file.split
            if is_duplicate:
                _log.info("%s has the same photographs and grades as %s", file.path.name, other.path.name)
                break
            difference, remedy = "and do not agree", ""
            if not are_same and file.path.parent != other.path.parent:
                difference = "but mean different files of these names"
                remedy = "; or write one list with the folder before each name"
            raise DataError(
                f"{root}: {_relative(other.path, root)} and {_relative(file.path, root)} both list "
                f"{len(shared):,} of the photographs (for example {min(shared)}), {difference}.\n"
                f"Give the one that is meant instead of the folder: {other.path} or {file.path}{remedy}"
            )
        if not is_duplicate:
            selected.append(file)
    return selected


def _name_same_photographs(
    first: _LabelFile, second: _LabelFile, names: AbstractSet[str], photograph_index: PhotographIndex | None
) -> bool:
    """Return whether names in two label files mean the same photographs; True if photographs may be absent."""
    if photograph_index is None:
        return True
    located = []
    for file in (first, second):
        locate_photographs([LabelList(file.source, file.rows)], photograph_index)
        paths = {strip_image_suffix(row.name).casefold(): (row.path, row.same_named) for row in file.rows if row.name}
        located.append({name: paths[name] for name in names})
    return located[0] == located[1]


def _data_set_name(files: Iterable[_LabelFile]) -> str:
    """Return the public data set whose file names or columns the label files have; only a name for the manifest."""
    titles = {normalize_title(title) for file in files for title in file.titles}
    is_official_idrid = any(_IDRID.fullmatch(file.path.stem) for file in files)
    has_edema_column = bool(titles & {"dme_risk", "risk_of_macular_edema"})
    if is_official_idrid or (has_edema_column and not any(map(_is_messidor, files))):
        return "idrid"
    if "id_code" in titles:
        return "aptos"
    if any(file.path.stem.lower().startswith(("trainlabels", _SOLUTION)) for file in files) or "level" in titles:
        return "eyepacs"
    return "list"


def _is_messidor(file: _LabelFile) -> bool:
    return "ophthalmologic_department" in map(normalize_title, file.titles)


_PHOTOGRAPH_FOLDERS = {"eyepacs": "{split}", "aptos": "{split}_images"}


def _to_label_list(file: _LabelFile, data_set: str, root: Path, *, is_one_of_several: bool) -> LabelList:
    path = file.path
    is_idrid = bool(_IDRID.fullmatch(path.stem))
    photograph_folder = path.parent
    if (split := _split_of_file_name(path)) and data_set in _PHOTOGRAPH_FOLDERS:
        photograph_folder = root / _PHOTOGRAPH_FOLDERS[data_set].format(split=split)
    elif is_idrid:
        split_folder = "a. Training Set" if file.split == "train" else "b. Testing Set"
        photograph_folder = root / "1. Original Images" / split_folder
    choices = tuple(f"{_relative(path, root)}: {choice}" for choice in file.choices)
    is_optional = is_one_of_several and file.split in {"val", "test"} and not is_idrid
    return LabelList(file.source, file.rows, is_optional, photograph_folder, (path,), choices)


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
