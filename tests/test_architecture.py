"""The packages' dependencies: the contracts in pyproject.toml hold, files stay small, imports are absolute."""

import ast
from pathlib import Path

import pytest
from importlinter import cli

import retina

PACKAGE = Path(retina.__file__).parent
PROJECT = PACKAGE.parent
MAX_LINES = 450
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = cli.lint_imports(config_filename=str(PROJECT / "pyproject.toml"), no_cache=True)
    assert exit_code == 0, capsys.readouterr().out


def test_imports_are_absolute() -> None:
    relative = [
        f"{name_of(file)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []


def test_files_stay_small() -> None:
    lines = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}
