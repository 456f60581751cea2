"""Files that hide Python's own modules are named before anything fails for them."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from retina.errors import SpecError
from retina.sweep.cluster import connected
from retina.system import shadowing


@pytest.mark.parametrize("name", ["random.py", "logging/__init__.py", "queue.py", "types.py"])
def test_a_file_named_like_a_module_of_python_s_is_found(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert shadowing.find_shadowing_files([str(tmp_path)]) == [str(file)]


@pytest.mark.parametrize("name", ["train.py", "random.csv", "test/__init__.py", "logging/notes.txt", "sys.py"])
def test_other_files_are_not(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert shadowing.find_shadowing_files([str(tmp_path), str(tmp_path / "nowhere")]) == []


def test_a_folder_that_may_not_be_listed_is_searched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random.py").touch()

    def closed(_: str) -> list[str]:  # root may list every folder, so the refusal is played
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shadowing.os, "listdir", closed)
    assert shadowing.find_shadowing_files([str(tmp_path)]) == [str(tmp_path / "random.py")]


def test_a_current_folder_that_was_removed_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert shadowing.find_shadowing_files(["", "."]) == []


def test_python_s_own_library_hides_nothing() -> None:
    assert shadowing.find_shadowing_files([str(Path(shadowing.os.__file__).parent)]) == []


@pytest.mark.parametrize("name", ["random.py", "logging.py", "argparse.py"])
def test_the_command_names_the_file_and_exits_with_2(name: str, tmp_path: Path) -> None:
    (tmp_path / "tune_main.py").write_text((ROOT / "tune_main.py").read_text())
    (tmp_path / name).write_text("raise SystemExit('hidden')")
    command = [sys.executable, str(tmp_path / "tune_main.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path / name}: hides Python's own module {name.removesuffix('.py')}")
    assert len(done.stderr.splitlines()) == 1


def test_a_sweep_refuses_a_working_folder_that_would_break_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(SpecError, match=r"random\.py: hides"), connected(None, "sweep"):
        pass


def test_a_python_without_docstrings_is_refused_by_a_sweep_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-OO", str(ROOT / "tune_main.py"), "--space", str(ROOT / "sweeps" / "demo.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("python -OO (PYTHONOPTIMIZE=2) removes docstrings")
    assert len(done.stderr.splitlines()) == 1
