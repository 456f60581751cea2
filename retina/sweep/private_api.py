"""All access to parts of Optuna and Ray that are not public, with the reason for each.

tests/sweep/test_private_api.py fails when a new version changes what is relied on here. Ray and Optuna are
imported where they are used: `study` needs this module without Ray, and workers need it without Optuna.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from ray.tune.schedulers import AsyncHyperBandScheduler


def resume_trial(study: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> optuna.Trial:
    """Return the trial `number` of `study`, which another process has left RUNNING, to report values of it and end it.

    Optuna has no public way to continue a trial of another process: `Study.ask` returns new trials and WAITING ones
    only, and a WAITING copy would be another trial, beside the RUNNING one. Its maintainers refer to
    `RetryFailedTrialCallback`, which makes such copies too (https://github.com/optuna/optuna/issues/2705). The
    constructor of `Trial` is public, but "the direct use of this constructor is not recommended" (Optuna 5.0.0,
    optuna/trial/_trial.py). The id that it needs comes from documented methods of the storage.

    Args:
        study: The study that holds the trial; its sampler is asked for parameters that the trial does not have yet.
        storage: The storage of `study`.
        number: Number of the trial in the study, from 0.

    Raises:
        KeyError: `storage` holds no such study, or the study no such trial.
    """
    import optuna  # noqa: PLC0415

    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


@dataclass(frozen=True)
class ASHARung:
    """A rung of Ray's ASHA.

    Attributes:
        milestone: value of the time attribute from which on a trial is recorded at the rung.
        trials: number of trials recorded so far.
        cutoff: a trial whose metric, times -1 where less is better, is lower is stopped; None before the first trial.
    """

    milestone: float
    trials: int
    cutoff: float | None


def asha_rungs(scheduler: AsyncHyperBandScheduler) -> list[ASHARung]:
    """Return the rungs of the first bracket of `scheduler`, the highest first.

    Ray has no public way to read them: `debug_string` gives milestones and cutoffs rounded, as text, and not how many
    trials were recorded (Ray 2.60.0, ray/tune/schedulers/async_hyperband.py).
    """
    bracket = scheduler._brackets[0]  # noqa: SLF001
    rungs = []
    for milestone, recorded in bracket._rungs:  # noqa: SLF001
        cutoff = bracket.cutoff(recorded)
        rungs.append(ASHARung(float(milestone), len(recorded), None if cutoff is None else float(cutoff)))
    return rungs


@contextmanager
def ray_constants_set(changes: Mapping[str, Any]) -> Iterator[None]:
    """Set constants of Ray while the block lasts; those that this version of Ray does not have are left out.

    Ray reads the environment variables behind them when it is imported, which has happened by now, and has no public
    way to change them later (Ray 2.60.0, ray/_private/ray_constants.py).
    """
    from ray._private import ray_constants  # noqa: PLC0415  # see above

    before = {name: getattr(ray_constants, name) for name in changes if hasattr(ray_constants, name)}
    for name in before:
        setattr(ray_constants, name, changes[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(ray_constants, name, value)


@contextmanager
def ray_messages(*, enabled: bool) -> Iterator[None]:
    """Print what Ray's processes publish to the driver while the block lasts, or do not.

    The public `log_to_driver` of `ray.init` covers the output of workers only. Errors that Ray's own processes publish
    are printed unless this variable is false (Ray 2.60.0, `listen_error_messages` and `print_worker_logs` in
    ray/_private/worker.py).

    Args:
        enabled: False keeps them from the terminal; True leaves Ray's own setting.
    """
    from ray._private import worker  # noqa: PLC0415  # see above

    name = "_worker_logs_enabled"
    before = getattr(worker, name, True)
    setattr(worker, name, before and enabled)
    try:
        yield
    finally:
        setattr(worker, name, before)
