"""The house's floors: a room imports only rooms that stand before it, and only the sweep knows Ray and Optuna."""

import ast
from pathlib import Path

import pytest

import retina

HOUSE = Path(retina.__file__).parent
FLOORS = [
    ["errors"],
    ["system"],
    ["config"],
    ["metrics", "data"],
    ["results"],
    ["training"],
    ["evaluation"],
    ["report", "export", "predict", "audit"],
    ["sweep"],
    ["cli"],
    ["__main__"],
]
"""From the ground up. Rooms of one floor import each other only where NEIGHBOURS says so."""
NEIGHBOURS = {("predict", "export")}
FORBIDDEN = {("sweep", "report")}
"""Imports that would go down and are wrong all the same: what both need stands in `results`."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(HOUSE.rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it, also for type checking only."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide which room is meant"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_imports_only_go_down(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        assert not {name for name in imports_of(file) if name.startswith("retina")}
        return
    for name in imports_of(file):
        parts = name.split(".")
        if parts[0] != "retina" or len(parts) == 1 or parts[1] not in FLOOR_OF:
            continue
        other = parts[1]
        down = FLOOR_OF[other] < FLOOR_OF[room]
        assert (room, other) not in FORBIDDEN, f"{room} must not import {name}"
        assert down or other == room or (room, other) in NEIGHBOURS, f"{room} must not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_only_the_sweep_knows_ray_and_optuna(file: Path) -> None:
    tuners = {name for name in imports_of(file) if name.split(".")[0] in {"ray", "optuna"}}
    assert not tuners or room_of(file) == "sweep"


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(file) for file in FILES} - {"__init__"} == set(FLOOR_OF)


def test_rooms_stay_small() -> None:
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: n for name, n in lines.items() if n > 450} == {}
