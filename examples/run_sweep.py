"""Run a sweep from Python: the same as `python tune_main.py --space FILE`.

python examples/run_sweep.py sweeps/demo.yaml --trials 4
"""

from __future__ import annotations

import argparse
import logging

import retina


def main() -> None:
    """Run the sweep and print its best trial."""
    parser = argparse.ArgumentParser(description="Run a sweep and print its best trial.")
    parser.add_argument("sweep", help="a sweep file, for example sweeps/demo.yaml")
    parser.add_argument("--results", default="results", help="the folder of all sweeps (default: results)")
    parser.add_argument("--trials", type=int, help="instead of the sweep file's trials")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--resume", action="store_true", help="go on with a sweep that was interrupted")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("retina").setLevel(logging.INFO)

    spec = retina.load_sweep(options.sweep, trials=options.trials, overrides=options.overrides)
    run = retina.run_sweep(spec, results=options.results, resume=options.resume)

    columns = ["trial_id", "state", "epochs_run", "best_epoch", spec.metric.name]
    print(run.trials[columns].to_string(index=False))
    if run.best is None:
        raise SystemExit("no trial has a result")
    test = run.best.metrics["test"]
    low, high = test["intervals"]["qwk"]
    print(f"best trial {run.best.trial_id}: QWK on test {test['qwk']:.3f} [{low:.3f}, {high:.3f}]")
    print(f"report: {run.path / 'report.html'}")


if __name__ == "__main__":
    main()
