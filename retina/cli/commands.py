"""The functions of the commands: each prints its result and returns the exit code.

Each function imports what it needs when it runs: torch takes seconds to import, and --help should not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retina.cli import console, data_arguments, train_arguments
from retina.cli.parser import Command
from retina.errors import ResultsError, SpecError
from retina.report.terminal.progress import show_progress
from retina.system import process

if TYPE_CHECKING:
    from retina.config import SweepSpec
    from retina.data.dataset import FundusDataset
    from retina.results import RunFolder
    from retina.sweep.api import ResumeOptions, SweepPaths
    from retina.sweep.backend import SweepResult


def run_sweep(options: argparse.Namespace) -> int:
    """Run `retina sweep`: search for the best grader."""
    from retina import api
    from retina.config import sweep

    if sys.flags.optimize > 1:
        raise SpecError("python -OO (PYTHONOPTIMIZE=2) removes docstrings that Ray needs; allowed: without, or -O")
    api.refuse_address(options.results)
    loaded = sweep.load(
        options.space, overrides=options.overrides, data=options.data, name=options.name, trials=options.trials
    )
    if options.dry_run:
        return _dry_run(loaded, options)
    from retina.sweep.api import run_sweep  # after the sweep file is known to be right: it brings torch

    root = Path(options.results) / loaded.name
    try:
        with show_progress(console.out) as progress, console.live() as watch:
            folder, result = run_sweep(
                loaded, *_paths_and_options(options), verbose=options.verbose, progress=progress, watch=watch
            )
        if not result.interrupted:
            return _show_sweep(folder, result, loaded.metric.name)
    except KeyboardInterrupt:
        if not (root / "sweep.yaml").is_file():  # an empty folder may have existed before
            console.out.print(
                "\nInterrupted before the first trial. Decoded photographs are kept."
                " Run the same command again to continue."
            )
            return process.exit_code()
    console.out.print(
        f"\nInterrupted. Finished trials are in {root.absolute()}. Continue with the same command and --resume."
    )
    return process.exit_code()


def _dry_run(spec: SweepSpec, options: argparse.Namespace) -> int:
    from retina.data import dataset
    from retina.report.terminal import tables
    from retina.sweep import api, dry_run, ray_backend

    ray_backend.silence_libraries(verbose=False)
    paths, resume = _paths_and_options(options)
    spec, _ = api.prepare_spec(spec, paths, resume)
    console.out.print(spec.to_yaml())
    console.show(tables.plan(dry_run.plan(spec, paths.results / spec.name)))
    manifest = dataset.read_manifest(spec.data)  # last: the plan can be read even if the photographs are not there yet
    if manifest:
        photographs = f"{len(manifest.frame)} photographs in {manifest.root}"
        notes = "".join(f"\nnote: {note}" for note in (*manifest.remarks, *manifest.left_out))
    else:
        photographs, notes = f"{spec.data.synthetic.photographs} are drawn", ""
    console.out.print(f"photographs: {photographs}{notes}\nNothing was started; leave --dry-run out to start it.")
    return 0


def _paths_and_options(options: argparse.Namespace) -> tuple[SweepPaths, ResumeOptions]:
    from retina.sweep.api import ResumeOptions, SweepPaths

    return (
        SweepPaths(results=Path(options.results), weights=options.weights, address=options.address),
        ResumeOptions(resume=options.resume, extend=options.extend, force=options.force),
    )


def train_networks(options: argparse.Namespace) -> int:
    """Run `retina train`: train a network with and without pretraining."""
    from retina.results.run_folder import RunFolder
    from retina.sweep import api, train_plan

    logging.getLogger("retina").setLevel([logging.WARNING, logging.INFO, logging.DEBUG][options.verbosity])
    root = options.results / train_arguments.name_of(options)
    if options.show_only:
        return _show_comparison(RunFolder.open(root), None)
    plan = train_plan.create_plan(
        root,
        {"arch": options.target_model, **{key: getattr(options, key) for key in train_arguments.SETTINGS}},
        {"path": options.data, "image_size": options.image_size},
        pretrained=(True, False) if options.comparison else (options.pretrain,),
        weights=options.weights,
    )
    try:
        with show_progress(console.out) as progress:
            folder, result, photographs = api.train(plan, load=options.load, progress=progress)
    except KeyboardInterrupt:
        if not (root / "sweep.yaml").is_file():
            raise
    else:
        if not result.interrupted:
            return _show_comparison(folder, photographs)
    console.out.print(f"\nInterrupted. Finished runs are in {root}. Continue with the same command and --load 1.")
    return process.exit_code()


def _show_comparison(folder: RunFolder, photographs: FundusDataset | None) -> int:
    """Draw and print what `retina train` has trained."""
    from retina import api
    from retina.evaluation import comparison
    from retina.report import figures
    from retina.report.terminal import best_model

    failed = folder.trial_ids("FAIL")
    for trial_id in failed:
        console.err.print(f"{trial_id} FAIL: {folder.trial_row(trial_id).get('reason', '')}")
    runs, has_best = comparison.read_runs(folder), (folder.best / "metrics.json").is_file()
    if not (has_best or failed) and len(runs) < 2:
        figures.draw(folder)  # raises: there is nothing to draw
    with show_progress(console.out) as progress:
        written = api.finish_sweep(folder, dataset=photographs, progress=progress, comparison_required=True)
    if has_best:
        console.show(best_model.render(folder))
    console.out.print(f"\n{comparison.describe(runs)}")
    names = [f"  {file.relative_to(folder.root)}" for file in written]
    console.out.print("\n".join([f"\nWritten to {folder.root}:", *names]))
    return 1 if failed else 0


def list_sweeps(options: argparse.Namespace) -> int:
    """Run `retina list`: show the sweeps of a results folder."""
    from retina.report.terminal import list_sweeps

    found = list_sweeps.read_summaries(options.results)
    if not found:
        console.out.print(f"{options.results} holds no sweep yet")
        return 0
    console.show(list_sweeps.table(found))
    return 0


def _show_sweep(folder: RunFolder, result: SweepResult, metric: str) -> int:
    """Print how a sweep ended and its trials, finish it, and print its best model beside ensemble and soup."""
    from retina import api
    from retina.report import ensemble_results
    from retina.report.terminal import best_model, tables

    limit = result.ended_by or f"trials={len(folder.trial_ids())}: all were run"
    console.out.print(f"ended by {limit}")
    console.show(tables.trials(folder, metric))
    with show_progress(console.out) as progress:
        api.finish_sweep(folder, progress=progress)
    if result.best is None:
        console.err.print(f"no trial has a result; see error.txt of each trial in {folder.root / 'trials'}")
        return 1
    console.show(best_model.render(folder))
    if ensemble := ensemble_results.read(folder, result.best):
        console.show(ensemble_results.table(ensemble))
    console.show(tables.files(folder))
    return 0


def write_report(options: argparse.Namespace) -> int:
    """Run `retina report`: write a sweep's report.html."""
    from retina import api

    run = api.open_run(options.run)
    with show_progress(console.out) as progress:
        file = run.report(options.out, progress=progress)
    console.out.print(f"written: {file}")
    return 0


def draw_photographs(options: argparse.Namespace) -> int:
    """Run `retina data draw`: draw photographs."""
    from retina.config import SyntheticConfig, parse
    from retina.data import synthetic

    wish = {key: getattr(options, key) for key in ("photographs", "size", "proportions", "seed")}
    config = parse(SyntheticConfig, wish, "retina data draw")
    with show_progress(console.out) as progress:
        synthetic.draw(options.folder, config, progress=lambda done, total: progress("drawing", done, total))
    console.out.print(f"{config.photographs} photographs in {options.folder}, in the layout of EyePACS")
    return 0


def prepare_data(options: argparse.Namespace) -> int:
    """Run `retina data prepare`: check a data set and decode it."""
    from retina import api
    from retina.data import dataset
    from retina.report.terminal import tables

    config = data_arguments.config_of(options, "retina data prepare")
    with show_progress(console.out) as progress:
        prepared = dataset.prepare(config, progress)
    console.show(tables.data(prepared.summary()))
    if prepared.decoded:
        console.out.print(tables.decoding_speed(prepared.decoded, prepared.seconds))
    console.out.print(f"decoded: {prepared.pixels_file}")
    for kind, file in api.write_lists(prepared).items():
        console.out.print(f"{kind.replace('-', ' ')}: {file}")
    return 0


def audit_data(options: argparse.Namespace) -> int:
    """Run `retina data audit`: find problems in a data set."""
    from retina.audit import page, runner, terminal, unused
    from retina.data import layouts

    config = data_arguments.config_of(options, "retina data audit")
    layouts.resolve_path(config.path)  # first: the page is named after the data set
    file = options.html or page.default_file(Path(options.path))
    page.ensure_replaceable(file)  # before the work, which takes minutes
    with show_progress(console.out) as progress:
        found = runner.audit(config, progress)
        console.show(terminal.render(found))  # before the page, whose disk may be full
        try:
            page.write(found, file, seed=options.seed, progress=progress)
            listed = unused.write(found, file)
        except ResultsError as error:  # it could be written at the start: not a mistake of the user
            console.err.print(str(error))
            return 1
    console.out.print(f"written: {file}{f' and {listed}' if listed else ''}")
    return 0


def export_model(options: argparse.Namespace) -> int:
    """Run `retina export`: write the best model as a folder."""
    from retina import api
    from retina.export import folder

    target = api.export(options.run, options.out)
    console.out.print(f"written: {target}")
    if agreement := folder.read_export(target).description.check:
        console.out.print(f"checked: {agreement.summary}")
    return 0


def grade_photographs(options: argparse.Namespace) -> int:
    """Run `retina predict`: grade photographs with an exported model."""
    from retina import api
    from retina.predict.tables import ensure_writable, write_csv, write_json
    from retina.report.terminal import tables

    ensure_writable(options.csv, options.json)  # before the work, which takes minutes
    frame = api.predict(options.folder, options.images, runtime=options.runtime, on_bad=options.on_bad)
    for file, write in ((options.csv, write_csv), (options.json, write_json)):
        if file:
            write(frame, file)
    if not (options.csv or options.json):
        console.show(tables.predictions(frame))
    return int(frame["grade"].isna().all())


COMMANDS: Mapping[str, Command] = {
    "sweep": run_sweep,
    "train": train_networks,
    "data draw": draw_photographs,
    "data prepare": prepare_data,
    "data audit": audit_data,
    "list": list_sweeps,
    "report": write_report,
    "export": export_model,
    "predict": grade_photographs,
}
"""Functions by the words of their command."""
