"""Fixtures shared by the tests of several packages."""

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
# Ray raises the niceness of its workers by default: beside two other test processes on two cores they get 3% of a core
os.environ.setdefault("OMP_NUM_THREADS", "1")
# three test processes share two cores: threads that wait for each other would waste them

LONGEST = {"test_kill_and_resume.py", "test_ray_backend.py", "test_end_to_end.py", "test_examples.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no process starts one last and delays the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def _shared() -> Path | None:
    for folder in (os.environ.get("RETINA_SHARED"), Path(__file__).resolve().parents[2] / "shared"):
        if folder and (Path(folder) / "data").is_dir():
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real photographs, label lists and weights; skip the test if it is missing."""
    folder = _shared()
    if folder is None:
        pytest.skip("needs the real data: neither $RETINA_SHARED nor ../shared exists")
    return folder


@pytest.fixture(autouse=True)
def _isolated_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from reading or filling the user's cache of decoded photographs."""
    monkeypatch.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _restored_logger() -> Iterator[None]:
    """Restore the package's logger after each test, since `cli.main` reconfigures it."""
    logger = logging.getLogger("retina")
    before = logger.level, logger.handlers, logger.propagate
    yield
    logger.level, logger.handlers, logger.propagate = before


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """Create a finished sweep and its exported model, once per session; no test may change them."""
    import exported_model  # imports torch, which most tests of files do not need

    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_CACHE", str(root / "cache"))
        return exported_model.make(root)


@pytest.fixture
def run(world: "World", tmp_path: Path) -> Path:
    """Copy the results folder of `world`, without an export."""
    import exported_model

    return exported_model.copy(world.run, tmp_path / "demo", "export")


@pytest.fixture
def exported(world: "World", tmp_path: Path) -> Path:
    """Copy the exported folder of `world`."""
    import exported_model

    return exported_model.copy(world.exported, tmp_path / "model")


@pytest.fixture
def _stub_graphs(monkeypatch: pytest.MonkeyPatch, world: "World") -> None:
    """Replace the export of graphs by copies of those of `world`, for tests of other parts of an export."""
    from retina.export import check, folder, graphs

    files = [(world.exported / name).read_bytes() for name in (folder.PROGRAM, folder.ONNX)]
    agreement = folder.read_export(world.exported).description.check
    monkeypatch.setattr(graphs, "export_program", lambda *_: None)
    monkeypatch.setattr(graphs, "serialize_pt2", lambda *_: files[0])
    monkeypatch.setattr(graphs, "serialize_onnx", lambda *_: files[1])
    monkeypatch.setattr(check, "compare_graphs", lambda *_: agreement)


@pytest.fixture
def _stub_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace figures and page by empty files, for tests that do not examine them."""
    from retina.report import figures, page  # imported here because matplotlib is slow to import
    from retina.results.files import write_bytes

    def write(figure: "Figure", file: Path) -> Path:
        write_bytes(file, b"")
        return file

    monkeypatch.setattr(figures, "write", write)
    monkeypatch.setattr(page, "write", lambda folder, *_, **__: folder.root / "report.html")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> "Decoded":
    """Record the photographs that are decoded in this process; a test can declare some of them unreadable."""
    from cache_builder import Decoded

    from retina.data.cache import decode

    recorder = Decoded()
    monkeypatch.setattr(decode, "read", recorder.read)
    return recorder
