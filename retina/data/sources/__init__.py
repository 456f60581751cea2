"""The label files of each public layout, read into one manifest.

A layout is a question ("are its label files here?") and a reader that gives rows as they are written; what can be
wrong with a row is checked in one place for all of them (`rows.check`). `tree` lists folders, `tables` reads label
files, `lists`, `folders` and `arrays` hold the layouts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retina.config import DataConfig
from retina.data.manifest import COLUMNS, Manifest, refuse
from retina.data.sources import arrays, folders, lists
from retina.data.sources.lists import Place
from retina.data.sources.rows import Labels, assume, check, is_absent, locate, to_frame
from retina.data.sources.tree import Tree, is_text, own_name, printable
from retina.errors import DataError, PhotographsAbsentError

__all__ = ["place", "read"]

_log = logging.getLogger(__name__)

_EYEPACS = 'EyePACS is the Kaggle competition "diabetic-retinopathy-detection"'
_ORIGINS = {
    "aptos": 'APTOS 2019 is the Kaggle competition "aptos2019-blindness-detection"',
    "idrid": "IDRiD is at https://idrid.grand-challenge.org, Disease Grading",
}
_WITHOUT = "To try sweep or train without photographs: --data synthetic; retina data draw DIR draws some"


@dataclass(frozen=True)
class _Layout:
    name: str
    looks_for: str
    here: Callable[[Tree, Place], bool]
    read: Callable[[Tree, Place], list[Labels]]


_LAYOUTS = (  # in the order in which "auto" asks for them
    _Layout("course", "train_img.csv and its three companions", lists.is_course, lists.course),
    _Layout("eyepacs", "trainLabels.csv", lists.is_eyepacs, lists.eyepacs),
    _Layout("aptos", "train.csv", lists.is_aptos, lists.aptos),
    _Layout("idrid", "IDRiD's label files", lists.is_idrid, lists.idrid),
    _Layout("list", "labels.csv", lists.is_any_list, lists.any_list),
    _Layout("folders", "folders 0 to 4 or No_DR to Proliferate_DR", folders.is_folders, folders.folders),
    _Layout("medmnist", "one .npz file", arrays.is_medmnist, arrays.medmnist),
)
_ALSO_AS_LIST = {"eyepacs", "aptos", "idrid"}
"""Layouts of one list with a header: under their names any such list is read."""


def read(config: DataConfig, *, photographs: bool = True) -> Manifest:
    """Read the photographs' names, grades, patients and official splits at `config.path`.

    Args:
        config: `path` is a folder, a label file in it, or an npz file; `layout` may be "auto".
        photographs: False reads label lists alone; `path` is then where a photograph belongs.

    Raises:
        DataError: nothing there, no known layout, label files that cannot be read, no photographs (then it is a
            PhotographsAbsentError); and bad rows, unless `config.on_bad` is "skip".
    """
    here = place(config.path)
    tree = Tree()
    layout = _recognise(tree, here, config.layout)
    labels = layout.read(tree, here)
    name = lists.family(tree, here) if layout.name == "list" else layout.name
    if config.layout in _ALSO_AS_LIST:
        name = config.layout
    labels = _with_photographs(labels, tree, here, name) if photographs else [assume(one) for one in labels]

    root = here.file or here.root
    rows, bad = check([row for one in labels for row in one.rows], here.root)
    refuse(bad, root, config.on_bad)
    if not rows:
        why = f"the first of {len(bad):,} that cannot: {bad[0]}" if bad else "the label files are empty"
        raise DataError(f"{root}: layout {name}: no photograph can be used; {why}")
    frame = to_frame(rows)
    if set(frame["split"]) == {"train"}:  # a training list alone says nothing about how to split it
        frame = frame.assign(split="").astype(COLUMNS)
    return Manifest(frame, name, root, bad)


def place(given: str) -> Place:
    """The folder or file that a user pointed at.

    Raises:
        DataError: there is none, it may not be looked at, or its name is not UTF-8, which no table of ours takes.
    """
    told = printable(given)
    try:
        path = Path(given).expanduser().absolute()
        found = Place(path) if path.is_dir() else Place(path.parent, path) if path.is_file() else None
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


def _recognise(tree: Tree, place: Place, wanted: str) -> _Layout:
    wanted = "eyepacs" if wanted == "synthetic" else wanted  # drawn photographs lie in the layout of EyePACS
    known = {layout.name: layout for layout in _LAYOUTS}
    names = list(known) if wanted == "auto" else [wanted, *(["list"] if wanted in _ALSO_AS_LIST else [])]
    for name in names:
        if known[name].here(tree, place):
            return known[name]
    if wanted in {"auto", "aptos"} and place.may_be(lists.APTOS["train"]) and tree.file(place.root, "train.csv"):
        return known["aptos"]  # whose reader says which columns its train.csv lacks
    looked = "; ".join(f"{known[name].name}: {known[name].looks_for}" for name in names)
    raise DataError(
        f"{place.file or place.root}: no photographs with grades were recognised under layout {wanted}.\n"
        f"There: {_contents(tree, place)}.\n"
        f"Looked for {looked}. A labels.csv with the columns image,level beside the photographs will do."
    )


def _contents(tree: Tree, place: Place) -> str:
    if place.file:
        return f"the file {place.file.name}"
    names = [f"{folder.name}/" for folder in tree.folders(place.root)]
    names += [file.name for file in tree.files(place.root)]
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return printable(", ".join(names[:6]) or "nothing") + more


def _with_photographs(labels: list[Labels], tree: Tree, place: Place, layout: str) -> list[Labels]:
    located = [locate(one, tree) for one in labels]
    total = sum(len(one.rows) for one in located)
    if total and all(is_absent(one) for one in located):
        raise _no_photographs(located, place, layout, total)
    kept = []
    for one in located:
        if one.optional and is_absent(one):
            _log.warning(
                "%s: %s lists %s photographs and none is there: left out", place.root, one.source, f"{len(one.rows):,}"
            )
        else:
            kept.append(one)
    return kept


def _no_photographs(labels: list[Labels], place: Place, layout: str, total: int) -> PhotographsAbsentError:
    first = next(row for one in labels for row in one.rows)
    belongs = first.folders[0] if first.folders else place.root
    sources = " and ".join(one.source for one in labels)
    return PhotographsAbsentError(
        f"{place.root}: {sources} list {total:,} photographs, and none of them is there.\n"
        f"They belong in {belongs} ({own_name(first.name)}.jpeg, .jpg or .png); {_ORIGINS.get(layout, _EYEPACS)}.\n"
        f"{_WITHOUT}"
    )
