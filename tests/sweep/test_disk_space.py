"""The disk that a sweep needs: computed from what it searches and keeps, and refused where it is not free."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_dataset
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_sweeps import GIB, Usage, files, searched, spec_of

from retina.config import TrialConfig
from retina.errors import DiskError
from retina.results import checkpoints
from retina.results.files import write_text
from retina.sweep.dry_run import (
    bytes_needed,
    free_bytes,
    refuse_full_disk,
    weight_bytes,
)
from retina.training import model
from retina.training.trainer import start_training


@pytest.mark.parametrize("config", [TrialConfig(), TrialConfig(head_layers=3), TrialConfig(arch="resnet50")])
def test_weights_are_as_large_as_a_real_model_s(tmp_path: Path, config: TrialConfig) -> None:
    state = model.build(config.model_copy(update={"pretrained": False}), image_size=224).state_dict()
    assert weight_bytes(config) == sum(tensor.nbytes for tensor in state.values())
    torch.save(state, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size == pytest.approx(weight_bytes(config), rel=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_running_trial_is_reckoned_with_two_checkpoints_of_the_real_size(tmp_path: Path, optimizer: str) -> None:
    part = tiny_dataset.part([0, 1, 2, 3])
    training = start_training(tiny_dataset.config(optimizer=optimizer), part, part, device=tiny_dataset.CPU)
    next(training)
    checkpoints.save(tmp_path, 1, training.model_state_dict(), {"training": training.state_dict()})
    real = sum(file.stat().st_size for file in tmp_path.rglob("*.pt"))
    spec = searched("resnet18", optimizer)
    assert (bytes_needed(spec, 2) - bytes_needed(spec, 1)) / 2 == pytest.approx(real, rel=0.01)


def test_the_disk_that_is_needed_grows_with_what_is_written() -> None:
    usual = bytes_needed(searched(), 2)
    assert bytes_needed(searched(), 3) > usual
    assert bytes_needed(searched(keep={"trials": 4}), 2) == usual + weight_bytes(TrialConfig())
    assert bytes_needed(searched("resnet34"), 2) > usual
    assert bytes_needed(searched("resnet50"), 2) > bytes_needed(searched("resnet34"), 2)
    assert bytes_needed(searched("resnet18", "adam"), 2) > usual
    assert bytes_needed(searched("resnet18", "adam"), 2) == bytes_needed(searched("resnet18", "adamw"), 2)


def test_the_largest_of_what_is_searched_counts() -> None:
    assert bytes_needed(searched("resnet18,resnet50"), 2) == bytes_needed(searched("resnet50"), 2)
    assert bytes_needed(searched("resnet18", "sgd", "adamw"), 2) == bytes_needed(searched("resnet18", "adamw"), 2)
    under = {"optimizer": {"values": ["adam"], "when": {"arch": "resnet18"}}, "arch": {"values": ["resnet18"]}}
    assert bytes_needed(spec_of(parameters=under), 2) == bytes_needed(searched("resnet18", "adam"), 2)
    assert bytes_needed(spec_of(parameters={"dropout": {"value": 0.1}}), 2) == bytes_needed(searched(), 2)


def test_trials_that_will_not_be_need_nothing() -> None:
    two = searched(trials=2)
    assert bytes_needed(two, 8) == bytes_needed(two, 2)
    assert bytes_needed(searched(trials=2, keep={"trials": 50}), 2) == bytes_needed(
        searched(trials=2, keep={"trials": 2}), 2
    )


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 16), st.integers(1, 20), st.integers(1, 30), st.sets(st.sampled_from(["sgd", "adam"]), min_size=1)
)
def test_more_of_anything_never_needs_less(slots: int, keep: int, trials: int, optimizers: set[str]) -> None:
    def needed(slots: int, keep: int, trials: int, optimizers: set[str], arch: str = "resnet18") -> int:
        return bytes_needed(searched(arch, *sorted(optimizers), trials=trials, keep={"trials": keep}), slots)

    one = needed(slots, keep, trials, optimizers)
    assert one >= 2 * weight_bytes(TrialConfig())  # what is kept, and the winner's copy
    assert needed(slots + 1, keep, trials, optimizers) >= one
    assert needed(slots, keep + 1, trials, optimizers) >= one
    assert needed(slots, keep, trials + 1, optimizers) >= one
    assert needed(slots, keep, trials, optimizers | {"adamw"}) >= one
    assert needed(slots, keep, trials, optimizers, "resnet18,resnet34") > one


def test_a_disk_that_is_too_full_is_refused_in_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, root = searched(), tmp_path / "results" / "planned"
    needed = bytes_needed(spec, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed, 1, needed - 1))
    with pytest.raises(DiskError) as caught:
        refuse_full_disk(spec, root, 2)
    said = str(caught.value)
    assert len(said.splitlines()) <= 3
    assert said.startswith(f"{root}: ")
    assert f"needs up to {needed / 1e9:.2f} GB" in said
    assert f"{(needed - 1) / 1e9:.2f} GB are free" in said
    assert "--results" in said
    assert caught.value.exit_code == 1
    refuse_full_disk(spec, root, 1)  # fewer at once fit
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(needed, 0, needed))
    refuse_full_disk(spec, root, 2)
    assert files(tmp_path) == []


def test_weights_that_are_there_already_are_not_needed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, root = searched(), tmp_path / "planned"
    write_text(root / "trials" / "t0000" / "model.pt", "x" * 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(80 * GIB, 0, bytes_needed(spec, 2) - 1000))
    refuse_full_disk(spec, root, 2)
    with pytest.raises(DiskError):
        refuse_full_disk(spec, tmp_path / "another", 2)


def test_the_disk_is_that_of_a_folder_which_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []

    def usage(folder: Path) -> Usage:
        looked_at.append(folder)
        return Usage(3, 2, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.chdir(tmp_path)
    assert free_bytes(tmp_path / "results" / "x") == 1
    (tmp_path / "results").mkdir()
    free_bytes(tmp_path / "results" / "x")
    free_bytes(Path("elsewhere") / "x")
    assert looked_at == [tmp_path, tmp_path / "results", Path()]
