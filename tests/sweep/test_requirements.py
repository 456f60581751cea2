"""What a node must have before it runs trials, looked at without Ray: the results folder, versions, photographs."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tiny_dataset

from retina.config import DataConfig
from retina.data.dataset import FundusDataset, prepare, synthetic_folder
from retina.errors import DataError
from retina.results import environment
from retina.sweep import requirements
from retina.sweep.nodes import marked
from retina.sweep.requirements import DataRequirements, NodeRequirements, versions


def test_the_driver_s_own_folder_and_versions_are_right_and_nothing_is_left_of_the_check(tmp_path: Path) -> None:
    with marked(tmp_path / "results") as found:
        assert found.problem() == ""
        assert list((tmp_path / "results").iterdir()) == [found.marker]
    assert list((tmp_path / "results").iterdir()) == []


def test_a_folder_of_the_same_name_that_is_not_the_driver_s_is_told_with_the_remedy(tmp_path: Path) -> None:
    with marked(tmp_path) as found:
        (tmp_path / "other").mkdir()
        there = dataclasses.replace(found, marker=tmp_path / "other" / found.marker.name)
        assert there.problem() == (
            f"{tmp_path / 'other'} is not the driver's results folder there, so weights written to it are lost;\n"
            "choose a results folder on a file system that all nodes mount at the same path (--results)"
        )
        assert list((tmp_path / "other").iterdir()) == []


def test_a_folder_that_is_absent_on_the_node_is_not_made(tmp_path: Path) -> None:
    there = NodeRequirements(tmp_path / "absent" / ".node-check-1", versions())
    assert "is not the driver's results folder" in there.problem()
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_the_node_cannot_write_is_told(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with marked(tmp_path) as found:
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
        problem = found.problem()
    assert problem.startswith(f"{tmp_path} cannot be written by user ")
    assert os.strerror(code) in problem
    assert len(problem.splitlines()) == 2


def test_versions_that_differ_are_told_all_with_both_values(tmp_path: Path) -> None:
    wanted = {**versions(), "torch": "1.0", "Python": "2.7"}
    with marked(tmp_path) as found:
        problem = dataclasses.replace(found, versions=wanted).problem()
    assert f"torch {versions()['torch']}, not 1.0" in problem
    assert f"Python {versions()['Python']}, not 2.7" in problem
    assert "numpy" not in problem
    assert problem.splitlines()[1] == "install the same versions on every node, and change none while a sweep runs"


def test_builds_of_torch_for_another_device_count_as_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "package_version", lambda _: "2.11.0+cu128")
    with_cuda = versions()
    monkeypatch.setattr(environment, "package_version", lambda _: "2.11.0+cpu")
    assert with_cuda == versions()


def test_another_source_of_the_package_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with marked(tmp_path) as found:
        monkeypatch.setattr(environment, "source_hash", lambda: "0" * 12)
        assert "package retina (hash of its source) 000000000000, not " in found.problem()


@pytest.fixture
def data(tmp_path: Path) -> FundusDataset:
    """Photographs in files of the test's own, decoded."""
    tiny_dataset.photographs()  # drawn once a session
    shutil.copytree(synthetic_folder(tiny_dataset.DATA.synthetic), tmp_path / "data")
    return prepare(tiny_dataset.DATA.model_copy(update={"path": str(tmp_path / "data"), "layout": "eyepacs"}))


def elsewhere(data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRequirements:
    """What a node asks that has another cache folder, with nothing in it."""
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path / "cache of the node"))
    return DataRequirements.of(dataclasses.replace(data, pixels_file=tmp_path / "absent" / "pixels.npy"))


def test_a_node_with_the_pixels_or_the_same_photographs_has_what_it_needs(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DataRequirements.of(data).problem() == ""
    assert elsewhere(data, tmp_path, monkeypatch).problem() == ""
    assert not list((tmp_path / "cache of the node").iterdir())


def test_drawn_photographs_can_be_drawn_on_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert elsewhere(tiny_dataset.photographs(), tmp_path, monkeypatch).problem() == ""


def test_photographs_that_differ_on_the_node_are_counted_and_one_is_named(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(data, tmp_path, monkeypatch)
    changed = Path(data.frame["path"].iloc[0])
    with changed.open("ab") as file:
        file.write(b"more")
    problem = asked.problem()
    assert f"1 of another file length there ({data.frame['image'].iloc[0]})" in problem
    assert "every node needs the same photographs" in problem


def test_another_grade_on_the_node_is_told(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(data, tmp_path, monkeypatch)
    files = asked.files.assign(grade=(asked.files["grade"] + 1) % 5)
    assert f"{len(files)} of another grade there" in dataclasses.replace(asked, files=files).problem()


def test_a_data_path_that_is_absent_on_the_node_is_told(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(data, tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "data")
    problem = asked.problem()
    assert str(tmp_path / "data") in problem
    assert problem.endswith("every node needs the same photographs and labels at the same path")


def test_no_room_for_decoded_photographs_is_told(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(data, tmp_path, monkeypatch)
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert "no room there" in asked.problem()
    assert "set RETINA_CACHE on that node" in asked.problem()


def test_half_a_cache_on_the_node_is_told(data: FundusDataset) -> None:
    fewer = dataclasses.replace(data.manifest, frame=data.frame.iloc[1:])
    asked = DataRequirements.of(dataclasses.replace(data, manifest=fewer))
    assert "holds pixels of shape" in asked.problem()


def test_labels_that_cannot_be_read_on_the_node_are_told_in_two_lines(
    data: FundusDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(config: DataConfig) -> None:
        raise DataError("labels.csv: no grade\nmore\nlines")

    asked = elsewhere(data, tmp_path, monkeypatch)
    monkeypatch.setattr(requirements, "read_manifest", unreadable)
    assert asked.problem().splitlines()[0] == "labels.csv: no grade;"
    assert len(asked.problem().splitlines()) == 2
