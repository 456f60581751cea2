"""The layouts of public data sets and of people's own folders, read into one manifest.

What is read is found by looking: the course's lists, label files, class folders, an npz file. `tree` lists folders,
`index` finds photographs by name, `tables` and `columns` read label files, `lists`, `folders`, `read_course` and `arrays`
hold the layouts; what can be wrong with a row is checked in one place for all of them (`rows.check`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from retina.config import DataConfig
from retina.data.layouts import class_folders, columns, label_files, npz, split_words
from retina.data.layouts.course import COURSE_FILES, is_course, read_course
from retina.data.layouts.file_index import DataPath, FileIndex, is_text, own_name, printable
from retina.data.layouts.grades import GradeReader, mapping_key
from retina.data.layouts.locate import describe_photograph_folders, locate_photographs
from retina.data.layouts.photograph_index import PhotographIndex, find_subfolder
from retina.data.layouts.split_folders import assign_folder_splits, describe_folder_splits
from retina.data.layouts.unused import find_unused_files
from retina.data.layouts.validation import LabelList, Row, assume_paths, has_no_photographs, to_frame, validate_rows
from retina.data.manifest import COLUMNS, BadRow, Manifest, Unused, refuse
from retina.errors import DataError, PhotographsAbsentError

__all__ = ["read", "resolve_path"]

_EYEPACS = 'EyePACS is the Kaggle competition "diabetic-retinopathy-detection"'
_ORIGINS = {
    "aptos": 'APTOS 2019 is the Kaggle competition "aptos2019-blindness-detection"',
    "idrid": "IDRiD is at https://idrid.grand-challenge.org, Disease Grading",
}
_WITHOUT = "To try sweep or train without photographs: --data synthetic; retina data draw DIR draws some"
_COLUMN_KEYS = ("image_column", "grade_column", "patient_column", "eye_column")
_GROUNDTRUTHS = "2. Groundtruths"
_LISTS = ("eyepacs", "aptos", "idrid", "list")
"""Layouts of label files. Any such file is read under each of these names."""
_LOOKS_FOR = {
    "course": "train_img.csv and its three companions",
    "list": "a label file with a column for the photograph and one for its grade",
    "folders": "folders 0 to 4 or No_DR to Proliferate_DR",
    "medmnist": "one .npz file",
}


@dataclass(frozen=True)
class _Reading:
    """One way to read what the user pointed at: the name of its layout, and its rows."""

    layout: str
    labels: list[LabelList]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Look:
    """What there is to read, and how the user wants it read."""

    tree: FileIndex
    here: DataPath
    config: DataConfig
    reader: GradeReader
    index: PhotographIndex


def read(config: DataConfig, *, photographs: bool = True) -> Manifest:
    """Read the photographs' names, grades, patients and official splits at `config.path`.

    Args:
        config: `path` is a folder, a label file in it, or an npz file; `layout` may be "auto".
        photographs: False reads label files alone; `path` is then where a photograph belongs.

    Raises:
        DataError: nothing there, no known layout or two that contradict each other, label files that cannot be read,
            no photographs (then it is a PhotographsAbsentError); and bad rows, unless `config.on_bad` is "skip".
    """
    given = resolve_path(config.path)
    here = _with_photographs_beside(given)
    tree = FileIndex()
    reader = GradeReader(_mapping(config))
    index = PhotographIndex(tree, here.root, config.image_folder)
    reading = _recognise(_Look(tree, here, config, reader, index), photographs=photographs)
    notes = [*reading.notes, *_unmet(config, reading.labels)]
    labels = reading.labels
    if photographs:
        labels = _with_photographs(labels, here, reading.layout, index, notes)
    else:
        labels = [assume_paths(one, here.root) for one in labels]
    assign_folder_splits(labels, index)

    root = given.file or given.root
    where = describe_photograph_folders(index) if any(row.path is None for one in labels for row in one.rows) else ""
    rows, bad = validate_rows([row for one in labels for row in one.rows], reader, where)
    refuse(bad, root, config.on_bad)
    if not rows:
        why = f"the first of {len(bad):,} that cannot: {bad[0]}" if bad else "the label files are empty"
        raise DataError(f"{root}: layout {reading.layout}: no photograph can be used; {why}")
    frame = to_frame(rows, reader, here.root)
    if set(frame["split"]) == {"train"}:  # a training list alone says nothing about how to split it
        frame = frame.assign(split="").astype(COLUMNS)
    notes += _notes(rows, bad, index)
    notes += describe_folder_splits(rows) if config.split == "official" else []
    files = {file for one in reading.labels for file in one.files}
    named = {str(path) for one in labels for row in one.rows for path in (row.path, *row.rivals) if path}
    unused = find_unused_files(tree, here, named, files) if photographs else Unused()
    choices = [choice for one in reading.labels for choice in one.choices]
    return Manifest(frame, reading.layout, root, bad, unused, choices, notes)


def _mapping(config: DataConfig) -> dict[str, int | str]:
    """`config.grade_mapping` by the keys that a `GradeReader` compares: "Mild" and "mild" are one label.

    Raises:
        DataError: two of its labels are one, and are not of one grade.
    """
    labels: dict[str, str] = {}
    for label, grade in config.grade_mapping.items():
        first = labels.setdefault(mapping_key(label), label)
        if config.grade_mapping[first] != grade:
            both = f"{first!r}: {config.grade_mapping[first]} and {label!r}: {grade}"
            raise DataError(f"data.grade_mapping: {both} are one label; name it once")
    return {key: config.grade_mapping[label] for key, label in labels.items()}


def resolve_path(given: str) -> DataPath:
    """The folder or file that a user pointed at.

    Raises:
        DataError: there is none, it may not be looked at, or its name is not UTF-8, which no table of ours takes.
    """
    told = printable(given)
    try:
        path = Path(given).expanduser().absolute()
        found = DataPath(path) if path.is_dir() else DataPath(path.parent, path) if path.is_file() else None
    except (OSError, RuntimeError) as error:  # a name too long, no right to look, no such user's home
        raise DataError(f"{told}: this folder or file cannot be read: {error}") from None
    if found is None:
        raise DataError(
            f"{told}: there is no such folder or file.\n"
            f"It should hold photographs and their grades; {_EYEPACS}: unpack it there, or give another path.\n"
            f"{_WITHOUT}"
        )
    if not is_text(str(path)):
        raise DataError(f"{printable(str(path))}: this path is not UTF-8; rename what is not")
    return found


def _with_photographs_beside(given: DataPath) -> DataPath:
    """IDRiD's official label files lie in a folder beside that of their photographs."""
    return replace(given, root=given.root.parent) if given.root.name == _GROUNDTRUTHS else given


def _recognise(look: _Look, *, photographs: bool) -> _Reading:
    config, here = look.config, look.here
    wanted = "eyepacs" if config.layout == "synthetic" else config.layout  # drawn ones lie in the layout of EyePACS
    column = next((key for key in _COLUMN_KEYS if getattr(config, key)), "")
    if (wanted == "auto" and is_course(look.tree, here)) or (wanted == "course" and here.may_be(COURSE_FILES)):
        _refuse_column(column, here)
        return _Reading("course", read_course(look.tree, here))
    found, doubt = None, None
    if wanted in {"auto", *_LISTS}:
        try:
            found = label_files.find(look.tree, here, config, look.reader, look.index if photographs else None)
        except label_files.NoLabelsError as error:  # there may be class folders beside a table of something else
            doubt = error
    by_folder = _class_folders(look) if wanted in {"auto", "folders"} and not (found and column) else []
    if found and found.are_strangers and by_folder:
        found = None
    if found:
        if by_folder and photographs:
            _refuse_contradiction(found, by_folder, look)
        return _Reading(found.name if wanted in {"auto", "list"} else wanted, found.labels, found.notes)
    _refuse_column(column, here, doubt)
    if by_folder:
        return _Reading("folders", by_folder)
    if wanted in {"auto", "medmnist"} and npz.is_medmnist(look.tree, here):
        return _Reading("medmnist", npz.read_medmnist(look.tree, here))
    raise doubt or _not_recognised(look.tree, here, config, wanted)


def _class_folders(look: _Look) -> list[LabelList]:
    """The rows of the only class folders there are; none where the user pointed at a file."""
    if look.here.file:
        return []
    root, only = look.here.root, look.config.image_folder
    top = find_subfolder(look.tree, root, only) if only else root
    grouped = class_folders.require_single(
        class_folders.find(look.tree, top, look.reader), look.tree, root, look.reader
    )
    return class_folders.read(grouped, look.tree, root, look.reader) if grouped else []


def _refuse_column(key: str, here: DataPath, doubt: DataError | None = None) -> None:
    if key:
        raise doubt or DataError(
            f"{here.file or here.root}: data.{key} is given, and there is no label file with columns"
        )


def _refuse_contradiction(found: label_files.LabelFiles, by_folder: list[LabelList], look: _Look) -> None:
    """Stop where a label file and the class folders that its photographs lie in say different grades.

    Raises:
        DataError: names both readings and how to choose one.
    """
    reader = look.reader
    by_path = {row.path: row for one in by_folder for row in one.rows}
    if any(reader(row.grade) is None for row in by_path.values()):  # some beside them are none: not of grades, maybe
        return
    locate_photographs(found.labels, look.index)
    located = (row for one in found.labels for row in one.rows)
    pairs = [(row, by_path[row.path]) for row in located if row.path in by_path]
    if all(has_no_photographs(one) for one in found.labels):
        raise DataError(
            f"{look.here.root}: {found.labels[0].source} names none of the photographs in the class folders;\n"
            "data.layout=folders goes by the folders alone"
        )
    differing = [(row, folder) for row, folder in pairs if reader(row.grade) not in {None, reader(folder.grade)}]
    if differing:
        row, folder = differing[0]
        raise DataError(
            f"{look.here.root}: the label file and the class folders differ about {len(differing):,} of {len(pairs):,} "
            f"photographs: {row.where} gives {row.name} the grade {row.grade}, and it lies in {folder.where}\n"
            f"data.layout={found.name} goes by the label file, data.layout=folders by the folders."
        )


def _not_recognised(tree: FileIndex, here: DataPath, config: DataConfig, wanted: str) -> DataError:
    if wanted in {"auto", *_LISTS} and (table := label_files.find_unusable_table(tree, here, config)):
        return columns.missing_columns_error(table, config)
    names = list(_LOOKS_FOR) if wanted == "auto" else ["list"] if wanted in _LISTS else [wanted]
    looked = "; ".join(f"{name}: {_LOOKS_FOR[name]}" for name in names)
    return DataError(
        f"{here.file or here.root}: no photographs with grades were recognised under layout {config.layout}.\n"
        f"There: {_contents(tree, here)}.\n"
        f"Looked for {looked}. A labels.csv with the columns image,level beside the photographs will do."
    )


def _contents(tree: FileIndex, place: DataPath) -> str:
    if place.file:
        return f"the file {place.file.name}"
    names = [f"{folder.name}/" for folder in tree.folders(place.root)]
    names += [file.name for file in tree.files(place.root)]
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return printable(", ".join(names[:6]) or "nothing") + more


def _with_photographs(
    labels: list[LabelList], here: DataPath, layout: str, index: PhotographIndex, notes: list[str]
) -> list[LabelList]:
    locate_photographs(labels, index)
    total = sum(len(one.rows) for one in labels)
    if total and all(has_no_photographs(one) for one in labels):
        raise _no_photographs(labels, here, layout, total, index)
    kept = []
    for one in labels:
        if one.optional and has_no_photographs(one):
            notes.append(f"{one.source} lists {len(one.rows):,} photographs and none is there: left out")
        else:
            kept.append(one)
    return kept


def _no_photographs(
    labels: list[LabelList], here: DataPath, layout: str, total: int, index: PhotographIndex
) -> PhotographsAbsentError:
    first = next(row for one in labels for row in one.rows)
    belongs = labels[0].belongs or here.root
    sources = " and ".join(one.source for one in labels)
    there = f"They belong in {belongs} ({own_name(first.name)}.jpeg, .jpg or .png)"
    if here.file:
        there += f", or give the folder that holds both instead of {here.file.name}"
    if index.counts:
        fullest = next(iter(index.counts))
        there = f"They are called {first.name}, say; {describe_photograph_folders(index)}, {index.example(fullest)} say"
    there += f"; {_ORIGINS.get(layout, _EYEPACS)}.\n{_WITHOUT}"
    if first.elsewhere:
        there = f"{first.where}: {first.name}: {first.elsewhere}"
    return PhotographsAbsentError(
        f"{here.root}: {sources} list {total:,} photographs, and none of them is there.\n{there}"
    )


def _unmet(config: DataConfig, labels: list[LabelList]) -> list[str]:
    """What the grade mapping names and no label says: a slip of the pen, perhaps."""
    if not config.grade_mapping:
        return []
    told = {mapping_key(row.grade) for one in labels for row in one.rows}
    never = [label for label in config.grade_mapping if mapping_key(label) not in told]
    return [f"data.grade_mapping: no label is {', '.join(map(repr, never))}"] if never else []


def _notes(rows: Iterable[Row], bad: list[BadRow], index: PhotographIndex) -> list[str]:
    """What a person should know of the rows: what was left out, splits that the folders contradict."""
    notes = []
    if ungradable := sum(one.ungradable for one in bad):
        notes.append(f"{ungradable:,} ungradable {'photograph is' if ungradable == 1 else 'photographs are'} left out")
    moved = [row for row in rows if row.name and row.path and _is_elsewhere(row, index)]
    if moved:
        row = moved[0]
        notes.append(
            f"{len(moved):,} photographs lie in the folder of another split than their row says, which counts: "
            f"{row.where} says {row.split} of {row.image}"
        )
    return notes


def _is_elsewhere(row: Row, index: PhotographIndex) -> bool:
    split, folder = split_words.parse_split(row.split), index.split_of(row.path) if row.path else ""
    return bool(split and folder and split != folder)
