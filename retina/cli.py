"""Commands, their arguments, what they print, and exit codes: 0 done, 1 the work failed, 2 a mistake of the user's."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.measure import Measurement

import retina
from retina import process
from retina.arguments import Parser, count, refuse_lost_folder
from retina.console import Lines, PrintableConsole
from retina.data import arguments as data_arguments
from retina.errors import ResultsError, RetinaError, SpecError, exit_code_of, one_line
from retina.printable import shortened
from retina.report.terminal.progress import shown
from retina.runs import arguments as train_arguments

if TYPE_CHECKING:
    from retina.config.sweep import SweepSpec
    from retina.data.dataset import Photographs
    from retina.report.terminal.live_view import Status
    from retina.results.run_folder import RunFolder
    from retina.sweep.session import Going, Place

out = PrintableConsole(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = PrintableConsole(soft_wrap=True, highlight=False, stderr=True, markup=False, emoji=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with process.unread_streams_dropped(), process.stoppable():
        try:
            refuse_lost_folder()
            options = _parser().parse_args(arguments)
            _log_to(out, verbose=getattr(options, "verbose", False))
            return int(options.command(options))
        except RetinaError as error:
            err.print(shortened(str(error)))
            return error.exit_code
        except OSError as error:
            code = exit_code_of(error)
            if code is None:
                raise
            err.print(shortened(f"{error.filename or 'a file of ours'}: {error.strerror}"))
            return code
        except KeyboardInterrupt:
            err.print("interrupted")
            return process.exit_code()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="retina", description="Find the best diabetic-retinopathy grader your photographs can buy.")
    parser.add_argument("--version", action="version", version=retina.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _sweep_arguments(commands.add_parser("sweep", help="search for the best grader (python tune_main.py is the same)"))
    train = commands.add_parser("train", help="train a network with and without pretraining, and compare")
    train_arguments.add_arguments(train)
    train.set_defaults(command=_train)
    data = commands.add_parser("data", help="draw photographs, or check and decode your own")
    data_commands = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _draw_arguments(data_commands.add_parser("draw", help="draw fundus photographs in the layout of EyePACS"))
    prepare = data_commands.add_parser("prepare", help="check a data set and decode it into the cache")
    data_arguments.add_prepare(prepare)
    prepare.set_defaults(command=_prepare)
    audit = data_commands.add_parser("audit", help="say what is wrong with a data set")
    data_arguments.add_audit(audit)
    audit.set_defaults(command=_audit)
    listing = commands.add_parser("list", help="the sweeps in a results folder: state, trials, best, age")
    listing.add_argument("results", type=Path, nargs="?", default=Path("results"), metavar="DIR")
    listing.set_defaults(command=_list)
    _report_arguments(commands.add_parser("report", help="write a sweep's report.html, also while it runs"))
    _export_arguments(commands.add_parser("export", help="write the best model as a folder that runs elsewhere"))
    _predict_arguments(commands.add_parser("predict", help="grade photographs with an exported model"))
    return parser


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--space", type=Path, required=True, metavar="FILE", help="the sweep file, sweeps/demo.yaml say")
    add("--data", metavar="PATH|synthetic", help="instead of the sweep file's data.path")
    add("--results", default="results", metavar="DIR", help="where results/<name>/ goes (default: results)")
    add("--name", help="instead of the sweep file's name")
    add("--trials", type=int, metavar="N", help="instead of the sweep file's trials")
    change = "change anything in the sweep file: --set data.image_size=64 'parameters.epochs={values: [2]}'"
    add("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help=change)
    add("--weights", type=Path, metavar="FILE|DIR", help="pretrained weights, instead of torchvision's download")
    join = "join a running Ray cluster (default: $RAY_ADDRESS, else start Ray here)"
    add("--address", metavar="auto|HOST:PORT", help=join)
    add("--resume", action="store_true", help="go on with a sweep that was interrupted, however it was")
    add("--extend", type=count, default=0, metavar="N", help="add N trials to a sweep, with all that it has learned")
    add("--force", action="store_true", help="go on although the sweep file, the photographs or the code have changed")
    add("--dry-run", action="store_true", help="show what the sweep would do, and start nothing")
    add("--verbose", action="store_true", help="let Ray and Optuna say what they like")
    parser.set_defaults(command=_sweep)


def _draw_arguments(parser: argparse.ArgumentParser) -> None:
    from retina.config import SyntheticConfig

    default = SyntheticConfig()
    add = parser.add_argument
    add("folder", type=Path, help="a new folder")
    add("--photographs", type=int, default=default.photographs, metavar="N")
    add("--size", type=int, default=default.size, metavar="PIXELS", help="height of a photograph")
    add("--proportions", choices=["eyepacs", "balanced"], default=default.proportions)
    add("--seed", type=int, default=default.seed)
    parser.set_defaults(command=_draw)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a results folder, results/demo say")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: RUN/report.html)")
    parser.set_defaults(command=_report)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a results folder, results/demo say")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: RUN/export)")
    parser.set_defaults(command=_export)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="an exported model's folder")
    add("images", nargs="+", metavar="IMAGE", help="photographs, folders of them, or globs")
    add("--csv", type=Path, metavar="FILE")
    add("--json", type=Path, metavar="FILE")
    runtime = "what the model runs in (auto: torch where there is a GPU, else onnxruntime)"
    add("--runtime", choices=["auto", "torch", "onnx"], default="auto", help=runtime)
    add("--on-bad", choices=["stop", "skip"], default="stop")
    parser.set_defaults(command=_predict)


# Each command imports what it needs when it runs: torch alone takes seconds, and --help or a typo should not.


def _sweep(options: argparse.Namespace) -> int:
    from retina.config import sweep

    if "://" in options.results or not options.results.strip():
        raise SpecError(f"--results {options.results}: allowed: a folder; on a cluster, one that all nodes share")
    if sys.flags.optimize > 1:
        raise SpecError("python -OO (PYTHONOPTIMIZE=2) removes docstrings that Ray needs; allowed: without, or -O")
    loaded = sweep.load(
        options.space, overrides=options.overrides, data=options.data, name=options.name, trials=options.trials
    )
    from retina.sweep import session  # after the sweep file is known to be right: it brings torch and Ray

    place = session.Place(results=Path(options.results), weights=options.weights, address=options.address)
    going = session.Going(resume=options.resume, extend=options.extend, force=options.force)
    if options.dry_run:
        return _dry_run(loaded, place, going)
    root = Path(options.results) / loaded.name
    try:
        with shown(out) as progress, _live() as watch:
            folder, outcome = session.sweep(
                loaded, place, going, verbose=options.verbose, progress=progress, watch=watch
            )
        if not outcome.interrupted:
            return _tell(folder, outcome.best, outcome.ended_by, loaded.metric.name)
    except KeyboardInterrupt:
        if not (root / "sweep.yaml").is_file():  # an empty folder may have been there before
            out.print("\nInterrupted before the first trial; what was decoded is kept, and the same command goes on.")
            return process.exit_code()
    out.print(f"\nInterrupted; what was finished is in {root.absolute()}. Go on with the same command and --resume.")
    return process.exit_code()


def _dry_run(spec: SweepSpec, place: Place, going: Going) -> int:
    from retina.data import dataset
    from retina.report.terminal import plan as report
    from retina.sweep import plan, run, session

    run.quiet(verbose=False)
    spec, _ = session.to_run(spec, place, going)
    out.print(spec.to_yaml())
    _show(report.table(plan.plan(spec, place.results / spec.name)))
    found = dataset.find(spec.data)  # last: what is planned can be read where the photographs are still to come
    drawn = f"{spec.data.synthetic.photographs} are drawn"
    what = f"{len(found.frame)} photographs in {found.root}" if found else drawn
    notes = [f"\nnote: {note}" for note in (*found.remarks, *found.left_out)] if found else []
    out.print(f"photographs: {what}{''.join(notes)}\nNothing was started; leave --dry-run out to start it.")
    return 0


def _train(options: argparse.Namespace) -> int:
    from retina.results.run_folder import RunFolder
    from retina.runs import plan, training

    logging.getLogger("retina").setLevel([logging.WARNING, logging.INFO, logging.DEBUG][options.verbosity])
    root = options.results / train_arguments.name_of(options)
    if options.show_only:
        return _tell_runs(RunFolder.open(root), None)
    wanted = plan.plan(
        root,
        {"arch": options.target_model, **{key: getattr(options, key) for key in train_arguments.SETTINGS}},
        {"path": options.data, "image_size": options.image_size},
        pretrained=(True, False) if options.comparison else (options.pretrain,),
        weights=options.weights,
    )
    try:
        with shown(out) as progress:
            folder, photographs = training.train(wanted, load=options.load, progress=progress)
    except KeyboardInterrupt:
        if not (root / "sweep.yaml").is_file():
            raise
        out.print(f"\nInterrupted; what was finished is in {root}. Go on with the same command and --load 1.")
        return process.exit_code()
    return _tell_runs(folder, photographs)


def _tell_runs(folder: RunFolder, photographs: Photographs | None) -> int:
    from retina.report import cells, comparison_figures, figures
    from retina.report.terminal import best_model

    failed = folder.trial_ids("FAIL")
    for trial_id in failed:
        err.print(f"{trial_id} FAIL: {folder.recorded(trial_id).get('reason', '')}")
    with shown(out) as progress:
        drawn = comparison_figures.draw(folder, photographs, progress)
    has_best = (folder.best / "metrics.json").is_file()
    if has_best or not (drawn or failed):
        drawn = [*figures.draw(folder), *drawn]
    if has_best:
        _show(best_model.best(folder))
    out.print(f"\n{cells.told(cells.read(folder))}")
    _page_at_the_end(folder)
    drawn += [file for file in (folder.root / "report.html",) if file.is_file()]
    out.print("\n".join([f"\nWritten to {folder.root}:", *(f"  {file.relative_to(folder.root)}" for file in drawn)]))
    return 1 if failed else 0


def _list(options: argparse.Namespace) -> int:
    from retina.report.terminal import list_sweeps

    found = list_sweeps.summaries(options.results)
    if not found:
        out.print(f"{options.results} holds no sweep yet")
        return 0
    _show(list_sweeps.table(found))
    return 0


def _tell(folder: RunFolder, best: str | None, ended_by: str, metric: str) -> int:
    from retina.report import ensemble_results, figures
    from retina.report.terminal import best_model, tables

    out.print(f"ended by {ended_by or f'trials={len(folder.trial_ids())}: every one was run'}")
    _show(tables.trials(folder, metric))
    if best is None:
        _page_at_the_end(folder)
        err.print(f"no trial came to a result; each one's error.txt in {folder.root / 'trials'} says why")
        return 1
    figures.draw(folder)
    _draw_comparison(folder)
    _page_at_the_end(folder)
    _show(best_model.best(folder))
    if made := ensemble_results.read(folder, best):
        _show(ensemble_results.table(made))
    _show(tables.files(folder))
    return 0


def _report(options: argparse.Namespace) -> int:
    from retina.results.run_folder import RunFolder

    folder = RunFolder.open(options.run)
    _draw_comparison(folder)
    out.print(f"written: {_write_page(folder, options.out)}")
    return 0


def _draw_comparison(folder: RunFolder) -> None:
    """Draw the comparison of networks, if the run is one; what hinders it need not hinder its page."""
    from retina.report import comparison_figures

    try:
        with shown(out) as progress:
            comparison_figures.draw(folder, progress=progress)
    except OSError as error:  # the folder can only be read, say
        out.print(f"note: the comparison is not drawn: {error}")


def _write_page(folder: RunFolder, file: Path | None = None) -> Path:
    from retina.report import page
    from retina.sweep.importance import importances

    return page.write(folder, importances(folder), file=file)


def _page_at_the_end(folder: RunFolder) -> None:
    """Write report.html; a defect of a picture is no reason for a sweep to fail."""
    try:
        _write_page(folder)
    except Exception as error:
        out.print(f"note: no report.html: {one_line(error, 1000)}")
        logging.getLogger(__name__).debug("no report.html", exc_info=True)


def _show(table: RenderableType) -> None:
    """Print a table as wide as it is: a line that a narrow terminal breaks can still be read, a cut word cannot."""
    wanted = Measurement.get(out, out.options.update(max_width=1000), table).maximum
    PrintableConsole(width=max(out.width, wanted), highlight=False, markup=False, emoji=False).print(table)


def _draw(options: argparse.Namespace) -> int:
    from retina.config import SyntheticConfig, parse
    from retina.data import synthetic

    wish = {key: getattr(options, key) for key in ("photographs", "size", "proportions", "seed")}
    config = parse(SyntheticConfig, wish, "retina data draw")
    with shown(out) as progress:
        synthetic.draw(options.folder, config, progress=lambda done, total: progress("drawing", done, total))
    out.print(f"{config.photographs} photographs in {options.folder}, in the layout of EyePACS")
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from retina.data import dataset
    from retina.report.terminal import tables
    from retina.results.files import write_csv

    config = data_arguments.config_of(options, "retina data prepare")
    with shown(out) as progress:
        prepared = dataset.prepare(config, progress)
    _show(tables.data(prepared.summary()))
    if prepared.decoded:
        out.print(tables.decoding(prepared.decoded, prepared.seconds))
    out.print(f"decoded: {prepared.pixels_file}")
    for kind, rows in dataset.rows_by_kind(prepared).items():
        if rows:
            file = dataset.list_file(config, kind)
            write_csv(file, rows, list(rows[0]))
            out.print(f"{kind.replace('-', ' ')}: {file}")
    return 0


def _audit(options: argparse.Namespace) -> int:
    from retina.audit import page, runner, terminal, unused
    from retina.data import layouts

    config = data_arguments.config_of(options, "retina data audit")
    layouts.place(config.path)  # first: the page is called after what is there
    file = options.html or page.default_file(Path(options.path))
    page.refuse_foreign(file)  # before minutes are spent on what could not be written
    with shown(out) as progress:
        found = runner.audit(config, progress)
        _show(terminal.view(found))  # before the page, which a full disk may cost us
        try:
            page.write(found, file, seed=options.seed, progress=progress)
            listed = unused.write(found, file)
        except ResultsError as error:  # it could be written when we began: no mistake of the user's
            err.print(str(error))
            return 1
    out.print(f"written: {file}{f' and {listed}' if listed else ''}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from retina.export import folder, write

    target = write.export(options.run, options.out)
    out.print(f"written: {target}")
    if agreement := folder.read(target).description.check:
        out.print(f"checked: {agreement.in_words}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from retina import predict
    from retina.report.terminal import tables

    predict.refuse_taken(options.csv, options.json)  # before minutes are spent on what could not be written
    images = predict.images(options.images)
    frame = predict.predict(options.folder, images, runtime=options.runtime, on_bad=options.on_bad)
    for file, write in ((options.csv, predict.write_csv), (options.json, predict.write_json)):
        if file:
            write(frame, file)
    if not (options.csv or options.json):
        _show(tables.predictions(frame))
    return int(frame["grade"].isna().all())


@contextmanager
def _live() -> Iterator[Callable[[Status], None] | None]:
    """The view of a running sweep, in a terminal; elsewhere None, and the lines of the log say the same."""
    if not out.is_terminal:
        yield None
        return
    with ExitStack() as shown:
        live: list[Live] = []

        def watch(status: Status) -> None:
            from retina.report.terminal.live_view import view

            if not live:  # only now: a bar may have been here before
                live.append(shown.enter_context(Live(console=out, transient=True, auto_refresh=False)))
                Lines.live = True
            live[0].update(view(status), refresh=True)

        try:
            yield watch
        finally:
            Lines.live = False


def _log_to(console: Console, *, verbose: bool) -> None:
    """What the package logs goes to `console`, plain; with `verbose` also what it has to say of details."""
    ours = logging.getLogger("retina")
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.handlers = [Lines(console)]
    ours.propagate = False


if __name__ == "__main__":
    sys.exit(main())
