"""Weights on disk: whole or not at all, of one epoch, and gone when they are dropped."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from retina.results import checkpoints


def weights(epoch: int) -> dict[str, torch.Tensor]:
    return {"layer": torch.full((3,), float(epoch))}


def save(folder: Path, epoch: int) -> None:
    checkpoints.save(folder, epoch, weights(epoch), {"epoch": epoch, "best": (0.5, epoch), "past": [{"loss": None}]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_epoch_is_there_and_alone(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "absent") is None
    for epoch in (1, 2, 10):
        save(tmp_path, epoch)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.epoch == 10
    kept, state = found.load()
    assert torch.equal(kept["layer"], weights(10)["layer"])
    assert state == {"epoch": 10, "best": (0.5, 10), "past": [{"loss": None}]}
    assert names(tmp_path) == ["checkpoint_00010"]


def test_an_epoch_saved_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    save(tmp_path, 3)
    checkpoints.save(tmp_path, 3, weights(7), {})
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert float(found.load()[0]["layer"][0]) == 7
    assert names(tmp_path) == ["checkpoint_00003"]


def test_a_full_disk_leaves_the_checkpoint_before_and_no_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    whole = torch.save

    def full(content: Any, file: Any) -> None:
        whole(content, file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint_00001"]
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_what_torch_hides_of_a_full_disk_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full to stand in for a full disk")
    with full.open("wb", buffering=0) as opened, pytest.raises(OSError, match="No space left on device"):
        checkpoints._save({"layer": torch.zeros(100_000)}, opened)


STATE = {"training": {"epoch": 3}, "past": [{"epoch": 3, "loss": None}], "best": (0.5, 3)}


def test_a_whole_checkpoint_is_loaded(tmp_path: Path) -> None:
    assert checkpoints.load_newest(tmp_path / "absent") is None
    checkpoints.save(tmp_path, 3, weights(3), STATE)
    saved = checkpoints.load_newest(tmp_path)
    assert saved is not None
    assert torch.equal(saved.weights["layer"], weights(3)["layer"])
    assert (saved.epoch, saved.training, saved.past, saved.best) == (3, {"epoch": 3}, STATE["past"], (0.5, 3))


@pytest.mark.parametrize("name", ["model.pt", "state.pt"])
@pytest.mark.parametrize("damage", ["empty", "cut off", "overwritten", "gone", "a folder", "something else"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    checkpoints.save(tmp_path, 3, weights(3), STATE)
    file = tmp_path / "checkpoint_00003" / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "something else":
        torch.save([1, 2], file)
    elif damage != "gone":
        file.write_bytes({"empty": b"", "cut off": content[: len(content) // 2], "overwritten": b"x" * 500}[damage])
    assert checkpoints.load_newest(tmp_path) is None
    (said,) = [record.message for record in caplog.records]
    assert said.startswith(f"{tmp_path / 'checkpoint_00003'}: cannot be read, the trial does not resume from it: ")
    checkpoints.save(tmp_path, 1, weights(1), {**STATE, "past": [{"epoch": 1}]})  # it begins again
    assert names(tmp_path) == ["checkpoint_00001"]


@pytest.mark.parametrize("lost", ["training", "past", "best"])
def test_a_state_that_lacks_something_is_no_state(tmp_path: Path, lost: str) -> None:
    checkpoints.save(tmp_path, 3, weights(3), {key: value for key, value in STATE.items() if key != lost})
    assert checkpoints.load_newest(tmp_path) is None


def test_keeping_leaves_the_weights_and_dropping_nothing(tmp_path: Path) -> None:
    save(tmp_path, 4)
    (tmp_path / "log.txt").write_text("epoch 4")
    (tmp_path / ".checkpoint_partial_x").mkdir()  # of a worker that was killed while it wrote
    assert checkpoints.keep(tmp_path, 4)
    assert checkpoints.keep(tmp_path, 4)  # once more, after a driver that was killed in between
    assert names(tmp_path) == ["SHA256SUMS", "log.txt", "model.pt"]
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["layer"], weights(4)["layer"])
    checkpoints.drop(tmp_path)
    checkpoints.drop(tmp_path)
    assert names(tmp_path) == ["log.txt"]


def test_weights_of_another_epoch_than_the_wanted_one_are_not_thrown_away(tmp_path: Path) -> None:
    save(tmp_path, 4)
    assert not checkpoints.keep(tmp_path, 7)
    assert names(tmp_path) == ["checkpoint_00004"]
