"""Generate the Mermaid diagram of the dependencies between the packages of `retina` from their imports.

    python -m scripts.dependency_diagram            # write it into the documents
    python -m scripts.dependency_diagram --check    # exit code 1 where a document is out of date

An arrow from A to B means that a module of A imports a module of B. Arrows that follow from others are left out (A to C
where A imports B and B imports C) to keep the diagram readable; `lint-imports` checks all imports.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "retina"
DOCUMENTS = (PROJECT / "CONTRIBUTING.md", PROJECT / "docs" / "design.md")
BEGIN = "<!-- dependency diagram: written by python -m scripts.dependency_diagram -->"
END = "<!-- end of the dependency diagram -->"
BLOCK = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
LEFT_OUT = frozenset({"__init__", "__main__"})
"""The public API, which imports functions of all packages when they are first used, and the entry point."""

Graph = dict[str, set[str]]


def dependencies(package: Path = PACKAGE) -> Graph:
    """Return the packages (folders and single files) below `package`, each with those that it imports."""
    graph: Graph = {}
    for file in sorted(package.rglob("*.py")):
        name = _part(file.relative_to(package).parts[0])
        if name not in LEFT_OUT:
            graph.setdefault(name, set()).update(_imported(file, package.name))
    return {name: (imported & graph.keys()) - {name} for name, imported in graph.items()}


def reduced(graph: Graph) -> Graph:
    """Return the graph without the arrows that follow from others.

    Raises:
        ValueError: packages import each other in a circle.
    """
    reached = {name: _reach(graph, name) for name in graph}
    circle = sorted(name for name in graph if name in reached[name])
    if circle:
        raise ValueError(f"packages import each other in a circle: {', '.join(circle)}")
    followed = {name: {other for via in graph[name] for other in reached[via]} for name in graph}
    return {name: graph[name] - followed[name] for name in graph}


def mermaid(graph: Graph) -> str:
    """Return the diagram as a Mermaid flowchart."""
    lines = [f"    {name} --> {other}" for name in sorted(graph) for other in sorted(graph[name])]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def updated(text: str, diagram: str) -> str:
    """Return a document's text with the diagram between its markers.

    Raises:
        ValueError: the document has no markers.
    """
    if not BLOCK.search(text):
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return BLOCK.sub(lambda _: f"{BEGIN}\n\n{diagram}\n\n{END}", text)


def main(arguments: list[str] | None = None) -> int:
    """Write the diagram into the documents, or check that it is up to date; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where one is out of date")
    options = parser.parse_args(arguments)
    diagram = mermaid(reduced(dependencies()))
    exit_code = 0
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if (new := updated(text, diagram)) == text:
            continue
        if options.check:
            sys.stderr.write(f"{document.name}: the diagram is out of date; python -m scripts.dependency_diagram\n")
            exit_code = 1
        else:
            document.write_text(new, encoding="utf-8")
    return exit_code


def _part(name: str) -> str:
    return name.removesuffix(".py")


def _imported(file: Path, root: str) -> set[str]:
    """Return the packages below `root` that a file imports anywhere, including imports for type checking only."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {path[1] for path in parts if len(path) > 1 and path[0] == root}


def _reach(graph: Graph, name: str) -> set[str]:
    """Return all packages that `name` imports, directly or through others."""
    reached: set[str] = set()
    waiting = list(graph[name])
    while waiting:
        other = waiting.pop()
        if other not in reached:
            reached.add(other)
            waiting += graph[other]
    return reached


if __name__ == "__main__":
    sys.exit(main())
