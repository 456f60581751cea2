"""The nodes of the cluster: which of them may run trials, who joins and who is lost."""

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
from retina.errors import NodeError, as_disk_error
from retina.sweep.cluster import TrialResources, fitting
from retina.sweep.requirements import PREFIX, SAME_USER, DataRequirements, NodeRequirements, user, versions

log = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
"""How long a node may take to check itself: it starts a process, imports torch and reads the label files."""


def here() -> str:
    """Return the name and the address of the node that this process runs on."""
    return f"node {socket.gethostname()} ({ray.util.get_node_ip_address()})"


@contextmanager
def marked(folder: Path) -> Iterator[NodeRequirements]:
    """Write the marker into `folder`, which is made where it is absent, and remove it at the end.

    Raises:
        ResultsError: it cannot be written; exit code 1 where the disk is full.
    """
    marker = folder / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise as_disk_error(folder, "cannot be written to", error) from None
    try:
        yield NodeRequirements(marker, versions())
    finally:
        marker.unlink(missing_ok=True)


class Nodes:
    """The nodes that may run trials.

    Nodes that are there at the start are checked before anything is written; one that lacks something stops the sweep,
    since a person is there who can mend it. A node that joins later is checked while the sweep runs: it gets trials
    once it has passed. One that fails gets none, which is said once; a placement group holds its resources.
    """

    def __init__(self, share: TrialResources, photographs: FundusDataset | None = None) -> None:
        """Serve trials of `share` that train on `photographs`."""
        self._share, self._photographs = share, photographs
        self._known: dict[str, str] = {}  # nodes that may run trials: id to what it is called
        self._asked: dict[ray.ObjectRef[str], tuple[str, str]] = {}  # checks under way: id and what it is called
        self._refused: dict[str, PlacementGroup] = {}
        self._needs: NodeRequirements | None = None
        self._data: bytes | None = None  # pickled DataNeeds, made when the first other node is asked
        self._is_dry = False

    def check(self, folder: Path) -> None:
        """Check all nodes that have room for a trial, unless the driver's own is the only one.

        Args:
            folder: the results folder, or the one that it will be made in.

        Raises:
            NodeError: a node lacks something; of several, the first is told in full and the others are named.
        """
        able = self._able()
        if set(able) <= {ray.get_runtime_context().get_node_id()}:
            self._known.update({node: _name(told) for node, told in able.items()})
            return
        with marked(folder) as needs:
            for node, told in able.items():
                self._ask(node, _name(told), needs)
            problems: dict[str, str] = {}
            deadline = time.monotonic() + CHECK_SECONDS
            while self._asked and time.monotonic() < deadline:
                problems.update(self._answers(needs, seconds=1.0))
            for asked, (_, name) in self._asked.items():
                ray.cancel(asked, force=True)
                problems[name] = f"no answer to the check for {CHECK_SECONDS:.0f} s;\nlook at Ray's logs on that node"
            self._asked.clear()
        if problems:
            raise NodeError(_told(problems))

    @contextmanager
    def serving(self, root: Path) -> Iterator[NodeRequirements]:
        """Keep the marker in the sweep's results folder `root` while trials run; release refused nodes at the end."""
        with marked(root) as self._needs:
            if not self._known:
                self._known = {node: _name(told) for node, told in self._able().items()}
            try:
                yield self._needs
                self._say_who_is_lost(self._able())  # what was lost in the last seconds
            finally:
                for asked in self._asked:
                    with suppress(Exception):  # of a cluster that has died, which is said elsewhere
                        ray.cancel(asked, force=True)
                self._asked.clear()
                for group in self._refused.values():
                    with suppress(Exception):
                        remove_placement_group(group)

    def checked(self) -> list[str]:
        """Return the ids of the nodes that are alive and passed the check, the ones with most room for trials first."""
        able = self._able()
        return sorted(set(self._known) & set(able), key=lambda node: -self._fitting(able[node]))

    def slots(self) -> int:
        """Count the trials that fit the nodes that passed the check; look who has joined and who is lost."""
        able = self._able()
        if self._needs:
            for problem in self._answers(self._needs, seconds=0).items():
                log.warning("%s is not used: %s", *problem)
            for node in set(able) - set(self._known) - set(self._refused) - {node for node, _ in self._asked.values()}:
                self._ask(node, _name(able[node]), self._needs)
        self._say_who_is_lost(able)
        count = sum(self._fitting(told) for node, told in able.items() if node in self._known)
        if not count and not self._is_dry:
            log.warning("no node has room for a trial now: the sweep waits for one; Ctrl-C stops it for --resume")
        self._is_dry = not count
        return count

    def _say_who_is_lost(self, able: dict[str, dict[str, Any]]) -> None:
        for node in set(self._known) - set(able):
            log.warning("%s is lost; its trials go on from their checkpoints on other nodes", self._known.pop(node))

    def _able(self) -> dict[str, dict[str, Any]]:
        """Return the nodes that are alive and have room for a trial, by id, as `ray.nodes()` describes them."""
        return {told["NodeID"]: told for told in ray.nodes() if told["Alive"] and self._fitting(told)}

    def _fitting(self, told: dict[str, Any]) -> int:
        has = told["Resources"]
        return fitting(int(has.get("CPU", 0)), int(has.get("GPU", 0)), self._share)

    def _ask(self, node: str, name: str, needs: NodeRequirements) -> None:
        if self._data is None:
            self._data = pickle.dumps(self._photographs and DataRequirements.of(self._photographs))
        task = ray.remote(num_cpus=0, max_retries=0)(_check_of_a_node())
        there = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        self._asked[there.remote(pickle.dumps(needs), self._data, str(_written(needs, node)))] = (node, name)

    def _answers(self, needs: NodeRequirements, *, seconds: float) -> dict[str, str]:
        """Take in the checks that have ended, waiting for `seconds` at most. Returns problems by the nodes' names."""
        if not self._asked:
            return {}
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=seconds)
        problems = {}
        for asked in ready:
            node, name = self._asked.pop(asked)
            try:
                problem = ray.get(asked) or _removal_problem(_written(needs, node))
            except RayError as error:
                problem = f"the check failed there: {_last_line(error)}"
            told = self._able().get(node)
            if told is None:  # lost meanwhile
                continue
            if problem:
                problems[name] = problem
                if self._needs:  # trials run
                    self._refused[node] = _all_of(told)
            else:
                self._known[node] = name
                if self._needs:
                    count = self._fitting(told)
                    log.info("%s has joined: room for %d more trial%s", name, count, "s" if count > 1 else "")
        return problems


def _check_of_a_node() -> Callable[[bytes, bytes, str], str]:
    """Make the function that runs on a node: a nested one is sent whole, and can tell that the package is absent."""

    def check(pickled_needs: bytes, pickled_data: bytes, written: str) -> str:
        import os  # noqa: PLC0415
        import pickle  # noqa: PLC0415

        try:
            needs, data = pickle.loads(pickled_needs), pickle.loads(pickled_data)  # noqa: S301  # the driver's
            problem = needs.problem() or (data.problem() if data else "")
        except (ImportError, AttributeError) as error:
            return f"the package cannot be used there: {error};\ninstall the same version of retina on every node"
        if not problem:
            os.mkdir(written)  # noqa: PTH102  # the driver tries to remove it
            with open(os.path.join(written, "file"), "w", encoding="utf-8"):  # noqa: PTH118, PTH123
                pass
        return str(problem)

    return check


def _written(needs: NodeRequirements, node: str) -> Path:
    return needs.marker.with_name(f"{needs.marker.name}-{node[:12]}")


def _removal_problem(written: Path) -> str:
    """Remove what a node wrote, as the driver removes the weights of trials."""
    try:
        shutil.rmtree(written)
    except OSError as error:
        reason = f"what it writes into {written.parent} cannot be removed by the driver, user {user()}"
        return f"{reason} ({error.strerror});\n{SAME_USER}"
    return ""


def _all_of(told: dict[str, Any]) -> PlacementGroup:
    """Take all cores and GPUs of a node, so that no trial gets them."""
    has = told["Resources"]
    bundle = {key: has[key] for key in ("CPU", "GPU") if has.get(key)}
    return placement_group([{**bundle, f"node:{told['NodeManagerAddress']}": 0.001}])


def _name(told: dict[str, Any]) -> str:
    return f"node {told['NodeManagerHostname']} ({told['NodeManagerAddress']})"


def _told(problems: dict[str, str]) -> str:
    (first, problem), *others = problems.items()
    more = f"\nalso: {', '.join(name for name, _ in others)}" if others else ""
    return f"{first}: {problem}{more}"


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
