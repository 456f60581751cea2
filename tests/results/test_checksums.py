"""SHA256SUMS: sha256sum's own format; what does not fit is named with file and remedy; nothing is vouched for twice."""

import errno
import hashlib
import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retina.errors import DiskError, ResultsError
from retina.results import checkpoints, checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("a.json", b"{}"), ("model.pt", os.urandom(1000)), ("b c.csv", b"x\n")):
        (tmp_path / name).write_bytes(content)
    checksums.write(tmp_path, ["model.pt", "a.json", "b c.csv"])
    return tmp_path


def refusal(folder: Path, *names: str, needed: bool = False) -> str:
    with pytest.raises(ResultsError) as caught:
        checksums.verify(folder, names, "do this", needed=needed)
    first, last = str(caught.value).splitlines()
    assert last == "do this"
    return first.removesuffix(";")


def test_it_is_what_sha256sum_reads_and_writes(folder: Path) -> None:
    if not shutil.which("sha256sum"):
        pytest.skip("this system has no sha256sum")
    command = ["sha256sum", "--check", "--strict", "--quiet", checksums.SUMS]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
    before = checksums.read_sums(folder)
    for written in ("sha256sum *.* > SHA256SUMS", "sha256sum * > SHA256SUMS", "sha256sum --binary ./* > SHA256SUMS"):
        subprocess.run(["/bin/sh", "-c", written], cwd=folder, check=True)
        assert checksums.read_sums(folder) == before


def test_whole_files_pass(folder: Path) -> None:
    assert checksums.verify(folder, ["a.json", "model.pt", "b c.csv"], "")
    assert checksums.digest(folder / "a.json") == hashlib.sha256(b"{}").hexdigest()


@given(place=st.integers(0, 999), value=st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, value: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sums")
    content = bytearray(range(250)) * 4
    (folder / "model.pt").write_bytes(content)
    checksums.write(folder, ["model.pt"])
    content[place] ^= value
    (folder / "model.pt").write_bytes(content)
    assert "model.pt: was changed or damaged" in refusal(folder, "model.pt")


def test_what_is_missing_or_not_listed_is_named(folder: Path) -> None:
    (folder / "model.pt").unlink()
    (folder / "more.json").write_text("{}")
    assert refusal(folder, "a.json", "model.pt") == f"{folder / 'model.pt'}: is missing; SHA256SUMS lists it"
    assert "more.json: is not listed in SHA256SUMS" in refusal(folder, "more.json")
    assert checksums.verify(folder, ["a.json"], "")


@pytest.mark.parametrize("kept", [0, 1, 40, 64, 65, 66, 70, 75, 150])
def test_a_list_that_is_cut_short_vouches_for_nothing_that_it_lost(folder: Path, kept: int) -> None:
    content = (folder / checksums.SUMS).read_bytes()
    (folder / checksums.SUMS).write_bytes(content[:kept])
    assert "SHA256SUMS" in refusal(folder, "a.json", "model.pt", "b c.csv")


@pytest.mark.parametrize(
    "line", ["x", "0" * 64, "0" * 64 + "  ../model.pt", "0" * 63 + "  model.pt", "g" * 64 + "  model.pt", "\ufeff", ""]
)
def test_a_line_that_is_none_of_sha256sums_is_named(folder: Path, line: str) -> None:
    with (folder / checksums.SUMS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert "SHA256SUMS: line 4" in refusal(folder, "a.json")


def test_two_sums_of_a_file_and_what_is_no_text_are_named(folder: Path) -> None:
    with (folder / checksums.SUMS).open("a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  a.json\n")
    assert "line 4: a second, different checksum of a.json" in refusal(folder, "a.json")
    (folder / checksums.SUMS).write_bytes(b"\xff\xfe\x00")
    assert "is not a text file" in refusal(folder, "a.json")


def test_without_a_list_nothing_is_verified_unless_one_is_needed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / checksums.SUMS).unlink()
    assert not checksums.verify(folder, ["a.json"], "")
    assert "SHA256SUMS: is missing" in refusal(folder, "a.json", needed=True)
    with caplog.at_level(logging.INFO, "retina"):
        checksums.log_unverified(folder)
        checksums.log_unverified(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"note: {folder} has no SHA256SUMS (retina 0.1.0 wrote none): its files cannot be verified"
    ]


def test_an_update_vouches_only_for_what_was_written(folder: Path) -> None:
    (folder / "a.json").write_text("[]")  # damage
    (folder / "figure.png").write_bytes(b"new")
    (folder / "b c.csv").unlink()
    checksums.update(folder, ["figure.png", "b c.csv"])
    assert set(checksums.read_sums(folder) or {}) == {"a.json", "model.pt", "figure.png"}
    assert checksums.verify(folder, ["figure.png", "model.pt"], "")
    assert "a.json: was changed" in refusal(folder, "a.json")
    (folder / checksums.SUMS).unlink()
    checksums.update(folder, ["figure.png"])
    assert not (folder / checksums.SUMS).exists()


@pytest.mark.parametrize("name", ["model.pt", checksums.SUMS])
@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, DiskError), (errno.EACCES, ResultsError)])
def test_a_broken_disk_is_told_from_a_damaged_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, kind: type[ResultsError]
) -> None:
    opening = Path.open

    def broken(file: Path, *how: Any, **more: Any) -> Any:
        if file.name == name:
            raise OSError(number, os.strerror(number), str(file))
        return opening(file, *how, **more)

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(ResultsError) as caught:
        checksums.verify(folder, ["a.json", "model.pt"], "do this")
    assert type(caught.value) is kind
    assert caught.value.exit_code == (1 if kind is DiskError else 2)
    assert str(caught.value) == f"{folder / name}: cannot be read: {os.strerror(number)};\ndo this"


# --- a trial's weights ---


def saved(folder: Path, epoch: int = 3) -> checkpoints.Checkpoint:
    import torch

    (folder / "config.json").write_text("{}")
    checkpoints.save(folder, epoch, {"layer": torch.arange(9.0)}, {"epoch": epoch})
    found = checkpoints.newest(folder)
    assert found is not None
    return found


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.pt", "state.pt"])
def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path, name: str) -> None:
    found = saved(tmp_path)
    found.load()
    flip(found.path / name, 700)
    with pytest.raises(ResultsError, match=rf"checkpoint_00003/{name}: was changed or damaged"):
        found.load()


def test_kept_weights_are_vouched_for_since_their_epoch(tmp_path: Path) -> None:
    found = saved(tmp_path)
    flip(found.path / "model.pt", 700)  # before they are kept
    checkpoints.keep(tmp_path, 3)
    assert "model.pt: was changed" in refusal(tmp_path, "model.pt")
    checkpoints.drop(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    saved(tmp_path)
    checkpoints.keep(tmp_path, 3)
    assert checksums.verify(tmp_path, ["model.pt", "config.json"], "")


def test_weights_of_the_version_before_are_kept_without(tmp_path: Path) -> None:
    found = saved(tmp_path)
    (found.path / checksums.SUMS).unlink()
    found.load()
    checkpoints.keep(tmp_path, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.pt"]
