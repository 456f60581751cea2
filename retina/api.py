"""The Python API: each function does what the command of its name does and returns an object with pandas frames.

Log records of the package go to the logger "retina": `logging.basicConfig()` and
`logging.getLogger("retina").setLevel(logging.INFO)` show them. Each function imports what it needs when it is called:
torch and Ray take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from retina.config import DataConfig, SweepSpec, TrialConfig, parse
from retina.config import sweep as sweep_config
from retina.errors import SpecError
from retina.results.run_folder import RunFolder
from retina.run import PathLike, Run

if TYPE_CHECKING:
    from retina.audit.runner import Audit
    from retina.data.dataset import FundusDataset
    from retina.sweep.status_reporter import Watch
    from retina.system.progress import Progress


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
    paths = api.SweepPaths(Path(results), None if weights is None else Path(weights), address)
    options = api.ResumeOptions(resume=resume, extend=extend, force=force)
    folder, result = api.run_sweep(spec, paths, options, verbose=verbose, progress=progress, watch=watch)
    if not result.interrupted:
        finish_sweep(folder, progress=progress)
    return Run(folder.root, result)


def train(
    data: DataConfig | PathLike,
    *,
    name: str | None = None,
    results: PathLike = "results",
    pretrained: Iterable[bool] = (True, False),
    load: bool = False,
    weights: PathLike | None = None,
    image_size: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Train a network in this process, with and without pretraining, and compare: the same as `retina train`.

    The networks are the trials of a grid sweep, trained one after another without Ray. The best epoch and the best
    network are chosen by validation accuracy; the test accuracy is recorded by epoch and chooses nothing. Settings that
    are left out have the defaults of `TrialConfig`; those of the command are the report's, with a batch size of 4.

    Args:
        data: a checked `DataConfig`, or the path of a folder, a label file or an npz file, or "synthetic".
        name: name of the results folder; NETWORK-comparison, NETWORK-pretrained or NETWORK-scratch if None.
        results: the folder of all sweeps.
        pretrained: a network is trained for each value.
        load: keep what the results folder holds and train only what it lacks.
        weights: pretrained weights, a file or a folder of them; downloaded by torchvision if None.
        image_size: side in pixels of the square that the model sees, if `data` is a path.
        progress: called with what takes long: a description, the count done, the total.
        settings: of `TrialConfig`: arch="resnet50", batch_size=4, epochs=10.

    Returns:
        The run. A network that could not be trained is FAIL in `run.trials`, with its reason.

    Raises:
        RetinaError: a setting, the data, the weights or the results folder cannot be used.
    """
    from retina.sweep import api, train_plan

    choices = list(pretrained)
    if not choices:
        raise SpecError("pretrained: is empty; allowed: True, False, or both")
    config = _data_config(data, {} if image_size is None else {"image_size": image_size})
    kind = "comparison" if len(choices) > 1 else "pretrained" if choices[0] else "scratch"
    arch = settings.get("arch", TrialConfig.model_fields["arch"].default)
    plan = train_plan.create_plan(
        Path(results) / (name or f"{arch}-{kind}"),
        settings,
        config.model_dump(),
        pretrained=choices,
        weights=None if weights is None else Path(weights),
    )
    folder, result, dataset = api.train(plan, load=load, progress=progress)
    if not result.interrupted:
        finish_sweep(folder, dataset=dataset, progress=progress, comparison_required=True)
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


def finish_sweep(
    folder: RunFolder,
    *,
    dataset: FundusDataset | None = None,
    progress: Progress | None = None,
    comparison_required: bool = False,
) -> list[Path]:
    """Draw the figures and the comparison of networks, and write report.html; see `retina.report.finalize.finalize`."""
    from retina.report.finalize import finalize
    from retina.sweep.importance import importances

    return finalize(folder, importances, dataset=dataset, progress=progress, comparison_required=comparison_required)
