"""Changed npz files in the layout of MedMNIST, given to `data prepare`, `data audit` and `sweep --dry-run`."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.robustness import damage, world
from benchmarks.robustness.case import Command, CommandResult, Input, Rng, all_of, must_be_refused, pick
from benchmarks.robustness.oracle import Prediction, finds, prepares
from benchmarks.robustness.world import World

SIDE = 28
Arrays = dict[str, Any]
NPZ = "eyes.npz"


class Changed:
    """The arrays of a file, the expected results, and its bytes if they are not simply these arrays."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.data: bytes | None = None
        self.bad = ""  # why it must be refused unless bad rows are skipped
        self.always_refused = ""  # why it must be refused in any case
        self.unknown = False  # whether the right number of photographs is unknown
        self.lost: list[int] = []  # grades of the rows that must be skipped
        self.marker: Path | None = None  # a path that exists if code in the npz was run


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))  # a fixed time, so that the bytes are reproducible
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return out.getvalue()


def _members(changed: Changed) -> dict[str, bytes]:
    return {f"{name}.npy": _npy(array) for name, array in changed.arrays.items()}


def _array_name(changed: Changed, rng: Rng, kind: str) -> str:
    return f"{pick(rng, ('train', 'val', 'test'))}_{kind}"


def _bytes(changed: Changed, rng: Rng) -> str:
    change = damage.BYTES[int(rng.integers(len(damage.BYTES)))]
    whole = _zip(_members(changed))
    changed.data, what = change(whole, rng)
    if change in {damage.truncated, damage.emptied, damage.replaced_by_text}:
        changed.always_refused = what
    changed.unknown = True  # an array that cannot be read may be skipped
    return what


def _array_missing(changed: Changed, rng: Rng) -> str:
    name = pick(rng, list(changed.arrays))
    del changed.arrays[name]
    changed.always_refused = "" if name.startswith(("val_", "test_")) else f"{name} is missing"
    changed.unknown = True
    return f"{name} is missing"


def _label_value(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "labels")
    labels = changed.arrays[name]
    value = pick(rng, (5, -1, 255, 1.5, float("nan"), float("inf")))
    row = int(rng.integers(len(labels)))
    changed.lost.append(int(labels[row, 0]))
    labels = labels.astype(np.float64 if isinstance(value, float) else np.int64)
    labels[row, 0] = value
    changed.arrays[name], changed.bad = labels, f"the grade {value}"
    return f"{name}[{row}] is {value}"


def _label_type(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "labels")
    kind = pick(rng, ("float32", "int8", ">i4", "uint64", "U1", "S1", "complex64"))
    changed.arrays[name] = changed.arrays[name].astype(kind)
    changed.unknown = kind in {"S1", "complex64"}  # these may be refused or skipped
    return f"{name} is {kind}"


def _labels_bool(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "labels")
    changed.arrays[name] = changed.arrays[name] > 1
    changed.bad, changed.unknown = "labels that are true or false", True
    return f"{name} is bool"


def _label_shape(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "labels")
    labels = changed.arrays[name]
    variants = (
        np.eye(5, dtype=np.int64)[labels[:, 0]], labels[:-1], np.repeat(labels, 2, axis=0), labels[:, :0], np.int64(2),
        labels[None], labels[:0],
    )  # fmt: skip
    changed.arrays[name] = variants[int(rng.integers(len(variants)))]
    changed.always_refused = "labels and photographs differ in number"
    return f"{name} has shape {np.shape(changed.arrays[name])}"


def _flat_labels(changed: Changed, rng: Rng) -> str:
    for split in ("train", "val", "test"):
        changed.arrays[f"{split}_labels"] = changed.arrays[f"{split}_labels"][:, 0]
    return "labels of shape (n,)"


def _image_type(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "images")
    images = changed.arrays[name]
    kind = pick(rng, ("float32", "int16", "uint16", "bool", "int8", "float64"))
    changed.arrays[name] = images.astype(kind) / 255 if kind.startswith("float") else images.astype(kind)
    changed.always_refused = f"photographs of type {kind}"
    return f"{name} is {kind}"


def _image_shape(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "images")
    images = changed.arrays[name]
    variants = (images.transpose(0, 3, 1, 2), images[..., :1], np.concatenate([images, images[..., :1]], -1),
                images[:, :0], images[0], images[..., None], images[:, :, :, :2],
                images.reshape(len(images), -1))  # fmt: skip
    changed.arrays[name] = variants[int(rng.integers(len(variants)))]
    changed.always_refused = "an array that holds no photographs"
    return f"{name} has shape {changed.arrays[name].shape}"


def _grey(changed: Changed, rng: Rng) -> str:
    for split in ("train", "val", "test"):
        changed.arrays[f"{split}_images"] = changed.arrays[f"{split}_images"].mean(-1).astype(np.uint8)
    return "grey photographs (n, height, width)"


def _order(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, "images")
    changed.arrays[name] = np.asfortranarray(changed.arrays[name])
    return f"{name} in Fortran order"


def _empty_split(changed: Changed, rng: Rng) -> str:
    split = pick(rng, ("train", "val", "test"))
    for kind in ("images", "labels"):
        changed.arrays[f"{split}_{kind}"] = changed.arrays[f"{split}_{kind}"][:0]
    changed.unknown = True
    return f"no photograph in {split}"


def _claimed(changed: Changed, rng: Rng) -> str:
    """Write a header that claims more rows than the array holds."""
    kind = pick(rng, ("images", "labels"))
    name = _array_name(changed, rng, kind)
    members = _members(changed)
    number = int(pick(rng, (2_000_000, 10**9, 2**62, len(changed.arrays[name]) + 1)))
    shape = (number, SIDE, SIDE, 3) if kind == "images" else (number, 1)
    descr = "|u1" if kind == "images" else changed.arrays[name].dtype.str
    members[f"{name}.npy"] = _header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}") + bytes(
        1000
    )
    if kind == "images" and number < 10**9:  # write as many labels, so that only the photographs are missing
        labels = np.zeros((number, 1), np.uint8)
        members[f"{name.replace('images', 'labels')}.npy"] = _npy(labels)
    changed.data, changed.always_refused = _zip(members), f"{name} claims {number:,} rows and holds none"
    return changed.always_refused


def _header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    body = text.encode("latin1", "replace")
    body += b" " * (63 - (10 + len(body)) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(body)) + body


def _header_text(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, pick(rng, ("images", "labels")))
    texts = (
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28, 3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': 'banana', 'fortran_order': False, 'shape': (2,), }", "{}", "",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 5}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1.5, 28, 28, 3), }", "[" * 60, "__import__('os')",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2,), }",
    )  # fmt: skip
    text = pick(rng, texts)
    members = _members(changed)
    members[f"{name}.npy"] = _header(text, (1, 0) if rng.random() < 0.8 else (9, 9)) + bytes(500)
    changed.data, changed.always_refused = _zip(members), "a header that is none"
    return f"{name}: the header {text[:60]!r}"


class _Runs:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def _pickled(changed: Changed, rng: Rng) -> str:
    name = _array_name(changed, rng, pick(rng, ("images", "labels")))
    array = np.empty(len(changed.arrays[name]), object)
    array[:] = [_Runs(changed.marker or Path("ran"))] * len(array)
    changed.arrays[name], changed.always_refused = array, "pickled objects"
    return f"{name} holds pickled objects"


def _zip_members(changed: Changed, rng: Rng) -> str:
    members = _members(changed)
    variant = int(rng.integers(6))
    if variant == 0:
        members = {name.removesuffix(".npy"): data for name, data in members.items()}
        changed.unknown, what = True, "members without .npy"
    elif variant == 1:
        members = {f"folder/{name}": data for name, data in members.items()}
        changed.unknown, what = True, "members in a folder"
    elif variant == 2:
        members |= {"../../evil.npy": members["train_labels.npy"], "/evil.npy": b"x"}
        what = "more members, with names that lead outside"
    elif variant == 3:
        changed.data, changed.always_refused = members["train_images.npy"], "an npy, not an npz"
        return changed.always_refused
    elif variant == 4:
        data = bytearray(_zip(members))
        at = 0
        while (at := data.find(b"PK\x01\x02", at)) >= 0:
            data[at + 8] |= 1  # encrypted
            at += 4
        changed.data, changed.always_refused = bytes(data), "encrypted members"
        return changed.always_refused
    else:
        what = "one more array"
        members["note.npy"] = _npy(np.array(["x"], object))
    changed.data = _zip(members)
    return what


CHANGES: tuple[Callable[[Changed, Rng], str], ...] = (
    _bytes, _array_missing, _label_value, _label_type, _labels_bool, _label_shape, _flat_labels, _image_type,
    _image_shape, _grey, _order, _empty_split, _claimed, _header_text, _pickled, _zip_members, _bytes, _claimed,
    _label_value, _zip_members,
)  # fmt: skip


def make(whole: World, _: Mapping[str, Mapping[str, Prediction]], folder: Path, rng: Rng, number: int) -> Input:
    """Create a changed npz file."""
    changed = Changed(_whole_arrays(whole))
    changed.marker = folder / "ran"
    grades = np.concatenate([changed.arrays[f"{split}_labels"][:, 0] for split in ("train", "val", "test")])
    what = CHANGES[number % len(CHANGES)](changed, rng)
    (folder / NPZ).write_bytes(_zip(_members(changed)) if changed.data is None else changed.data)
    skip = rng.random() < 0.3
    on_bad = "skip" if skip else "stop"
    refused = changed.always_refused or ("" if skip else changed.bad)
    unused = len(changed.lost)
    by_grade = np.bincount(grades, minlength=5) - np.bincount(changed.lost, minlength=5)
    right = None if changed.unknown else by_grade.tolist()

    def check_marker(_: CommandResult) -> str:
        return "ran code from the file" if changed.marker and changed.marker.exists() else ""

    prepare = must_be_refused(refused) if refused else prepares(right, unused)
    commands = [
        Command(
            ("data", "prepare", NPZ, "--image-size", "64", "--on-bad", on_bad),
            check=all_of(check_marker, prepare),
            names=(NPZ,),
        )
    ]
    if rng.random() < 0.5:
        argv = ("data", "audit", NPZ, "--image-size", "64", "--html", "page.html")
        commands.append(Command(argv, ("page.html", "page-unused.csv"), check_marker, names=(NPZ,)))
    else:
        values = world.sweep_file("x", folder)
        values["data"] = {"path": NPZ, "image_size": 64, "on_bad": on_bad}
        (folder / "x.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        # the dry run reads labels and headers only; the sweep itself finds damaged photographs
        dry = finds(sum(right) if right is not None and not changed.always_refused else None, unused)
        commands.append(
            Command(("sweep", "--space", "x.yaml", "--dry-run"), check=all_of(check_marker, dry), names=(NPZ,))
        )
    return Input(what, commands)


def _whole_arrays(whole: World) -> Arrays:
    arrays: Arrays = {}
    grades = whole.grades()
    files = whole.some(30)
    for split, split_files in (("train", files[:16]), ("val", files[16:23]), ("test", files[23:30])):
        images = [np.array(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in split_files]
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([[grades[file.stem]] for file in split_files], np.int64)
    return arrays
