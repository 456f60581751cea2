"""Detection of files that hide modules of Python's standard library. Imports nothing that could be hidden."""

import os
import sys

UNUSED = {"antigravity", "idlelib", "lib2to3", "test", "this", "turtle", "turtledemo"}
"""Modules of the standard library that neither this package nor its dependencies import."""


def find_shadowing_files(folders: list[str]) -> list[str]:
    """List files in `folders` that Python would import instead of its own modules: random.py, logging/__init__.py."""
    library = os.path.dirname(os.path.realpath(os.__file__))
    files = []
    for folder in dict.fromkeys(_real_path(folder) for folder in folders):
        if folder == library or not os.path.isdir(folder):
            continue
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # Python looks modules up by name, so it can import from a folder that it may not list
            names = [name for module in sorted(sys.stdlib_module_names) for name in (f"{module}.py", module)]
        for name in names:
            stem = name.removesuffix(".py")
            if stem not in sys.stdlib_module_names or stem in UNUSED or stem in sys.builtin_module_names:
                continue
            file = os.path.join(folder, name)
            if stem == name:
                file = os.path.join(file, "__init__.py")
            if os.path.isfile(file):
                files.append(file)
    return files


def folders_before_stdlib() -> list[str]:
    """List the folders that Python searches before its standard library."""
    library = os.path.dirname(os.path.realpath(os.__file__))
    real_paths = [_real_path(folder) for folder in sys.path]
    return sys.path[: real_paths.index(library)] if library in real_paths else []


def _real_path(folder: str) -> str:
    """Return a folder's path without links; "" where it is the working directory and that was removed."""
    try:
        return os.path.realpath(folder or ".")
    except OSError:
        return ""


def describe(files: list[str]) -> str:
    """Return a one-line error message about the first of `files`."""
    module = os.path.basename(files[0].removesuffix("/__init__.py")).removesuffix(".py")
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"{files[0]}{more}: hides Python's own module {module} from libraries; rename it or run from another folder"


def exit_if_shadowed() -> None:
    """End the process with exit code 2 if a file hides a module of the standard library from it."""
    files = find_shadowing_files(folders_before_stdlib())
    if files:
        sys.stderr.write(describe(files) + "\n")
        raise SystemExit(2)
