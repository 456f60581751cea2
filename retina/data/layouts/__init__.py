"""Readers for the layouts of public data sets and of users' own folders; each returns one manifest.

The layout is detected from the files: the course's lists, label files, class folders or an npz file. `file_index` lists
folders, `photograph_index` finds photographs by name, `csv_reader` and `columns` read label files; `label_files`,
`class_folders`, `course` and `npz` read one kind of layout each. `validation.validate_rows` checks the rows of all of
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from retina.config import DataConfig
from retina.data.formats import strip_image_suffix
from retina.data.layouts import class_folders, columns, label_files, npz, split_words
from retina.data.layouts.course import COURSE_FILES, is_course, read_course
from retina.data.layouts.file_index import DataPath, FileIndex, is_utf8, printable
from retina.data.layouts.grades import GradeReader, mapping_key
from retina.data.layouts.locate import describe_photograph_folders, locate_photographs
from retina.data.layouts.photograph_index import PhotographIndex, find_subfolder
from retina.data.layouts.split_folders import assign_folder_splits, describe_folder_splits
from retina.data.layouts.unused import find_unused_files
from retina.data.layouts.validation import (
    LabelList,
    LabelRow,
    assume_paths,
    has_no_photographs,
    to_frame,
    validate_rows,
)
from retina.data.manifest import COLUMNS, BadRow, Manifest, Unused, raise_if_bad
from retina.errors import DataError, PhotographsAbsentError

__all__ = ["read", "resolve_path"]

_EYEPACS = 'EyePACS is the Kaggle competition "diabetic-retinopathy-detection"'
_ORIGINS = {
    "aptos": 'APTOS 2019 is the Kaggle competition "aptos2019-blindness-detection"',
    "idrid": "IDRiD is at https://idrid.grand-challenge.org, Disease Grading",
}
_SYNTHETIC_HINT = "To run sweep or train without photographs, use --data synthetic; retina data draw DIR draws some"
_COLUMN_KEYS = ("image_column", "grade_column", "patient_column", "eye_column")
_GROUNDTRUTHS = "2. Groundtruths"
_LABEL_FILE_LAYOUTS = ("eyepacs", "aptos", "idrid", "list")
"""Layouts of label files. Any label file is read under each of these names."""
_EXPECTED_FILES = {
    "course": "train_img.csv and its three companions",
    "list": "a label file with a column for the photograph and one for its grade",
    "folders": "folders 0 to 4 or No_DR to Proliferate_DR",
    "medmnist": "one .npz file",
}


@dataclass(frozen=True)
class _DetectedLayout:
    """The name of a layout and the label lists that were read in it."""

    name: str
    label_lists: list[LabelList]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Sources:
    """The user's data folder or file, its configuration, and the indexes and readers that serve it."""

    file_index: FileIndex
    data_path: DataPath
    config: DataConfig
    reader: GradeReader
    photograph_index: PhotographIndex


def read(config: DataConfig, *, photographs: bool = True) -> Manifest:
    """Read the photographs' names, grades, patients and official splits at `config.path`.

    Args:
        config: `path` is a folder, a label file in it, or an npz file; `layout` may be "auto".
        photographs: if False, only the label files are read; a row's `path` is then where its photograph is expected.

    Raises:
        DataError: if the path does not exist, has no known layout or two that contradict each other, if its label files
            cannot be read, or if there are no photographs (a PhotographsAbsentError); also for bad rows, unless
            `config.on_bad` is "skip".
    """
    given_path = resolve_path(config.path)
    data_path = _include_photograph_folder(given_path)
    file_index = FileIndex()
    reader = GradeReader(_normalized_mapping(config))
    photograph_index = PhotographIndex(file_index, data_path.root, config.image_folder)
    sources = _Sources(file_index, data_path, config, reader, photograph_index)
    layout = _detect_layout(sources, photographs=photographs)
    notes = [*layout.notes, *_unused_mapping_notes(config, layout.label_lists)]
    label_lists = layout.label_lists
    if photographs:
        label_lists = _locate_or_raise(label_lists, data_path, layout.name, photograph_index, notes)
    else:
        label_lists = [assume_paths(label_list, data_path.root) for label_list in label_lists]
    assign_folder_splits(label_lists, photograph_index)

    root = given_path.file or given_path.root
    all_rows = [row for label_list in label_lists for row in label_list.rows]
    hint = describe_photograph_folders(photograph_index) if any(row.path is None for row in all_rows) else ""
    rows, bad = validate_rows(all_rows, reader, hint)
    raise_if_bad(bad, root, config.on_bad)
    if not rows:
        reason = f"the first of {len(bad):,} bad rows: {bad[0]}" if bad else "the label files are empty"
        raise DataError(f"{root}: layout {layout.name}: no photograph can be used; {reason}")
    frame = to_frame(rows, reader, data_path.root)
    if set(frame["split"]) == {"train"}:  # a training list alone does not say how to split it
        frame = frame.assign(split="").astype(COLUMNS)
    notes += _row_notes(rows, bad, photograph_index)
    notes += describe_folder_splits(rows) if config.split == "official" else []
    read_files = {file for label_list in layout.label_lists for file in label_list.files}
    used_photographs = {str(path) for row in all_rows for path in (row.path, *row.same_named) if path}
    unused = find_unused_files(file_index, data_path, used_photographs, read_files) if photographs else Unused()
    choices = [choice for label_list in layout.label_lists for choice in label_list.choices]
    return Manifest(frame, layout.name, root, bad, unused, choices, notes)


def _normalized_mapping(config: DataConfig) -> dict[str, int | str]:
    """Return `config.grade_mapping` with the keys that a `GradeReader` compares: "Mild" and "mild" are one label.

    Raises:
        DataError: if two keys are the same label with different grades.
    """
    labels: dict[str, str] = {}
    for label, grade in config.grade_mapping.items():
        first = labels.setdefault(mapping_key(label), label)
        if config.grade_mapping[first] != grade:
            both = f"{first!r}: {config.grade_mapping[first]} and {label!r}: {grade}"
            raise DataError(f"data.grade_mapping: {both} are one label; name it once")
    return {key: config.grade_mapping[label] for key, label in labels.items()}


def resolve_path(given: str) -> DataPath:
    """Return the folder or file that a user's path names.

    Raises:
        DataError: if it does not exist, may not be read, or is not UTF-8, which no table of this package can hold.
    """
    shown = printable(given)
    try:
        path = Path(given).expanduser().absolute()
        data_path = DataPath(path) if path.is_dir() else DataPath(path.parent, path) if path.is_file() else None
    except (OSError, RuntimeError) as error:  # a name that is too long, no permission, an unknown user's home
        raise DataError(f"{shown}: this folder or file cannot be read: {error}") from None
    if data_path is None:
        raise DataError(
            f"{shown}: there is no such folder or file.\n"
            f"It should hold photographs and their grades; {_EYEPACS}: unpack it there, or give another path.\n"
            f"{_SYNTHETIC_HINT}"
        )
    if not is_utf8(str(path)):
        raise DataError(f"{printable(str(path))}: this path is not UTF-8; rename the folder or file")
    return data_path


def _include_photograph_folder(given: DataPath) -> DataPath:
    """Return the parent folder for IDRiD's label files, which are in a folder beside that of their photographs."""
    return replace(given, root=given.root.parent) if given.root.name == _GROUNDTRUTHS else given


def _detect_layout(sources: _Sources, *, photographs: bool) -> _DetectedLayout:
    config, data_path, file_index = sources.config, sources.data_path, sources.file_index
    requested = "eyepacs" if config.layout == "synthetic" else config.layout  # drawn photographs use EyePACS's layout
    column_key = next((key for key in _COLUMN_KEYS if getattr(config, key)), "")
    if (requested == "auto" and is_course(file_index, data_path)) or (
        requested == "course" and data_path.matches_any(COURSE_FILES)
    ):
        _refuse_column_key(column_key, data_path)
        return _DetectedLayout("course", read_course(file_index, data_path))
    label_file_set, no_labels_error = None, None
    if requested in {"auto", *_LABEL_FILE_LAYOUTS}:
        try:
            label_file_set = label_files.find(
                file_index, data_path, config, sources.reader, sources.photograph_index if photographs else None
            )
        except label_files.NoLabelsError as error:  # class folders may lie beside a table of something else
            no_labels_error = error
    use_folders = requested in {"auto", "folders"} and not (label_file_set and column_key)
    folder_lists = _read_class_folders(sources) if use_folders else []
    if label_file_set and label_file_set.may_be_notes and folder_lists:
        label_file_set = None
    if label_file_set:
        if folder_lists and photographs:
            _refuse_contradiction(label_file_set, folder_lists, sources)
        name = label_file_set.name if requested in {"auto", "list"} else requested
        return _DetectedLayout(name, label_file_set.label_lists, label_file_set.notes)
    _refuse_column_key(column_key, data_path, no_labels_error)
    if folder_lists:
        return _DetectedLayout("folders", folder_lists)
    if requested in {"auto", "medmnist"} and npz.is_medmnist(file_index, data_path):
        return _DetectedLayout("medmnist", npz.read_medmnist(file_index, data_path))
    raise no_labels_error or _not_recognized_error(file_index, data_path, config, requested)


def _read_class_folders(sources: _Sources) -> list[LabelList]:
    """Return the rows of the only set of class folders; empty if there is none, or if the user gave a file."""
    if sources.data_path.file:
        return []
    file_index, reader = sources.file_index, sources.reader
    root, image_folder = sources.data_path.root, sources.config.image_folder
    top = find_subfolder(file_index, root, image_folder) if image_folder else root
    class_folder_sets = class_folders.find(file_index, top, reader)
    folder_set = class_folders.require_single(class_folder_sets, file_index, root, reader)
    return class_folders.read(folder_set, file_index, root, reader) if folder_set else []


def _refuse_column_key(key: str, data_path: DataPath, error: DataError | None = None) -> None:
    if key:
        raise error or DataError(
            f"{data_path.file or data_path.root}: data.{key} is given, and there is no label file with columns"
        )


def _refuse_contradiction(
    label_file_set: label_files.LabelFiles, folder_lists: list[LabelList], sources: _Sources
) -> None:
    """Raise if a label file and the class folders that its photographs lie in give different grades.

    Raises:
        DataError: names both and how to choose one of them.
    """
    reader, root = sources.reader, sources.data_path.root
    folder_rows = {row.path: row for label_list in folder_lists for row in label_list.rows}
    if any(reader(row.grade) is None for row in folder_rows.values()):  # some are no grades: perhaps not class folders
        return
    locate_photographs(label_file_set.label_lists, sources.photograph_index)
    file_rows = (row for label_list in label_file_set.label_lists for row in label_list.rows)
    pairs = [(row, folder_rows[row.path]) for row in file_rows if row.path in folder_rows]
    if all(has_no_photographs(label_list) for label_list in label_file_set.label_lists):
        raise DataError(
            f"{root}: {label_file_set.label_lists[0].source} names none of the photographs in the class folders;\n"
            "data.layout=folders reads the folders alone"
        )
    differing = [(row, folder) for row, folder in pairs if reader(row.grade) not in {None, reader(folder.grade)}]
    if differing:
        row, folder = differing[0]
        raise DataError(
            f"{root}: the label file and the class folders differ about {len(differing):,} of {len(pairs):,} "
            f"photographs: {row.where} gives {row.name} the grade {row.grade}, and it lies in {folder.where}\n"
            f"data.layout={label_file_set.name} uses the label file, data.layout=folders the folders."
        )


def _not_recognized_error(file_index: FileIndex, data_path: DataPath, config: DataConfig, requested: str) -> DataError:
    is_label_file_layout = requested in {"auto", *_LABEL_FILE_LAYOUTS}
    if is_label_file_layout and (table := label_files.find_unusable_table(file_index, data_path, config)):
        return columns.missing_columns_error(table, config)
    layouts = list(_EXPECTED_FILES) if requested == "auto" else ["list"] if is_label_file_layout else [requested]
    expected = "; ".join(f"{layout}: {_EXPECTED_FILES[layout]}" for layout in layouts)
    return DataError(
        f"{data_path.file or data_path.root}: no photographs with grades were recognised under layout "
        f"{config.layout}.\n"
        f"Found: {_describe_contents(file_index, data_path)}.\n"
        f"Expected {expected}. A labels.csv with the columns image,level beside the photographs is enough."
    )


def _describe_contents(file_index: FileIndex, data_path: DataPath) -> str:
    if data_path.file:
        return f"the file {data_path.file.name}"
    names = [f"{folder.name}/" for folder in file_index.folders(data_path.root)]
    names += [file.name for file in file_index.files(data_path.root)]
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return printable(", ".join(names[:6]) or "nothing") + more


def _locate_or_raise(
    label_lists: list[LabelList],
    data_path: DataPath,
    layout: str,
    photograph_index: PhotographIndex,
    notes: list[str],
) -> list[LabelList]:
    """Fill in the photographs' paths and return the lists, without optional ones none of whose photographs exists.

    Args:
        label_lists: all lists; their rows are changed in place.
        data_path: the folder or file that the user gave.
        layout: the layout's name, for messages.
        photograph_index: the photographs in the data folder.
        notes: gets a line for each list that is left out.

    Raises:
        PhotographsAbsentError: if none of the photographs of any list exists.
    """
    locate_photographs(label_lists, photograph_index)
    total = sum(len(label_list.rows) for label_list in label_lists)
    if total and all(has_no_photographs(label_list) for label_list in label_lists):
        raise _photographs_absent_error(label_lists, data_path, layout, total, photograph_index)
    kept_lists = []
    for label_list in label_lists:
        if label_list.is_optional and has_no_photographs(label_list):
            n = len(label_list.rows)
            notes.append(f"{label_list.source} lists {n:,} photographs and none of them exists: left out")
        else:
            kept_lists.append(label_list)
    return kept_lists


def _photographs_absent_error(
    label_lists: list[LabelList], data_path: DataPath, layout: str, total: int, photograph_index: PhotographIndex
) -> PhotographsAbsentError:
    first = next(row for label_list in label_lists for row in label_list.rows)
    expected_folder = label_lists[0].photograph_folder or data_path.root
    list_names = " and ".join(label_list.source for label_list in label_lists)
    hint = f"They belong in {expected_folder} ({strip_image_suffix(first.name)}.jpeg, .jpg or .png)"
    if data_path.file:
        hint += f", or give the folder that holds both instead of {data_path.file.name}"
    if photograph_index.folder_counts:
        example = photograph_index.example(next(iter(photograph_index.folder_counts)))
        folders = describe_photograph_folders(photograph_index)
        hint = f"Listed, for example: {first.name}; {folders}, for example {example}"
    hint += f"; {_ORIGINS.get(layout, _EYEPACS)}.\n{_SYNTHETIC_HINT}"
    if first.missing_reason:
        hint = f"{first.where}: {first.name}: {first.missing_reason}"
    return PhotographsAbsentError(
        f"{data_path.root}: {list_names} list {total:,} photographs, and none of them is there.\n{hint}"
    )


def _unused_mapping_notes(config: DataConfig, label_lists: list[LabelList]) -> list[str]:
    """Return a line that names the keys of the grade mapping that match no label, which may be typing errors."""
    if not config.grade_mapping:
        return []
    labels = {mapping_key(row.grade) for label_list in label_lists for row in label_list.rows}
    unmatched = [label for label in config.grade_mapping if mapping_key(label) not in labels]
    return [f"data.grade_mapping: no label is {', '.join(map(repr, unmatched))}"] if unmatched else []


def _row_notes(rows: Iterable[LabelRow], bad: list[BadRow], photograph_index: PhotographIndex) -> list[str]:
    """Return lines on ungradable photographs and on rows whose split differs from that of their folder."""
    notes = []
    if ungradable := sum(bad_row.ungradable for bad_row in bad):
        notes.append(f"{ungradable:,} ungradable {'photograph is' if ungradable == 1 else 'photographs are'} left out")
    contradicted = [row for row in rows if row.name and row.path and _is_in_another_split(row, photograph_index)]
    if contradicted:
        row = contradicted[0]
        notes.append(
            f"{len(contradicted):,} photographs lie in the folder of another split than their row gives; the row "
            f"counts: {row.where} gives {row.split} for {row.image}"
        )
    return notes


def _is_in_another_split(row: LabelRow, photograph_index: PhotographIndex) -> bool:
    row_split = split_words.parse_split(row.split)
    folder_split = photograph_index.split_of(row.path) if row.path else ""
    return bool(row_split and folder_split and row_split != folder_split)
