"""Fixtures that several rooms' tests use."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from cache_builder import Decoded
    from exported_model import World
    from matplotlib.figure import Figure


hypothesis.settings.register_profile("no clock", deadline=None)
hypothesis.settings.load_profile("no clock")

os.environ.setdefault("RAY_worker_niceness", "0")
# Ray's workers are nice to others by default: beside two processes of other tests on two cores they get 3% of one
os.environ.setdefault("OMP_NUM_THREADS", "1")
# three processes of tests share two cores: threads that wait for each other would take them in vain

LONGEST = {"test_kill_and_resume.py", "test_ray_backend.py", "test_end_to_end.py", "test_examples.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin: a process that were given one last would let the others wait for it."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def _shared() -> Path | None:
    for place in (os.environ.get("RETINA_SHARED"), Path(__file__).resolve().parents[2] / "shared"):
        if place and (Path(place) / "data").is_dir():
            return Path(place)
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs, label lists and weights; the test is skipped where it is absent."""
    found = _shared()
    if found is None:
        pytest.skip("needs the real data: neither $RETINA_SHARED nor ../shared is there")
    return found


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own cache of decoded photographs."""
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """`cli.main` takes over the package's logger; the tests after these get it back as it was."""
    ours = logging.getLogger("retina")
    before = ours.level, ours.handlers, ours.propagate
    yield
    ours.level, ours.handlers, ours.propagate = before


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """A sweep that has ended and its exported model; made once, so no test changes it."""
    import exported_model  # it brings torch, which most tests of files do without

    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(root / "cache"))
        return exported_model.make(root)


@pytest.fixture
def run(world: "World", tmp_path: Path) -> Path:
    """A results folder of one's own, with no export yet."""
    import exported_model

    return exported_model.copy(world.run, tmp_path / "demo", "export")


@pytest.fixture
def exported(world: "World", tmp_path: Path) -> Path:
    """An exported folder of one's own."""
    import exported_model

    return exported_model.copy(world.exported, tmp_path / "model")


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch, world: "World") -> None:
    """For what is not about the graphs: those of the world, which take no time, and which are not looked at."""
    from retina.export import check, folder, graphs

    files = [(world.exported / name).read_bytes() for name in (folder.PROGRAM, folder.ONNX)]
    agreement = folder.read_export(world.exported).description.check
    monkeypatch.setattr(graphs, "export_program", lambda *_: None)
    monkeypatch.setattr(graphs, "serialize_pt2", lambda *_: files[0])
    monkeypatch.setattr(graphs, "serialize_onnx", lambda *_: files[1])
    monkeypatch.setattr(check, "compare_graphs", lambda *_: agreement)


@pytest.fixture
def _unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not about how figures and the page look need not wait for them."""
    from retina.report import figures, page  # here: few tests need to wait for matplotlib
    from retina.results.files import write_bytes

    def write(figure: "Figure", file: Path) -> Path:
        write_bytes(file, b"")
        return file

    monkeypatch.setattr(figures, "write", write)
    monkeypatch.setattr(page, "write", lambda folder, *_, **__: folder.root / "report.html")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> "Decoded":
    """The photographs that are decoded in this process, and a way to break some."""
    from cache_builder import Decoded

    from retina.data.cache import decode

    seen = Decoded()
    monkeypatch.setattr(decode, "read", seen.read)
    return seen
