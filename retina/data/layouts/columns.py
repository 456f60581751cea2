"""Which column of a label file names the photographs, which one holds their grades, and which the rest.

The user's own choice comes first, then the names of the public sets, then the content: a single column that names
photographs that are there, a single one that holds nothing but grades.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from retina.config import DataConfig
from retina.data.formats import own_name
from retina.data.layouts import split_words
from retina.data.layouts.csv_reader import Table, normalize_title
from retina.data.layouts.file_index import leaves_folder
from retina.data.layouts.gradable import GradableColumn, parse_gradable_column
from retina.data.layouts.grades import GradeReader
from retina.data.layouts.photograph_index import PhotographIndex
from retina.data.layouts.validation import parse_eye, parse_patient
from retina.errors import DataError

IMAGE_TITLES = (
    "image", "id_code", "image_name", "image_id", "filename", "file_name", "file", "image_path", "path", "name", "img",
    "img_name", "image_file", "image_filename", "img_path", "filepath", "file_path",
)  # fmt: skip
GRADE_TITLES = (
    "level", "diagnosis", "grade", "retinopathy_grade", "dr_grade", "label", "adjudicated_dr_grade", "dr_icdr",
    "final_icdr", "dr_level", "icdr", "icdr_grade", "icdr_level", "dr_class", "diabetic_retinopathy_grade",
    "dr_severity", "class",
)  # fmt: skip
_OF_ANYTHING = {"label", "class", "diagnosis"}
"""Names for grades that are also names for a yes and no."""
KEYWORDS = "diagnostic_keywords"
_OTHERS = {
    "split": ("split", "set", "subset", "partition"),
    "patient": ("patient", "patient_id", "subject", "subject_id"),
    "eye": ("eye", "laterality", "side", "exam_eye"),
}
_ROLES = ("image", "grade", "patient", "eye")
"""What a key of the user's may choose a column for."""
_OF_AN_EYE = re.compile(r"(?:(left|right)(?:_eye)?_(.+)|(.+?)_(?:of_)?(left|right)(?:_eye)?)")
_RETITLE = "give one of them another title"
_COUNTERS = {"", "index", "id", "unnamed:_0", "unnamed:_0.1", "number", "no"}
_SHOWN = 6
_LEAST_GRADES = 3
"""Different grades in a column of no known name that is taken for the grades: 0 and 1 are a yes and no of anything."""


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that mean something; None where there is none.

    Attributes:
        image: names the photograph of a row.
        grade: its grade.
        split: its split.
        patient: whom it is of.
        eye: which eye it shows.
        gradable: those that say whether anybody could grade it, none, one, or one an eye.
        eyes: "left" and "right" to the columns of that eye's photograph (None: that of `image`) and grade, where a row
            has both eyes' grades.
        keywords: whether the eyes' grades are diagnostic keywords.
        choices: what was chosen where more than the known names decided.
    """

    image: int | None = None
    grade: int | None = None
    split: int | None = None
    patient: int | None = None
    eye: int | None = None
    gradable: tuple[GradableColumn, ...] = ()
    eyes: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    keywords: bool = False
    choices: list[str] = field(default_factory=list)

    @property
    def are_enough(self) -> bool:
        """Whether they name photographs and their grades."""
        named = self.image is not None or (
            len(self.eyes) == 2 and all(image is not None for image, _ in self.eyes.values())
        )
        return named and (self.grade is not None or len(self.eyes) == 2)


def find_known_columns(titles: list[str], config: DataConfig) -> Columns:
    """The columns that the user chose, and of the rest those of known names.

    Raises:
        DataError: a column that the user chose is not there.
    """
    at = _positions(titles)
    chosen_titles = [title for role in _ROLES if (title := getattr(config, f"{role}_column"))]
    twins = {normalize_title(title) for title in chosen_titles if titles.count(title) != 1}
    _refuse_twins(titles, {*IMAGE_TITLES, *GRADE_TITLES, *twins})
    chosen = {role: _named(titles, at, getattr(config, f"{role}_column"), role) for role in _ROLES}
    found = {role: next((at[name] for name in names if name in at), None) for role, names in _OTHERS.items()}
    eyes = _eyes(at) if chosen["grade"] is None else {}
    grade = chosen["grade"]
    if grade is None and not eyes:
        grade = next((at[name] for name in GRADE_TITLES if name in at), None)
    image = chosen["image"]
    if image is None:
        image = next((at[name] for name in IMAGE_TITLES if name in at), None)
    patient = chosen["patient"] if chosen["patient"] is not None else found["patient"]
    if patient is None and eyes:
        patient = at.get("id")
    return Columns(
        image=image,
        grade=grade,
        split=found["split"],
        patient=patient,
        eye=chosen["eye"] if chosen["eye"] is not None else found["eye"],
        gradable=_first_of_each_eye(
            [one for name, place in at.items() if (one := parse_gradable_column(place, titles[place], name))]
        ),
        eyes=eyes,
        keywords=any(KEYWORDS in normalize_title(titles[grade]) for _, grade in eyes.values()),
    )


def _first_of_each_eye(columns: list[GradableColumn]) -> tuple[GradableColumn, ...]:
    firsts: dict[str, GradableColumn] = {}
    for one in columns:
        firsts.setdefault(one.eye, one)
    return tuple(firsts.values())


def choose_columns(table: Table, config: DataConfig, reader: GradeReader, index: PhotographIndex | None) -> Columns:
    """The columns of a table with a header.

    Args:
        table: all of it.
        config: the user's choice.
        reader: tells grades.
        index: the photographs that are there; None where they may be absent, and names alone decide.

    Raises:
        DataError: no column, or more than one, could be meant; names those that there are. Or there is no header.
    """
    columns = find_known_columns(table.titles, config)
    at = _positions(table.titles)
    choices: list[str] = []
    image, grade = columns.image, columns.grade
    if config.image_column is None and index is not None and not (columns.eyes and image is None):
        image = _image_column(table, [at[name] for name in IMAGE_TITLES if name in at], index, choices)
    if config.grade_column is None and not columns.eyes:
        taken = {image, *(at[name] for names in _OTHERS.values() for name in names if name in at)}
        taken |= {columns.patient, columns.eye, *(one.at for one in columns.gradable)}
        grade = _grade_column(table, [at[name] for name in GRADE_TITLES if name in at], taken, reader, choices)
    chosen_by_key = {role: getattr(config, f"{role}_column") for role in _ROLES}
    choices += [f"{role} column {title}, as data.{role}_column says" for role, title in chosen_by_key.items() if title]
    found = replace(columns, image=image, grade=grade, choices=choices)
    if not found.are_enough:
        raise _missing(table, no_image=image is None, no_grade=grade is None and not columns.eyes)
    _refuse_row_as_header(table, grade)
    return _of_agreeing(table, found, config, reader)


def _refuse_row_as_header(table: Table, grade: int | None) -> None:
    """Stop where the first line is a row: as a header it would take a photograph away.

    Raises:
        DataError: the title of the grades is itself a grade, or a number.
    """
    title = table.titles[grade] if grade is not None else ""
    reader = GradeReader({})
    if table.lines and re.fullmatch(r"\D+", title) and (reader(title) is not None or reader.is_ungradable(title)):
        raise DataError(
            f"{table.file}: the title {title!r} of its column of grades is itself a grade; give it another one,\n"
            f"or, if the first line is a row, write a header above it: {IMAGE_TITLES[0]},{GRADE_TITLES[0]} for a name and a grade"
        )
    if reader(title) is not None or reader.is_ungradable(title) or re.fullmatch(r"[-+]?\d+(?:[.,]\d*)?", title):
        raise DataError(
            f"{table.file}: its first line is a row ({', '.join(map(repr, table.titles[:_SHOWN]))}) and no header;\n"
            f"write one above it, {IMAGE_TITLES[0]},{GRADE_TITLES[0]} for a name and a grade"
        )


def _positions(titles: list[str]) -> dict[str, int]:
    at: dict[str, int] = {}
    for place, title in enumerate(titles):
        at.setdefault(normalize_title(title), place)
    return at


def _refuse_twins(titles: list[str], read: AbstractSet[str]) -> None:
    """Stop where two columns have one title, as `normalize_title` has it, that we would read.

    Raises:
        DataError: names the title.
    """
    counts = Counter(normalize_title(title) for title in titles)
    twins = [title for title in titles if counts[normalize_title(title)] > 1 and normalize_title(title) in read]
    if twins:
        raise DataError(f"{counts[normalize_title(twins[0])]} columns are called {twins[0]!r}; {_RETITLE}")


def _named(titles: list[str], at: dict[str, int], wanted: str | None, role: str) -> int | None:
    if wanted is None:
        return None
    if wanted in titles:
        return titles.index(wanted)
    if normalize_title(wanted) in at:
        return at[normalize_title(wanted)]
    raise DataError(f"data.{role}_column is {wanted!r}; found the columns: {_listed(titles)}")


def _of_agreeing(table: Table, found: Columns, config: DataConfig, reader: GradeReader) -> Columns:
    """The same columns, where of several known names for one thing those with the same to say are the first of them.

    Raises:
        DataError: two columns that are read have one title, or say different things; names both.
    """
    at = _positions(table.titles)
    gradable = [one for name, place in at.items() if (one := parse_gradable_column(place, table.titles[place], name))]
    try:
        _refuse_twins(table.titles, {name for name in at if _is_read(name)} | ({"id"} if found.eyes else set()))
    except DataError as error:
        raise DataError(f"{table.file}: {error}") from None
    first: dict[str, int | None] = {"split": found.split, "patient": found.patient, "eye": found.eye}
    own = [own_name(name) for name in table.column(found.image)] if found.image is not None else []
    for role, names in _OTHERS.items():
        places = [at[name] for name in names if name in at]
        if len(places) > 1 and getattr(config, f"{role}_column", None) is None:
            cells = {place: _meaning(role, table.column(place), own) for place in places}
            remedy = _RETITLE if role == "split" else f"choose one with data.{role}_column"
            first[role] = _first_of(table, cells, role, remedy, found.choices)
    kept = []
    for eye in dict.fromkeys(one.eye for one in gradable):
        mine = {one.at: one for one in gradable if one.eye == eye}
        said = {place: [str(one.says(cell)) for cell in table.column(place)] for place, one in mine.items()}
        kept.append(mine[_first_of(table, said, "gradable", _RETITLE, found.choices)])
    for eye in found.eyes:
        places = [
            place
            for name, place in at.items()
            if _eye_and_base(name)[0] == eye and _eye_and_base(name)[1] in GRADE_TITLES
        ]
        if len(places) > 1:
            grades = {place: [_text_of(reader(cell)) for cell in table.column(place)] for place in places}
            grade = _first_of(table, grades, f"{eye} grade", _RETITLE, found.choices)
            found = replace(found, eyes={**found.eyes, eye: (found.eyes[eye][0], grade)})
    split, patient, eye_at = first["split"], first["patient"], first["eye"]
    return replace(found, split=split, patient=patient, eye=eye_at, gradable=tuple(kept))


def _text_of(grade: int | None) -> str:
    return "" if grade is None else str(grade)


def _eye_and_base(name: str) -> tuple[str, str]:
    """The eye that a title, as `normalize_title` has it, is of, and the rest of it; both empty where it is of none."""
    match = _OF_AN_EYE.fullmatch(name)
    return (match[1] or match[4], match[2] or match[3]) if match else ("", "")


def _is_read(name: str) -> bool:
    """Whether a column of this title, as `normalize_title` has it, is read if it is there."""
    return (
        _eye_and_base(name)[1] in {*IMAGE_TITLES, "fundus", *GRADE_TITLES, KEYWORDS}
        or any(name in names for names in _OTHERS.values())
        or parse_gradable_column(0, name, name) is not None
    )


def _meaning(role: str, cells: list[str], own: list[str]) -> list[str]:
    """What the cells of a column say, alike where they mean alike; all empty where they say nothing.

    Args:
        role: "split", "patient" or "eye".
        cells: of the column.
        own: the photographs' own names; patients who are called so are none.
    """
    if role == "split":
        return [split_words.parse_split(cell) or "" for cell in cells]
    if role == "eye":
        return [parse_eye(cell) for cell in cells]
    named = [parse_patient(cell) for cell in cells]
    if all(not name or own_name(name) == mine for name, mine in zip(named, own, strict=False)):
        return [""] * len(cells)
    numbers: dict[str, str] = {"": ""}
    return [numbers.setdefault(name, str(len(numbers))) for name in named]


def _first_of(table: Table, columns: dict[int, list[str]], role: str, remedy: str, choices: list[str]) -> int:
    """The first of the columns that say anything, if all of these say the same.

    Raises:
        DataError: they do not.
    """
    telling = [at for at, cells in columns.items() if any(cells)] or list(columns)
    if any(columns[at] != columns[telling[0]] for at in telling[1:]):
        raise DataError(f"{table.file}: the columns {_titles(table, telling)} differ; {remedy}")
    if len(columns) > 1:
        choices.append(f"{role} from column {table.titles[telling[0]]}, of {_titles(table, list(columns))}")
    return telling[0]


def _eyes(at: dict[str, int]) -> dict[str, tuple[int | None, int]]:
    """The columns of both eyes' grades, and of their photographs where these have columns of their own."""
    images: dict[str, int] = {}
    grades: dict[str, int] = {}
    for name, place in at.items():
        eye, base = _eye_and_base(name)
        if base in {*IMAGE_TITLES, "fundus"}:
            images.setdefault(eye, place)
        elif base in {*GRADE_TITLES, KEYWORDS}:
            grades.setdefault(eye, place)
    return {eye: (images.get(eye), place) for eye, place in grades.items()} if len(grades) == 2 else {}


def _image_column(table: Table, named: list[int], index: PhotographIndex, choices: list[str]) -> int | None:
    """Of the columns of known names the one that names most photographs that are there; else the only one that does."""
    if len(named) == 1:
        return named[0]
    if named:
        counts = {at: _there(table.column(at), index) for at in named}
        best = max(named, key=lambda at: counts[at])
        choices.append(f"photographs from column {table.titles[best]}, of {_titles(table, named)}")
        return best
    found = [at for at in range(len(table.titles)) if _there(table.column(at), index) * 2 >= max(len(table.lines), 1)]
    return _only(table, found, "names photographs", "image", choices)


def _there(cells: list[str], index: PhotographIndex) -> int:
    """How many cells name a photograph that is there; a column that repeats few names is another thing."""
    names = set(cells) - {""}
    if len(names) * 2 < len(cells):
        return 0
    return sum(not leaves_folder(name) and index.has(name) for name in names)


def _grade_column(
    table: Table, named: list[int], taken: set[int | None], reader: GradeReader, choices: list[str]
) -> int | None:
    """Of the columns of known names the one that holds grades; else the only one that holds nothing else."""
    if named:
        chosen = _of_several(table, named, reader, choices) if len(named) > 1 else named[0]
        _refuse_yes_and_no(table, chosen, _graded(table, {*taken, *named}, reader), reader)
        return chosen
    return _only(table, _graded(table, taken, reader), "holds only grades", "grade", choices)


def _graded(table: Table, taken: set[int | None], reader: GradeReader) -> list[int]:
    """The columns, but for those taken and those that count rows, that hold nothing but grades, three at least."""
    found = []
    for at, title in enumerate(table.titles):
        if at not in taken and normalize_title(title) not in _COUNTERS:
            cells = set(table.column(at)) - {""}
            grades = {reader(cell) for cell in cells if not reader.is_ungradable(cell)}
            if None not in grades and len(grades) >= _LEAST_GRADES:
                found.append(at)
    return found


def _refuse_yes_and_no(table: Table, chosen: int, others: list[int], reader: GradeReader) -> None:
    """Stop where a column of a name for anything holds 0 and 1 alone, and another one may well hold the grades.

    Raises:
        DataError: names both.
    """
    grades = {reader(cell) for cell in table.column(chosen)} - {None}
    if others and grades == {0, 1} and normalize_title(table.titles[chosen]) in _OF_ANYTHING:
        raise DataError(
            f"{table.file}: the column {table.titles[chosen]} holds 0 and 1 alone, and {_titles(table, others)} "
            f"{'holds' if len(others) == 1 else 'hold'} only grades; choose one with data.grade_column"
        )


def _of_several(table: Table, named: list[int], reader: GradeReader, choices: list[str]) -> int:
    """The first of them that holds grades, if those that do agree."""
    columns = {at: [reader(cell) for cell in table.column(at)] for at in named}
    graded = [at for at in named if any(grade is not None for grade in columns[at])] or named
    first = graded[0]
    for other in graded[1:]:
        if any(a is not None and b is not None and a != b for a, b in zip(columns[first], columns[other], strict=True)):
            raise DataError(
                f"{table.file}: the columns {_titles(table, graded)} hold different grades; "
                "choose one with data.grade_column"
            )
    choices.append(f"grades from column {table.titles[first]}, of {_titles(table, named)}")
    return first


def _only(table: Table, found: list[int], what: str, role: str, choices: list[str]) -> int | None:
    if len(found) > 1:
        raise DataError(
            f"{table.file}: each of the columns {_titles(table, found)} {what}; choose one with data.{role}_column"
        )
    if found:
        choices.append(f"column {table.titles[found[0]]}, the only one that {what}")
    return found[0] if found else None


def missing_columns_error(table: Table, config: DataConfig) -> DataError:
    """The complaint about a table in which no column of a known name is for the photograph, or for its grade."""
    found = find_known_columns(table.titles, config)
    return _missing(table, no_image=found.image is None, no_grade=found.grade is None)


def _missing(table: Table, *, no_image: bool, no_grade: bool) -> DataError:
    lacking = [
        *([f"one for the photograph ({', '.join(IMAGE_TITLES[:_SHOWN])} or another known one)"] if no_image else []),
        *([f"one for its grade ({', '.join(GRADE_TITLES[:_SHOWN])} or another known one)"] if no_grade else []),
    ]
    return DataError(
        f"{table.file}: found the columns: {_listed(table.titles)}\n"
        f"needed: {' and '.join(lacking)}\n"
        "columns of other names are told by data.image_column and data.grade_column"
    )


def _titles(table: Table, columns: list[int]) -> str:
    return ", ".join(table.titles[at] or f"number {at + 1}" for at in columns)


def _listed(titles: list[str]) -> str:
    return ", ".join(title for title in titles if title) or "nothing"
