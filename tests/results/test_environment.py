"""Where a result came from: plain JSON, with the versions that made it and the commit only if there is one."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import retina
from retina.results.environment import PACKAGES, describe_environment


def git(at: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(["git", *who, *arguments], cwd=at, capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it stood in a folder of its own, outside any checkout."""
    package = tmp_path / "repository" / "retina"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(retina, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return package


def test_it_is_plain_json() -> None:
    result = describe_environment()
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_it_names_the_versions() -> None:
    result = describe_environment()
    assert result["retina"] == retina.__version__
    assert result["python"] == platform.python_version()
    assert set(result["packages"]) == set(PACKAGES)
    assert result["packages"]["torch"] == importlib.metadata.version("torch")


def test_a_package_that_is_not_there_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retina.results.environment.PACKAGES", ("no-such-package-here",))
    assert describe_environment()["packages"] == {"no-such-package-here": "not installed"}


def test_the_command_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tune_main.py", "--set", "parameters.epochs={values: [2]}"])
    name = Path(sys.executable).name
    assert describe_environment()["command"] == f"{name} tune_main.py --set 'parameters.epochs={{values: [2]}}'"


def test_the_time_has_its_zone() -> None:
    assert datetime.fromisoformat(describe_environment()["started"]).utcoffset() is not None


def test_the_hardware_is_told() -> None:
    result = describe_environment()
    assert result["cores"] >= 1
    assert result["cpu"]
    assert isinstance(result["gpus"], list)


def test_outside_a_checkout_there_is_no_commit(code: Path) -> None:
    assert describe_environment()["git"] is None


def test_without_git_there_is_no_commit(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git"] is None


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(code: Path) -> None:
    git(code.parent, "init", "-q")
    git(code.parent, "add", "retina")
    git(code.parent, "commit", "-qm", "first")
    commit = git(code.parent, "rev-parse", "--short=12", "HEAD")
    assert describe_environment()["git"] == commit
    (code / "__init__.py").write_text("changed = True\n")
    assert describe_environment()["git"] == f"{commit}-dirty"


def test_somebody_elses_repository_around_us_is_not_taken_for_ours(code: Path) -> None:
    (code.parent / "their.py").write_text("")
    git(code.parent, "init", "-q")
    git(code.parent, "add", "their.py")
    git(code.parent, "commit", "-qm", "theirs")
    assert describe_environment()["git"] is None


def test_the_code_is_known_by_its_source_whatever_git_says(code: Path) -> None:
    before = describe_environment()["code"]["source"]
    (code / "README.md").write_text("not code")
    assert describe_environment()["code"]["source"] == before
    (code / "more.py").write_text("x = 1")
    changed = describe_environment()["code"]["source"]
    (code / "more.py").rename(code / "other.py")
    assert len({before, changed, describe_environment()["code"]["source"]}) == 3
