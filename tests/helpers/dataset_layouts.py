"""Tiny data folders for the tests of the layouts, and functions that read them."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retina.config import DataConfig
from retina.data.layouts import read
from retina.data.manifest import Manifest
from retina.errors import DataError


def photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (120, 60, 20)).save(path)


def photographs(folder: Path, *names: str) -> None:
    for name in names:
        photograph(folder / name)


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def load(path: Path, *, alone: bool = False, **settings: Any) -> Manifest:
    return read(DataConfig(path=str(path), **settings), photographs=not alone)


def refused(path: Path, *, alone: bool = False, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(path, alone=alone, **settings)
    return str(caught.value)


def grades(manifest: Manifest) -> dict[str, int]:
    return dict(zip(manifest.frame["image"], manifest.frame["grade"].tolist(), strict=True))


def column(manifest: Manifest, name: str) -> list[Any]:
    return manifest.frame[name].tolist()


def places(manifest: Manifest) -> list[str]:
    root = manifest.root if manifest.root.is_dir() else manifest.root.parent
    return [Path(path).relative_to(root).as_posix() for path in manifest.frame["path"]]


def eyepacs_folder(tmp_path: Path) -> Path:
    text(tmp_path / "trainLabels.csv", "image,level\n10_left,0\n10_right,1\n13_left,4\n")
    photographs(tmp_path / "train", "10_left.jpeg", "10_right.jpg", "13_left.png")
    return tmp_path


def listed(folder: Path, *rows: str, header: str = "image,level", name: str = "labels.csv") -> Path:
    return text(folder / name, "\n".join([header, *rows]) + "\n")
