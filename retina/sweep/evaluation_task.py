"""The evaluation of a sweep on a cluster: a Ray task with the resources of a trial.

The driver may run on a laptop or on a head node without a GPU, so that it does not evaluate the models itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retina.errors import ClusterError, RetinaError
from retina.sweep import ray_logs
from retina.sweep.cluster import TrialResources
from retina.sweep.guard import Guard
from retina.system import process

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Time between two looks at whether the task has ended, Ray has died, or the process was asked to stop."""
NAME = "evaluation of the best trial"
"""The task's name on Ray's dashboard."""


@dataclass
class TaskOutcome:
    """What a task sends back to the driver.

    Attributes:
        messages: level and text of the log records of this package, in their order.
        error: the error that ended the task; None where it succeeded.
    """

    messages: list[tuple[int, str]] = field(default_factory=list)
    error: RetinaError | OSError | None = None


def run_on_node(
    function: Callable[[], None], resources: TrialResources, nodes: Sequence[str] = (), guard: Guard | None = None
) -> None:
    """Run `function` in a Ray task with the resources of a trial, and wait for it.

    Its log records of this package are logged by the driver when it has ended. A node that is lost is left aside, and
    the task runs on the next one.

    Args:
        function: what to run; it is pickled.
        resources: cores (and torch threads) and GPUs of the task.
        nodes: ids of the nodes that may run it, the preferred ones first; any node of the cluster if empty.
        guard: watches that Ray lives.

    Raises:
        ClusterError: Ray has died, the task's worker died on each of the nodes, or `function` raised another error.
        RetinaError: what `function` raised.
        OSError: likewise.
    """
    task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0)(_call)
    problem: RayError | None = None
    for node in nodes or [""]:
        where: dict[str, Any] = (
            {} if not node else {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
        )
        reference = task.options(name=NAME, **where).remote(function, resources)
        try:
            outcome = _wait(reference, guard)
        except RayTaskError as error:  # the function's own error, which would be the same on every node
            raise ClusterError(_message(error)) from error
        except RayError as error:
            problem = error
            log.warning("the evaluation failed on a node: %s", _cause(error))
            continue
        for level, text in outcome.messages:
            log.log(level, "%s", text)
        if outcome.error is not None:
            raise outcome.error
        return
    raise ClusterError(_message(problem)) from problem


def _message(error: RayError | None) -> str:
    return f"the evaluation of the best trial failed on the cluster: {_cause(error)};\ngo on with --resume"


def _cause(error: RayError | None) -> str:
    """Return the last line of the error that names one: Ray puts frames and terminal codes before it."""
    return ray_logs.last_error_line(str(error)) or type(error).__name__


def _wait(reference: ray.ObjectRef[TaskOutcome], guard: Guard | None) -> TaskOutcome:
    try:
        while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
            if guard:
                guard.check()
            process.raise_if_stop_requested()
    except BaseException:
        ray.cancel(reference, force=True)
        raise
    outcome: TaskOutcome = ray.get(reference)
    return outcome


def _call(function: Callable[[], None], resources: TrialResources) -> TaskOutcome:
    """Run in the worker."""
    if not resources.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves them visible to a task that was given none
    torch.set_num_threads(resources.cpu)
    outcome = TaskOutcome()
    handler = _Collector(outcome.messages)
    package = logging.getLogger("retina")
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        function()
    except (RetinaError, OSError) as error:
        outcome.error = error
    finally:
        package.removeHandler(handler)
    return outcome


class _Collector(logging.Handler):
    """Collects level and text of log records."""

    def __init__(self, messages: list[tuple[int, str]]) -> None:
        super().__init__(logging.INFO)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Add one record."""
        self._messages.append((record.levelno, record.getMessage()))
