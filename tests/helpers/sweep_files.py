"""Small sweep files, read or refused."""

from pathlib import Path

import pytest

from retina.config.sweep import SweepSpec, load
from retina.errors import SpecError

SMALL = """name: small
trials: 2
parameters:
  epochs: {value: 1}
"""


def loaded(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> SweepSpec:
    (file := folder / "x.yaml").write_text(text, encoding="utf-8")
    return load(file, overrides=overrides)


def refusal(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as error:
        loaded(folder, text, overrides)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value).replace(f"{folder}/", "")
