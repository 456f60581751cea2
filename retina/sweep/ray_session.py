"""A connection to Ray as a `retina.sweep.backend.Session`, with the checks that precede a sweep's first trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retina.config.sweep import SweepSpec
from retina.data.dataset import FundusDataset
from retina.sweep import ray_backend
from retina.sweep.backend import Call, SweepResult, TrainingFactory
from retina.sweep.cluster import TrialResources, connected, is_cluster, slots, trial_resources, try_workers
from retina.sweep.dry_run import refuse_full_disk
from retina.sweep.evaluation_task import run_on_node
from retina.sweep.guard import Guard
from retina.sweep.ledger import Ledger
from retina.sweep.nodes import Nodes
from retina.sweep.status_reporter import Watch


class RaySession:
    """The Ray cluster that this process is connected to. Implements `retina.sweep.backend.Session`."""

    def __init__(self, resources: TrialResources, guard: Guard | None, watch: Watch | None, *, verbose: bool) -> None:
        self._resources, self._guard, self._watch, self._verbose = resources, guard, watch, verbose
        self._nodes: Nodes | None = None
        self.gpu_share = resources.gpu or 1.0
        self.call: Call | None = self._call if is_cluster(guard) else None

    def prepare(self, folder: Path, dataset: FundusDataset) -> None:
        """Check that Ray is alive and that its nodes can read the dataset and write to `folder`."""
        if self._guard:
            self._guard.check()
        self._nodes = Nodes(self._resources, dataset)
        self._nodes.check(folder)
        ray_backend.silence_libraries(self._verbose)

    def run(self, spec: SweepSpec, ledger: Ledger, task: TrainingFactory) -> SweepResult:
        """Run the sweep's trials in Ray's workers; see `retina.sweep.ray_backend.run`."""
        return ray_backend.run(
            spec,
            ledger,
            task,
            self._resources,
            nodes=self._nodes,
            verbose=self._verbose,
            watch=self._watch,
            guard=self._guard,
        )

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function in a Ray task with the resources of a trial; see `evaluation_task.run_on_node`."""
        run_on_node(function, self._resources, self._nodes.checked() if self._nodes else (), self._guard)


@contextmanager
def ray_session(
    spec: SweepSpec, root: Path, address: str | None, *, watch: Watch | None = None, verbose: bool = False
) -> Iterator[RaySession]:
    """Connect to Ray or start it, and disconnect at the end. Check that a trial fits and that workers start.

    Args:
        spec: the sweep.
        root: its results folder, whose disk must have room for the trials' weights.
        address: address of a Ray cluster; None: $RAY_ADDRESS, or else Ray is started on this machine.
        watch: called with the sweep's status while trials run.
        verbose: let Ray and Optuna log as they do by default.

    Raises:
        RetinaError: no cluster answers, Ray does not start, no trial fits, or the disk is too full.
    """
    with connected(address, spec.name, verbose=verbose) as guard:
        resources = trial_resources(spec.resources)
        refuse_full_disk(spec, root, slots(resources))
        try_workers(guard, resources)
        yield RaySession(resources, guard, watch, verbose=verbose)
