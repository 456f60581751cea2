"""The Python API: lazy, typed, and the same as the commands."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from exported_model import World

import retina
from retina.config import TrialConfig
from retina.data import synthetic

SWEEPS = Path(__file__).parents[1] / "sweeps"


def test_the_import_brings_no_heavy_library() -> None:
    code = (
        "import sys, retina; retina.SpecError, retina.__version__\n"
        "assert not {'torch', 'ray', 'optuna', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "retina.load_sweep, retina.DataConfig, retina.Run\n"
        "assert not {'torch', 'ray', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_is_there() -> None:
    assert set(retina.__all__) <= set(dir(retina))
    for name in retina.__all__:
        assert callable(getattr(retina, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        retina.nothing  # noqa: B018  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["audit", "export", "predict"])
def test_a_package_is_called_like_its_function(name: str) -> None:
    code = f"import retina, retina.{name}; assert retina.{name}.__name__ == 'retina.{name}'; retina.{name}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert f"{name}() missing" in done.stderr
    assert isinstance(getattr(retina, name), ModuleType)


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(retina.__file__).parent / "py.typed").is_file()


def test_a_sweep_file_is_loaded_and_changed() -> None:
    spec = retina.load_sweep(SWEEPS / "demo.yaml", trials=2, overrides=["parameters.epochs.value=1"], name="mine")
    assert (spec.trials, spec.max_epochs, spec.name) == (2, 1, "mine")
    with pytest.raises(retina.SpecError, match="no_such"):
        retina.load_sweep(SWEEPS / "demo.yaml", overrides=["no_such=1"])


@pytest.mark.parametrize("results", ["", "s3://bucket"])
def test_results_are_a_folder(results: str) -> None:
    with pytest.raises(retina.SpecError, match="allowed: a folder"):
        retina.run_sweep(SWEEPS / "demo.yaml", results=results)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(retina.SpecError, match="pretrained: is empty"):
        retina.train("synthetic", pretrained=[])


def test_a_run_whose_trial_lost_its_settings_says_which_file(run: Path) -> None:
    for file in (run / "trials").glob("*/config.json"):
        file.unlink()
    with pytest.raises(retina.ResultsError, match=r"config\.json: No such file"):
        _ = retina.open_run(run).best


def test_a_run_s_tables_are_frames(world: World) -> None:
    run = retina.open_run(world.run)
    assert list(run.trials.columns[:2]) == ["trial_id", "state"]
    assert isinstance(run.history, pd.DataFrame)
    best = run.best
    assert best is not None
    assert isinstance(best.config, TrialConfig)
    assert best.metrics["test"]["n"] == (best.predictions["split"] == "test").sum()
    assert run.result is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(retina.ResultsError, match="is not the results folder of a sweep"):
        retina.open_run(tmp_path)


def test_a_run_is_exported_and_photographs_are_graded(run: Path, world: World, tmp_path: Path) -> None:
    exported = retina.open_run(run).export(tmp_path / "export")
    grades = retina.predict(exported, world.paths[0], runtime="onnx")
    assert grades["grade"].between(0, 4).all()
    assert len(retina.predict(str(exported), [str(path) for path in world.paths[:3]])) == 3


def test_data_are_prepared_and_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = retina.SyntheticConfig(photographs=20, size=64, proportions="balanced")
    synthetic.draw(tmp_path / "drawn", config)
    (tmp_path / "drawn" / "more.jpg").write_bytes(next((tmp_path / "drawn").rglob("*.jp*g")).read_bytes())
    dataset = retina.prepare(tmp_path / "drawn", image_size=32)
    assert set(dataset.frame["split"]) == {"train", "val", "test"}
    assert dataset.config.image_size == 32
    assert len(retina.audit(tmp_path / "drawn", html=False).manifest.frame) == 20
    assert not list(tmp_path.glob("*.html"))
    retina.audit(tmp_path / "drawn")
    assert (tmp_path / "audit-drawn.html").is_file()
    with pytest.raises(retina.SpecError, match="image_size"):
        retina.prepare(tmp_path / "drawn", image_size=1)
