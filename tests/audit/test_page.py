"""The audit's page: whole, alone, safe with any name, and never in the place of something else."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import tempfile
from pathlib import Path

import audit_dataset
import numpy as np
import pytest
from PIL import Image
from report_pages import Read, read

from retina import cli
from retina.audit import page, runner
from retina.audit.runner import Audit

NAMES = [name for pair in [*sorted(audit_dataset.TWINS)[:2], audit_dataset.LIKE] for name in pair] + [
    f"train_IDRiD_{n:03}" for n in range(100, 110)
]


@pytest.fixture(scope="module")
def audit(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Of some of IDRiD's photographs, three pairs of duplicates among them."""
    return audit_dataset.audited(audit_dataset.some_of_idrid(shared, tmp_path_factory.mktemp("page") / "set", NAMES))


@pytest.fixture(scope="module")
def opened(audit: Audit) -> Read:
    return read(page.render(audit))


def test_it_needs_nothing_else(audit: Audit, opened: Read) -> None:
    sources = [one.attributes["src"] for one in opened.find("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    links = [one.attributes["href"] for one in opened.find("a")]
    targets = {one.attributes["id"] for one in opened.root.everything() if "id" in one.attributes}
    assert {link.removeprefix("#") for link in links} <= targets
    assert not opened.find("script")
    assert not re.search(r"https?://", page.render(audit))


def test_every_picture_can_be_seen_and_is_described(opened: Read) -> None:
    for one in opened.find("img"):
        with Image.open(io.BytesIO(base64.b64decode(one.attributes["src"].partition(",")[2]))) as picture:
            assert picture.size == (176, 176)
            assert np.asarray(picture).std() > 10
        assert one.attributes["alt"]


def test_duplicates_are_shown_side_by_side(audit: Audit, opened: Read) -> None:
    groups = opened.section("duplicates").find("figure", **{"class": "group"})
    assert len(groups) == len(audit.duplicate_groups) == 3
    for one, group in zip(groups, audit.duplicate_groups, strict=True):
        assert len(one.find("img")) == 2
        assert ("conflicting grades" in one.words) == group.has_conflicting_grades
        assert ("nearly the same picture" in one.words) != group.is_exact


def test_contact_sheets_are_drawn_by_a_seed(audit: Audit) -> None:
    def drawn(seed: int) -> list[str]:
        sheet = read(page.render(audit, seed=seed)).section("grade2")
        return [one.attributes["alt"] for one in sheet.find("img")]

    of_grade = audit.manifest.frame.loc[audit.manifest.frame["grade"] == 2, "image"].tolist()
    assert drawn(0) == drawn(0)
    assert set(drawn(0)) <= set(of_grade)
    assert len(drawn(0)) == min(len(of_grade), page.SHOWN_PER_GRADE)


def test_a_sheet_has_no_more_than_its_share_and_not_always_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 255, (60, 28, 28, 3)).astype(np.uint8), np.zeros(60, np.int64)
    np.savez(tmp_path / "set.npz", train_images=pixels, train_labels=labels)
    found = audit_dataset.audited(tmp_path / "set.npz")
    sheets = [
        [one.attributes["alt"] for one in read(page.render(found, seed=seed)).section("grade0").find("img")]
        for seed in (0, 1)
    ]
    assert [len(sheet) for sheet in sheets] == [page.SHOWN_PER_GRADE] * 2
    assert sheets[0] != sheets[1]
    assert read(page.render(found)).section("grade4").words.endswith("proliferative None.")


def test_a_grade_that_cannot_be_read_is_not_a_grade_without_photographs(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_text("not a photograph")
    text = read(page.render(audit_dataset.audited(audit_dataset.list_of(tmp_path, [("torn.jpg", 3)]))))
    assert text.section("grade3").words.endswith("None can be read.")
    assert text.section("grade4").words.endswith("None.")


def test_sharpness_that_was_not_judged_is_not_called_good(shared: Path) -> None:
    found = audit_dataset.audited(shared / "data" / "retinamnist.npz")
    assert found.photographs is not None
    discs = sum(one.disc_side > 0 for one in found.photographs)
    text = read(page.render(found))
    assert (
        f"{discs:,} of {discs:,} discs are under 100 pixels and have no measured sharpness"
        in text.section("found").words
    )
    assert "their sharpness is not measured" in text.section("unfit").words
    assert "or blurred" not in text.section("unfit").words


def test_what_is_left_out_of_a_list_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(10):
        Image.new("RGB", (60 + n % 3, 40), (n % 3, 0, 0)).save(tmp_path / f"{n}.png")
    found = audit_dataset.audited(audit_dataset.list_of(tmp_path, [(f"{n}.png", 0) for n in range(10)]))
    assert [len(group.rows) for group in found.duplicate_groups] == [4, 3, 3]
    whole = read(page.render(found))
    assert "All 3 groups as a table" in whole.section("duplicates").words
    monkeypatch.setattr(page, "MAX_LISTED", 2)
    short = read(page.render(found))
    assert "The first 2 of 3 groups as a table" in short.section("duplicates").words
    assert "0.png, 3.png and 2 more" in short.section("duplicates").words
    assert "and 1 more" in short.section("sizes").words
    assert "more" not in whole.section("sizes").words


def test_names_are_text_and_nothing_else(shared: Path, tmp_path: Path) -> None:
    name = "<script>alert(\"1\")</script> & 'more'.jpg"
    folder = tmp_path / "<b>set" / "2"
    folder.mkdir(parents=True)
    (folder.parent / "1").mkdir()
    safe = name.replace("/", "")
    for place in (folder / safe, folder.parent / "1" / "other.jpg"):
        place.write_bytes(audit_dataset.real(shared, NAMES[0]).read_bytes())
    text = page.render(audit_dataset.audited(folder.parent))
    assert "<script" not in text
    assert "<b>set" not in text
    assert any(safe in one.attributes["alt"] for one in read(text).find("img"))


def test_labels_alone_make_a_page_too(tmp_path: Path) -> None:
    found = audit_dataset.audited(audit_dataset.list_of(tmp_path, [("10_left", 0), ("10_right", 1)]))
    text = read(page.render(found))
    assert not text.find("img")
    assert "only their labels were checked" in text.section("found").words
    links = [one.attributes["href"] for one in text.find("a")]
    assert {link.removeprefix("#") for link in links} <= {
        one.attributes["id"] for one in text.root.everything() if "id" in one.attributes
    }


def test_only_a_page_of_an_audit_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit_dataset.list_of(tmp_path, [("10_left", 0), ("10_right", 1)])
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / f"audit-{tmp_path.name}.html"
    for _ in range(2):
        assert cli.main(["data", "audit", "."]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"written: {mine.name}"
    mine.write_text("<html>my thesis</html>")
    assert cli.main(["data", "audit", "."]) == 2
    assert f"{mine.name}: exists and is not an earlier audit's page" in capsys.readouterr().err
    assert mine.read_text() == "<html>my thesis</html>"


@pytest.mark.parametrize(
    "where", ["folder", "labels.csv/page.html", "taken.html", "/proc/page.html", "/proc/deeper/page.html"]
)
def test_a_page_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit_dataset.list_of(tmp_path, [("10_left", 0), ("10_right", 1)])
    monkeypatch.setattr(runner, "audit", lambda *_: pytest.fail("the work began"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken-unused.csv").write_text("name,age\n")
    assert cli.main(["data", "audit", str(tmp_path), "--html", str(tmp_path / where)]) == 2
    said = capsys.readouterr()
    named = tmp_path / ("taken-unused.csv" if where == "taken.html" else where)
    assert said.err.startswith(f"{named}: ")
    assert len(said.err.splitlines()) == 1
    assert "photographs" not in said.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "labels.csv", "taken-unused.csv"]
    assert (tmp_path / "taken-unused.csv").read_text() == "name,age\n"


def test_a_full_disk_is_no_mistake_in_the_name_of_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    audit_dataset.list_of(tmp_path, [("10_left", 0), ("10_right", 1)])
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    file = tmp_path / "page.html"
    assert cli.main(["data", "audit", str(tmp_path), "--html", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}: cannot be written: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/my set", "audit-my-set.html"), ("a/retinamnist.npz", "audit-retinamnist.html"), ("/", "audit.html")],
)
def test_the_page_is_called_after_the_data(tmp_path: Path, path: str, name: str) -> None:
    audited_path = Path(path) if path == "/" else tmp_path / path
    if path.endswith(".npz"):
        audited_path.parent.mkdir(parents=True)
        audited_path.touch()
    assert page.default_file(audited_path) == Path(name)
