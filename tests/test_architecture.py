"""The packages' dependencies: the contracts in pyproject.toml hold, files stay small, imports are absolute."""

import ast
import subprocess
import sys
from pathlib import Path

import retina

PACKAGE = Path(retina.__file__).parent
PROJECT = PACKAGE.parent
MAX_LINES = 450
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_import_contracts_hold() -> None:
    # in a process of its own: it sets up logging anew, which silences the loggers that are there
    code = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
