"""The limits of a sweep file that end a sweep before all its trials are run."""

from __future__ import annotations

from retina.config.sweep import SweepSpec
from retina.results.run_folder import RunFolder


def limit_reached(spec: SweepSpec, folder: RunFolder, seconds: float) -> str:
    """Return the limit that a sweep of `seconds` has reached, for example `budget.hours=2`; empty if none is."""
    budget, metric = spec.budget, spec.metric
    if budget.hours is not None and seconds >= budget.hours * 3600:
        return f"budget.hours={budget.hours:g}"
    if budget.max_failed is not None and len(folder.trial_ids("FAIL")) >= budget.max_failed:
        return f"budget.max_failed={budget.max_failed}"
    if metric.target is not None:
        rows = (folder.trial_row(name) for name in folder.trial_ids("COMPLETE", "PRUNED", "RUNNING"))
        values = [metric.sign * float(row[metric.name]) for row in rows if row.get(metric.name) is not None]
        if values and max(values) >= metric.sign * metric.target:
            return f"metric.target={metric.target:g}"
    return ""
