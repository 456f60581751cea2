"""What each command does and prints; returns its exit code.

Each command imports what it needs when it runs: torch alone takes seconds, and --help or a typo should not wait for it.
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
from retina.errors import ResultsError, SpecError, one_line
from retina.report.terminal.progress import show_progress
from retina.system import process

if TYPE_CHECKING:
    from retina.config import SweepSpec
    from retina.data.dataset import FundusDataset
    from retina.results import RunFolder
    from retina.sweep.api import ResumeOptions, SweepPaths


def run_sweep(options: argparse.Namespace) -> int:
    """Run `retina sweep`: search for the best grader."""
    from retina.config import sweep

    if "://" in options.results or not options.results.strip():
        raise SpecError(f"--results {options.results}: allowed: a folder; on a cluster, one that all nodes share")
    if sys.flags.optimize > 1:
        raise SpecError("python -OO (PYTHONOPTIMIZE=2) removes docstrings that Ray needs; allowed: without, or -O")
    loaded = sweep.load(
        options.space, overrides=options.overrides, data=options.data, name=options.name, trials=options.trials
    )
    from retina.sweep import api  # after the sweep file is known to be right: it brings torch and Ray

    place = api.SweepPaths(results=Path(options.results), weights=options.weights, address=options.address)
    going = api.ResumeOptions(resume=options.resume, extend=options.extend, force=options.force)
    if options.dry_run:
        return _dry_run(loaded, place, going)
    root = Path(options.results) / loaded.name
    try:
        with show_progress(console.out) as progress, console.live() as watch:
            folder, outcome = api.run_sweep(
                loaded, place, going, verbose=options.verbose, progress=progress, watch=watch
            )
        if not outcome.interrupted:
            return _tell(folder, outcome.best, outcome.ended_by, loaded.metric.name)
    except KeyboardInterrupt:
        if not (root / "sweep.yaml").is_file():  # an empty folder may have been there before
            console.out.print(
                "\nInterrupted before the first trial; what was decoded is kept, and the same command goes on."
            )
            return process.exit_code()
    console.out.print(
        f"\nInterrupted; what was finished is in {root.absolute()}. Go on with the same command and --resume."
    )
    return process.exit_code()


def _dry_run(spec: SweepSpec, place: SweepPaths, going: ResumeOptions) -> int:
    from retina.data import dataset
    from retina.report.terminal import tables
    from retina.sweep import api, dry_run, ray_backend

    ray_backend.silence_libraries(verbose=False)
    spec, _ = api.to_run(spec, place, going)
    console.out.print(spec.to_yaml())
    console.show(tables.plan(dry_run.plan(spec, place.results / spec.name)))
    found = dataset.read_manifest(
        spec.data
    )  # last: what is planned can be read where the photographs are still to come
    drawn = f"{spec.data.synthetic.photographs} are drawn"
    what = f"{len(found.frame)} photographs in {found.root}" if found else drawn
    notes = [f"\nnote: {note}" for note in (*found.remarks, *found.left_out)] if found else []
    console.out.print(f"photographs: {what}{''.join(notes)}\nNothing was started; leave --dry-run out to start it.")
    return 0


def train_networks(options: argparse.Namespace) -> int:
    """Run `retina train`: train a network with and without pretraining."""
    from retina.results.run_folder import RunFolder
    from retina.sweep import api, train_plan

    logging.getLogger("retina").setLevel([logging.WARNING, logging.INFO, logging.DEBUG][options.verbosity])
    root = options.results / train_arguments.name_of(options)
    if options.show_only:
        return _tell_runs(RunFolder.open(root), None)
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
            return _tell_runs(folder, photographs)
    console.out.print(f"\nInterrupted; what was finished is in {root}. Go on with the same command and --load 1.")
    return process.exit_code()


def _tell_runs(folder: RunFolder, photographs: FundusDataset | None) -> int:
    from retina.evaluation import comparison
    from retina.report import comparison_figures, figures
    from retina.report.terminal import best_model

    failed = folder.trial_ids("FAIL")
    for trial_id in failed:
        console.err.print(f"{trial_id} FAIL: {folder.trial_row(trial_id).get('reason', '')}")
    with show_progress(console.out) as progress:
        drawn = comparison_figures.draw(folder, photographs, progress)
    has_best = (folder.best / "metrics.json").is_file()
    if has_best or not (drawn or failed):
        drawn = [*figures.draw(folder), *drawn]
    if has_best:
        console.show(best_model.render(folder))
    console.out.print(f"\n{comparison.describe(comparison.read_runs(folder))}")
    _page_at_the_end(folder)
    drawn += [file for file in (folder.root / "report.html",) if file.is_file()]
    console.out.print(
        "\n".join([f"\nWritten to {folder.root}:", *(f"  {file.relative_to(folder.root)}" for file in drawn)])
    )
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


def _tell(folder: RunFolder, best: str | None, ended_by: str, metric: str) -> int:
    from retina.report import ensemble_results, figures
    from retina.report.terminal import best_model, tables

    console.out.print(f"ended by {ended_by or f'trials={len(folder.trial_ids())}: every one was run'}")
    console.show(tables.trials(folder, metric))
    if best is None:
        _page_at_the_end(folder)
        console.err.print(f"no trial came to a result; each one's error.txt in {folder.root / 'trials'} says why")
        return 1
    figures.draw(folder)
    _draw_comparison(folder)
    _page_at_the_end(folder)
    console.show(best_model.render(folder))
    if made := ensemble_results.read(folder, best):
        console.show(ensemble_results.table(made))
    console.show(tables.files(folder))
    return 0


def write_report(options: argparse.Namespace) -> int:
    """Run `retina report`: write a sweep's report.html."""
    from retina.results.run_folder import RunFolder

    folder = RunFolder.open(options.run)
    _draw_comparison(folder)
    console.out.print(f"written: {_write_page(folder, options.out)}")
    return 0


def _draw_comparison(folder: RunFolder) -> None:
    """Draw the comparison of networks, if the run is one; what hinders it need not hinder its page."""
    from retina.report import comparison_figures

    try:
        with show_progress(console.out) as progress:
            comparison_figures.draw(folder, progress=progress)
    except OSError as error:  # the folder can only be read, say
        console.out.print(f"note: the comparison is not drawn: {error}")


def _write_page(folder: RunFolder, file: Path | None = None) -> Path:
    from retina.report import page
    from retina.sweep.importance import importances

    return page.write(folder, importances(folder), file=file)


def _page_at_the_end(folder: RunFolder) -> None:
    """Write report.html; a defect of a picture is no reason for a sweep to fail."""
    try:
        _write_page(folder)
    except Exception as error:
        console.out.print(f"note: no report.html: {one_line(error, 1000)}")
        logging.getLogger(__name__).debug("no report.html", exc_info=True)


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
    from retina.data import dataset
    from retina.report.terminal import tables
    from retina.results.files import write_csv

    config = data_arguments.config_of(options, "retina data prepare")
    with show_progress(console.out) as progress:
        prepared = dataset.prepare(config, progress)
    console.show(tables.data(prepared.summary()))
    if prepared.decoded:
        console.out.print(tables.decoding_speed(prepared.decoded, prepared.seconds))
    console.out.print(f"decoded: {prepared.pixels_file}")
    for kind, rows in dataset.excluded_rows(prepared).items():
        if rows:
            file = dataset.excluded_rows_path(config, kind)
            write_csv(file, rows, list(rows[0]))
            console.out.print(f"{kind.replace('-', ' ')}: {file}")
    return 0


def audit_data(options: argparse.Namespace) -> int:
    """Run `retina data audit`: say what is wrong with a data set."""
    from retina.audit import page, runner, terminal, unused
    from retina.data import layouts

    config = data_arguments.config_of(options, "retina data audit")
    layouts.resolve_path(config.path)  # first: the page is called after what is there
    file = options.html or page.default_file(Path(options.path))
    page.ensure_replaceable(file)  # before minutes are spent on what could not be written
    with show_progress(console.out) as progress:
        found = runner.audit(config, progress)
        console.show(terminal.render(found))  # before the page, which a full disk may cost us
        try:
            page.write(found, file, seed=options.seed, progress=progress)
            listed = unused.write(found, file)
        except ResultsError as error:  # it could be written when we began: no mistake of the user's
            console.err.print(str(error))
            return 1
    console.out.print(f"written: {file}{f' and {listed}' if listed else ''}")
    return 0


def export_model(options: argparse.Namespace) -> int:
    """Run `retina export`: write the best model as a folder."""
    from retina.export import folder, write

    target = write.export(options.run, options.out)
    console.out.print(f"written: {target}")
    if agreement := folder.read(target).description.check:
        console.out.print(f"checked: {agreement.in_words}")
    return 0


def grade_photographs(options: argparse.Namespace) -> int:
    """Run `retina predict`: grade photographs with an exported model."""
    from retina import predict
    from retina.report.terminal import tables

    predict.refuse_taken(options.csv, options.json)  # before minutes are spent on what could not be written
    images = predict.images(options.images)
    frame = predict.predict(options.folder, images, runtime=options.runtime, on_bad=options.on_bad)
    for file, write in ((options.csv, predict.write_csv), (options.json, predict.write_json)):
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
"""By the words that call each."""
