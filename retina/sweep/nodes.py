"""The nodes of the cluster: which of them may run trials, which join and which are lost."""

from __future__ import annotations

import logging
import pickle
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retina.data.dataset import FundusDataset
from retina.errors import NodeError, wrap_os_error
from retina.sweep.cluster import TrialResources, fitting
from retina.sweep.requirements import PREFIX, SAME_USER, DataRequirements, NodeRequirements, user, versions

log = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
"""How long the check of a node may take: it starts a process, imports torch and reads the label files."""


def here() -> str:
    """Return the name and the address of the node that this process runs on."""
    return f"node {socket.gethostname()} ({ray.util.get_node_ip_address()})"


@contextmanager
def marked(folder: Path) -> Iterator[NodeRequirements]:
    """Write a marker file into `folder`, which is created if absent, and remove it at the end.

    Raises:
        ResultsError: it cannot be written; exit code 1 if the disk is full.
    """
    marker = folder / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise wrap_os_error(folder, "cannot be written to", error) from None
    try:
        yield NodeRequirements(marker, versions())
    finally:
        marker.unlink(missing_ok=True)


class Nodes:
    """The nodes that may run trials.

    The nodes that are present at the start are checked before anything is written. One that does not meet the
    requirements stops the sweep, since its user can still correct it. A node that joins later is checked while the
    sweep runs, and gets trials once it has passed. A node that fails gets none: the problem is logged once, and a
    placement group holds its resources.
    """

    def __init__(self, resources: TrialResources, dataset: FundusDataset | None = None) -> None:
        """Serve trials with `resources` each that train on `dataset`."""
        self._resources, self._dataset = resources, dataset
        self._names: dict[str, str] = {}  # of the nodes that may run trials, by id
        self._checks: dict[ray.ObjectRef[str], tuple[str, str]] = {}  # running checks: the node's id and name
        self._refused: dict[str, PlacementGroup] = {}
        self._requirements: NodeRequirements | None = None
        self._pickled_data: bytes | None = None  # DataRequirements, made for the check of the first other node
        self._has_no_room = False

    def check(self, folder: Path) -> None:
        """Check all nodes that have room for a trial, unless the driver's own is the only one.

        Args:
            folder: the results folder, or the one that it will be made in.

        Raises:
            NodeError: a node does not meet the requirements; of several, the first is described and the others named.
        """
        able = self._able()
        if set(able) <= {ray.get_runtime_context().get_node_id()}:
            self._names.update({node: _name(description) for node, description in able.items()})
            return
        with marked(folder) as requirements:
            for node, description in able.items():
                self._start_check(node, _name(description), requirements)
            problems: dict[str, str] = {}
            deadline = time.monotonic() + CHECK_SECONDS
            while self._checks and time.monotonic() < deadline:
                problems.update(self._results(requirements, seconds=1.0))
            for check, (_, name) in self._checks.items():
                ray.cancel(check, force=True)
                problems[name] = f"its check has not ended after {CHECK_SECONDS:.0f} s;\nsee Ray's logs on that node"
            self._checks.clear()
        if problems:
            raise NodeError(_message(problems))

    @contextmanager
    def serving(self, root: Path) -> Iterator[NodeRequirements]:
        """Keep the marker in the results folder `root` while trials run; release the refused nodes at the end."""
        with marked(root) as self._requirements:
            if not self._names:
                self._names = {node: _name(description) for node, description in self._able().items()}
            try:
                yield self._requirements
                self._log_lost(self._able())  # nodes that were lost in the last seconds
            finally:
                for check in self._checks:
                    with suppress(Exception):  # the cluster has died, which is reported elsewhere
                        ray.cancel(check, force=True)
                self._checks.clear()
                for group in self._refused.values():
                    with suppress(Exception):
                        remove_placement_group(group)

    def checked(self) -> list[str]:
        """Return the ids of the nodes that are alive and passed the check, the ones with most room for trials first."""
        able = self._able()
        return sorted(set(self._names) & set(able), key=lambda node: -self._fitting(able[node]))

    def slots(self) -> int:
        """Return the number of trials that fit the nodes that passed the check; look for joined and lost nodes."""
        able = self._able()
        if self._requirements:
            for problem in self._results(self._requirements, seconds=0).items():
                log.warning("%s is not used: %s", *problem)
            for node in set(able) - set(self._names) - set(self._refused) - {node for node, _ in self._checks.values()}:
                self._start_check(node, _name(able[node]), self._requirements)
        self._log_lost(able)
        count = sum(self._fitting(description) for node, description in able.items() if node in self._names)
        if not count and not self._has_no_room:
            log.warning("no node has room for a trial now; the sweep waits for one, and Ctrl-C stops it for --resume")
        self._has_no_room = not count
        return count

    def _log_lost(self, able: dict[str, dict[str, Any]]) -> None:
        for node in set(self._names) - set(able):
            log.warning("%s is lost; its trials go on from their checkpoints on other nodes", self._names.pop(node))

    def _able(self) -> dict[str, dict[str, Any]]:
        """Return the nodes that are alive and have room for a trial, by id, as `ray.nodes()` describes them."""
        return {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and self._fitting(node)}

    def _fitting(self, node: dict[str, Any]) -> int:
        total = node["Resources"]
        return fitting(int(total.get("CPU", 0)), int(total.get("GPU", 0)), self._resources)

    def _start_check(self, node: str, name: str, requirements: NodeRequirements) -> None:
        if self._pickled_data is None:
            self._pickled_data = pickle.dumps(self._dataset and DataRequirements.of(self._dataset))
        task = ray.remote(num_cpus=0, max_retries=0)(_check_of_a_node())
        there = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        arguments = (pickle.dumps(requirements), self._pickled_data, str(_written(requirements, node)))
        self._checks[there.remote(*arguments)] = (node, name)

    def _results(self, requirements: NodeRequirements, *, seconds: float) -> dict[str, str]:
        """Wait up to `seconds`, handle the checks that have ended, and return the problems by the nodes' names."""
        if not self._checks:
            return {}
        ready, _ = ray.wait(list(self._checks), num_returns=len(self._checks), timeout=seconds)
        problems = {}
        for check in ready:
            node, name = self._checks.pop(check)
            try:
                problem = ray.get(check) or _removal_problem(_written(requirements, node))
            except RayError as error:
                problem = f"the check failed there: {_last_line(error)}"
            description = self._able().get(node)
            if description is None:  # lost meanwhile
                continue
            if problem:
                problems[name] = problem
                if self._requirements:  # trials run
                    self._refused[node] = _reserve(description)
            else:
                self._names[node] = name
                if self._requirements:
                    count = self._fitting(description)
                    log.info("%s has joined: room for %d more trial%s", name, count, "s" if count > 1 else "")
        return problems


def _check_of_a_node() -> Callable[[bytes, bytes, str], str]:
    """Return the function that runs on a node.

    A nested function is pickled by value, so that it runs, and reports it, where the package is absent.
    """

    def check(pickled_requirements: bytes, pickled_data: bytes, written: str) -> str:
        import os  # noqa: PLC0415
        import pickle  # noqa: PLC0415

        try:
            requirements = pickle.loads(pickled_requirements)  # noqa: S301  # of the driver
            data = pickle.loads(pickled_data)  # noqa: S301  # of the driver
            problem = requirements.problem() or (data.problem() if data else "")
        except (ImportError, AttributeError) as error:
            return f"the package cannot be used there: {error};\ninstall the same version of retina on every node"
        if not problem:
            os.mkdir(written)  # noqa: PTH102  # the driver tries to remove it
            with open(os.path.join(written, "file"), "w", encoding="utf-8"):  # noqa: PTH118, PTH123
                pass
        return str(problem)

    return check


def _written(requirements: NodeRequirements, node: str) -> Path:
    """Return the folder that the check of a node creates."""
    marker = requirements.marker
    return marker.with_name(f"{marker.name}-{node[:12]}")


def _removal_problem(written: Path) -> str:
    """Remove what a node wrote, as the driver removes the weights of trials, and return the problem, if any."""
    try:
        shutil.rmtree(written)
    except OSError as error:
        reason = f"the driver, user {user()}, cannot remove the files that it writes into {written.parent}"
        return f"{reason} ({error.strerror});\n{SAME_USER}"
    return ""


def _reserve(node: dict[str, Any]) -> PlacementGroup:
    """Reserve all cores and GPUs of a node, so that no trial gets them."""
    total = node["Resources"]
    bundle = {key: total[key] for key in ("CPU", "GPU") if total.get(key)}
    return placement_group([{**bundle, f"node:{node['NodeManagerAddress']}": 0.001}])


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _message(problems: dict[str, str]) -> str:
    (first, problem), *others = problems.items()
    more = f"\nalso: {', '.join(name for name, _ in others)}" if others else ""
    return f"{first}: {problem}{more}"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
