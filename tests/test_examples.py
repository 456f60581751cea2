"""The examples run as they stand: the notebook on drawn photographs, the scripts on what it has made."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--results", "results", "--trials", "2", "--set", "parameters.epochs.value=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the notebook was executed."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(EXAMPLES / "sweep.ipynb", as_version=4)
    nbformat.validate(notebook)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RETINA_NOTEBOOK_FOLDER", str(folder))
        patched.setenv("RETINA_NOTEBOOK_TRIALS", "2")
        patched.setenv("RETINA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patched.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]))
        NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    nbformat.write(notebook, folder / "executed.ipynb")
    return folder


def script(name: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_s_tables_are_frames(folder: Path) -> None:
    notebook = nbformat.read(folder / "executed.ipynb", as_version=4)
    shown = [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    assert len(shown) == 6
    trials, verdict, grades = shown[1], shown[3], shown[5]
    assert {"t0000", "t0001", "COMPLETE"} <= set(trials.split())
    assert "baseline" in verdict
    assert len(grades.splitlines()) > 6


def test_the_notebook_leaves_what_the_command_leaves(folder: Path) -> None:
    run = folder / "results" / "notebook"
    assert len(pd.read_csv(run / "trials.csv")) == 2
    for name in ("report.html", "best/model.pt", "best/confusion_matrix_test.png", "export/model.onnx"):
        assert (run / name).is_file()


def test_a_finished_sweep_is_analysed(folder: Path) -> None:
    printed = script("analyse_sweep.py", "results/notebook", cwd=folder)
    assert "notebook: 2 trials, metric val_qwk" in printed
    assert "COMPLETE    2" in printed
    assert "grade (row) and prediction (column) on test" in printed


def test_the_script_goes_on_with_a_sweep(folder: Path) -> None:
    printed = script("run_sweep.py", "notebook.yaml", "--results", "results", "--trials", 2, "--resume", cwd=folder)
    assert "best trial t000" in printed
    assert "QWK on test" in printed
