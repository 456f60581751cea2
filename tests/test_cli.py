"""What the commands about data say, and with which exit code, where something is in the way."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from layouts import photographs, text
from PIL import Image

from retina import cli


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A data set of labels alone."""
    text(tmp_path / "set" / "labels.csv", "image,level\n10_left,0\n10_right,1\n")
    return tmp_path / "set"


@pytest.mark.parametrize("command", ["prepare", "audit"])
def test_names_and_row_numbers_are_no_pictures(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = "\n" * 96  # rich would make 💯 of the row's number, were it told nothing else
    text(tmp_path / "set" / "labels.csv", f"image,level\ngood,0\nfine,1\n{empty}an:eye:gone,1\n")
    photographs(tmp_path / "set", "good.png", "fine.png")
    cli.main(["data", command, "set"])
    said = capsys.readouterr()
    assert "labels.csv:100: an:eye:gone" in said.out + said.err


def test_one_very_long_photograph_does_not_cost_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "set", "0/good.png", "1/good.png")
    Image.new("L", (20_000, 100), 90).save(tmp_path / "set" / "1" / "long.png")
    assert cli.main(["data", "audit", "set"]) == 0
    assert "long.png" in capsys.readouterr().out


def test_an_audit_of_a_path_that_cannot_be_looked_at_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "audit", "a" * 300]) == 2
    assert "File name too long" in capsys.readouterr().err

    def forbidding(_: Path) -> bool:  # root may enter every folder, so the refusal is played
        raise PermissionError(13, "Permission denied", "closed/set")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", forbidding)
    assert cli.main(["data", "audit", "closed/set"]) == 2
    assert "closed/set: this folder or file cannot be read: [Errno 13]" in capsys.readouterr().err


def test_an_audit_names_no_flag_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "audit", "synthetic"]) == 2
    said = capsys.readouterr().err
    assert "or give another path" in said
    assert "--data PATH" not in said
    assert "retina data draw DIR" in said


def test_a_full_disk_costs_the_page_and_not_the_audit(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = cli.main(["data", "audit", str(listed), "--html", str(page)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert code == 1
    assert "2 photographs" in said.out
    assert said.err == f"{page}: cannot be written: File too large\n"
    assert not page.exists()
