"""Analyse a finished sweep from its results folder: curves, parameters, errors of the best model.

python examples/analyse_sweep.py results/demo
"""

from __future__ import annotations

import argparse

import pandas as pd

import retina


def main() -> None:
    """Print tables of a sweep."""
    parser = argparse.ArgumentParser(description="Print tables of a finished sweep.")
    parser.add_argument("run", help="a results folder, for example results/demo")
    run = retina.open_run(parser.parse_args().run)
    metric = run.spec.metric.name

    print(f"{run.name}: {len(run.trials)} trials, metric {metric}")
    print(run.trials["state"].value_counts().to_string(header=False))

    print("\nmean of the metric by epoch")
    print(run.history.groupby("epoch")[metric].agg(["mean", "max", "count"]).to_string(float_format="%.3f"))

    importances = run.importances()
    if not importances.empty:
        print("\nimportance of the parameters")
        print(importances.to_string(float_format="%.2f"))

    if run.best is None:
        print("\nno trial has a result yet")
        return
    predictions = run.best.predictions
    test = predictions[predictions["split"] == "test"]
    print(f"\nbest trial {run.best.trial_id}: {run.best.metrics['verdict']}")
    print("\ngrade (row) and prediction (column) on test")
    print(pd.crosstab(test["grade"], test["predicted"]).to_string())
    confidence = test[[f"p{grade}" for grade in range(5)]].max(axis=1)
    errors = test.assign(confidence=confidence)[test["grade"] != test["predicted"]]
    print("\nthe most confident errors")
    print(errors.nlargest(5, "confidence")[["image", "grade", "predicted", "confidence"]].to_string(index=False))


if __name__ == "__main__":
    main()
