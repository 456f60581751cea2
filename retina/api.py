"""The Python API: each function does what the command of its name does and returns an object with pandas frames.

Log records of the package go to the logger "retina": `logging.basicConfig()` and
`logging.getLogger("retina").setLevel(logging.INFO)` show them. Each function imports what it needs when it is called:
torch and Ray take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from retina.config import DataConfig, SweepSpec, TrialConfig, parse
from retina.config import sweep as sweep_config
from retina.errors import SpecError
from retina.results.run_folder import RunFolder

if TYPE_CHECKING:
    from retina.audit.runner import Audit
    from retina.data.dataset import FundusDataset, Progress
    from retina.sweep.ray_backend import SweepResult
    from retina.sweep.status_reporter import Watch

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a sweep, evaluated on validation and test.

    Attributes:
        trial_id: its id, for example "t0007".
        epoch: the epoch whose weights are kept, the best by the sweep's metric on validation.
        config: its settings.
        metrics: best/metrics.json: "val" and "test" with metrics and 95% intervals, "verdict", "operating_point".
        folder: best/, with model.pt, predictions.csv and the figures.
    """

    trial_id: str
    epoch: int
    config: TrialConfig
    metrics: dict[str, Any]
    folder: Path

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """best/predictions.csv: a row a photograph of validation and test, with grade, prediction and probabilities."""
        from retina.report.page.run_data import read  # brings matplotlib

        frame = read(RunFolder.open(self.folder.parent)).predictions
        return pd.DataFrame() if frame is None else frame


@dataclass(frozen=True)
class Run:
    """A sweep's results folder.

    Attributes:
        path: the folder, `results/<name>/`.
        result: how the sweep ended in this process; None for a folder that was opened.
    """

    path: Path
    result: SweepResult | None = None

    def __post_init__(self) -> None:
        """Check that the folder is one of a sweep.

        Raises:
            ResultsError: it is none.
        """
        RunFolder.open(self.path)

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self._folder.name

    @property
    def spec(self) -> SweepSpec:
        """The sweep file, every default filled in."""
        return self._folder.spec()

    @property
    def trials(self) -> pd.DataFrame:
        """trials.csv as it is now: a row a trial, with state, settings, metrics of its best epoch, and why it ended."""
        return self._folder.trials()

    @property
    def history(self) -> pd.DataFrame:
        """history.csv as it is now: a row an epoch of a trial."""
        return self._folder.history()

    @property
    def metadata(self) -> dict[str, Any]:
        """environment.json as it is now: command, versions, commit, hardware, and a summary of the photographs."""
        return self._folder.metadata()

    @property
    def best(self) -> BestTrial | None:
        """The best trial; None where none has been evaluated yet.

        Raises:
            ResultsError: a file of best/ is damaged.
        """
        from retina.report.page.run_data import read  # brings matplotlib

        folder = self._folder
        metrics = read(folder).best
        if metrics is None:
            return None
        trial_id = str(metrics["trial_id"])
        return BestTrial(
            trial_id=trial_id,
            epoch=int(metrics.get("epoch") or folder.trial_row(trial_id)["best_epoch"]),
            config=folder.configs()[trial_id],
            metrics=metrics,
            folder=folder.best,
        )

    def importances(self) -> pd.Series[float]:
        """Return the share of each searched parameter in the differences between trials, the largest first (PED-ANOVA).

        Empty where too few trials have a value.
        """
        from retina.sweep.importance import importances  # brings Optuna

        return pd.Series(importances(self._folder), dtype="float64", name="importance")

    def report(self, file: PathLike | None = None, *, progress: Progress | None = None) -> Path:
        """Write report.html, also while the sweep runs; return its path.

        Args:
            file: where to; report.html of the run if None.
            progress: called with what takes long: a description, the count done, the total.

        Raises:
            ResultsError: a file of the run is damaged, or `file` cannot be written.
        """
        from retina.report import page
        from retina.report.finalize import draw_comparison
        from retina.sweep.importance import importances

        folder = self._folder
        draw_comparison(folder, progress=progress)
        return page.write(folder, importances(folder), file=None if file is None else Path(file))

    def export(self, out: PathLike | None = None) -> Path:
        """Write the best model as a folder that runs elsewhere; see `export`."""
        return export(self, out)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder.open(self.path)


def load_sweep(
    file: PathLike,
    *,
    trials: int | None = None,
    overrides: Sequence[str] = (),
    data: str | None = None,
    name: str | None = None,
) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        file: a YAML file, for example sweeps/demo.yaml.
        trials: replaces the number of trials.
        overrides: changes as `--set` takes them: "data.image_size=64", "parameters.epochs.value=1".
        data: replaces `data.path`; a folder, a label file, an npz file, or "synthetic".
        name: replaces the sweep's name, which is the name of its results folder.

    Raises:
        SpecError: there is no such file, or something in it is not allowed; names line or key.

    Example:
        >>> load_sweep("sweeps/demo.yaml", trials=2).trials
        2
    """
    return sweep_config.load(Path(file), overrides=overrides, data=data, name=name, trials=trials)


def run_sweep(
    sweep: SweepSpec | PathLike,
    results: PathLike = "results",
    *,
    weights: PathLike | None = None,
    address: str | None = None,
    resume: bool = False,
    extend: int = 0,
    force: bool = False,
    verbose: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Run:
    """Run a sweep: its trials on Ray, the evaluation of the best one, figures, the comparison of networks, report.html.

    A user's mistake is found before the first trial starts and before anything is written.

    Args:
        sweep: a checked sweep, or its file.
        results: the folder of all sweeps; on a cluster, one that all nodes share.
        weights: pretrained weights, a file or a folder of them; downloaded by torchvision if None.
        address: "auto" or HOST:PORT of a running Ray cluster; $RAY_ADDRESS, else a Ray of this machine's own, if None.
            A Ray that this process has joined already is used as it is.
        resume: go on with a sweep that was interrupted.
        extend: number of trials to add to a sweep that is there.
        force: go on although the sweep file, the photographs or the code have changed.
        verbose: let Ray and Optuna log.
        progress: called with what takes long: a description, the count done, the total.
        watch: called with a `retina.results.status` object while trials run.

    Returns:
        The run. `run.result.interrupted` says whether Ctrl-C ended it before its trials were run.

    Raises:
        RetinaError: the sweep file, photographs, weights, results folder, disk or cluster are not as they must be.
    """
    from retina.sweep import api  # brings torch and Ray

    spec = sweep if isinstance(sweep, SweepSpec) else load_sweep(sweep)
    refuse_address(os.fspath(results))
    place = api.SweepPaths(Path(results), None if weights is None else Path(weights), address)
    options = api.ResumeOptions(resume=resume, extend=extend, force=force)
    folder, result = api.run_sweep(spec, place, options, verbose=verbose, progress=progress, watch=watch)
    if not result.interrupted:
        _finalize(folder, progress=progress)
    return Run(folder.root, result)


def open_run(path: PathLike) -> Run:
    """Open the results folder of a sweep, also of one that runs at this moment.

    Raises:
        ResultsError: there is none; lists the sweeps beside it.
    """
    return Run(Path(path))


def prepare(data: DataConfig | PathLike, *, progress: Progress | None = None, **settings: Any) -> FundusDataset:
    """Check a data set, decode its photographs into the cache and split them.

    Lists of left-out photographs and of unused files are written to the cache folder, see `write_lists`.

    Args:
        data: a checked `DataConfig`, or the path of a folder, a label file or an npz file.
        progress: called with what takes long: a description, the count done, the total.
        settings: of `DataConfig`, where `data` is a path: image_size=224, on_bad="skip", grade_mapping={...}.

    Returns:
        The dataset: `frame` has a row a photograph with grade, patient and split.

    Raises:
        SpecError: a setting is not allowed.
        DataError: the photographs or their labels cannot be used; names file and row.
    """
    from retina.data import dataset  # brings torch

    prepared = dataset.prepare(_data_config(data, settings), progress)
    write_lists(prepared)
    return prepared


def write_lists(prepared: FundusDataset) -> dict[str, Path]:
    """Write the CSV lists of what a prepared dataset leaves out, and return their paths.

    Returns:
        Paths by kind: "left-out" (photographs and labels), "not-used" (files); a kind without rows has no file.
    """
    from retina.data import dataset
    from retina.results.files import write_csv

    paths = {}
    for kind, rows in dataset.excluded_rows(prepared).items():
        if rows:
            paths[kind] = dataset.excluded_rows_path(prepared.config, kind)
            write_csv(paths[kind], rows, list(rows[0]))
    return paths


def audit(
    data: DataConfig | PathLike,
    *,
    html: PathLike | Literal[False] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Audit:
    """Look for what is wrong with a data set: labels, splits, duplicates, unfit photographs.

    Args:
        data: as in `prepare`.
        html: the page, with the table of unused files beside it; audit-NAME.html in the current folder if None, no
            page if False.
        seed: of the photographs that are drawn for the page.
        progress: as in `prepare`.
        settings: as in `prepare`.

    Raises:
        SpecError: a setting is not allowed.
        DataError: there is no data set, or no label that can be used.
        ResultsError: the page cannot be written, or `html` is a file that no audit has written.
    """
    from retina.audit import page, runner, unused
    from retina.data.layouts import resolve_path

    config = _data_config(data, settings)
    resolve_path(config.path)  # first: the page is named after what is there
    file = None if html is False else Path(html) if html is not None else page.default_file(Path(config.path))
    if file:
        page.ensure_replaceable(file)  # before minutes are spent on what could not be written
    report: Progress = progress or (lambda *_: None)
    found = runner.audit(config, report)
    if file:
        page.write(found, file, seed=seed, progress=report)
        unused.write(found, file)
    return found


def export(run: Run | PathLike, out: PathLike | None = None) -> Path:
    """Write the best model of a run as a folder that runs elsewhere: ONNX, torch.export, weights, model card.

    The graphs are compared with torch on real photographs before anything is written.

    Args:
        run: a run, or the path of its results folder.
        out: where to; `export/` of the run if None. An earlier export is replaced.

    Returns:
        The folder.

    Raises:
        ResultsError: there is no best model yet, a file is damaged, a graph differs from torch, or `out` is taken.
    """
    from retina.export import write  # brings torch

    path = run.path if isinstance(run, Run) else Path(run)
    return write.export(path, None if out is None else Path(out))


def predict(
    folder: PathLike,
    images: PathLike | Iterable[PathLike],
    *,
    runtime: Literal["auto", "torch", "onnx"] = "auto",
    on_bad: Literal["stop", "skip"] = "stop",
    batch_size: int = 32,
    device: str | None = None,
) -> pd.DataFrame:
    """Grade photographs with an exported model.

    Args:
        folder: what `export` returned.
        images: a photograph, a folder of them or a glob pattern, or several of these.
        runtime: what the model runs in; "auto" is torch where there is a GPU, else onnxruntime.
        on_bad: "skip" gives a photograph that cannot be read a row with its problem instead of a grade.
        batch_size: photographs in the model at once; changes nothing but speed and memory.
        device: torch device, if the model runs in torch.

    Returns:
        A row a photograph: image, grade (0 to 4), name, p0 to p4, referable_score, referable, problem.

    Raises:
        ResultsError: the folder is no exported model, or is damaged.
        DataError: there are no photographs, or one cannot be read and `on_bad` is "stop".
    """
    from retina.predict.files import find_images
    from retina.predict.grade import predict as grade_images

    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    files = find_images([os.fspath(image) for image in given])
    return grade_images(Path(folder), files, batch_size=batch_size, runtime=runtime, device=device, on_bad=on_bad)


def refuse_address(results: str) -> None:
    """Raise if `results` is no path.

    Raises:
        SpecError: it is empty or the address of a storage service.
    """
    if "://" in results or not results.strip():
        raise SpecError(f"--results {results}: allowed: a folder; on a cluster, one that all nodes share")


def _data_config(data: DataConfig | PathLike, settings: dict[str, Any]) -> DataConfig:
    if isinstance(data, DataConfig):
        return parse(DataConfig, {**data.model_dump(), **settings}, "data") if settings else data
    return parse(DataConfig, {"path": os.fspath(data), **settings}, "data")


def _finalize(folder: RunFolder, *, dataset: FundusDataset | None = None, progress: Progress | None = None) -> None:
    from retina.report.finalize import finalize
    from retina.sweep.importance import importances

    finalize(folder, importances, dataset=dataset, progress=progress)
