"""The connection to Ray, and the resources of a trial."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import ray
from ray.job_config import JobConfig

from retina.config.sweep import Resources
from retina.errors import SpecError
from retina.sweep import ray_start
from retina.sweep.guard import Guard, check_accepts_connections
from retina.sweep.guard import try_workers as workers_start
from retina.system import process, shadowing

log = logging.getLogger(__name__)

CPU_TRIALS = 4
"""Concurrent trials on a machine without a GPU. Small batches gain little from many threads; a search gains from
concurrent trials."""
CONNECT_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""


@dataclass(frozen=True)
class TrialResources:
    """The resources of one trial: `cpu` cores (and torch threads), and `gpu` GPUs, a fraction if it shares one."""

    cpu: int
    gpu: float


@contextmanager
def connected(address: str | None, sweep: str, *, verbose: bool = False) -> Iterator[Guard | None]:
    """Connect to the cluster at `address` or $RAY_ADDRESS, or start Ray on this machine; disconnect at the end.

    If this process is connected already, that connection is used and stays.

    Yields:
        The guard that watches whether Ray is alive; None if this process was connected already.

    Raises:
        SpecError: an address where no cluster answers.
        ClusterError: Ray does not start on this machine.
    """
    if ray.is_initialized():
        yield None
        return
    source = "--address " if address else "RAY_ADDRESS="
    address = address or os.environ.get("RAY_ADDRESS") or None
    given = f"{source}{address}"
    if address and "://" in address:
        _refuse_other_protocol(address, given)
    _check_reachable(address, given)
    _refuse_hidden_modules()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a clinic's machine sends no usage statistics
    options = {
        "namespace": f"retina-{sweep}",
        "job_config": JobConfig(metadata={"job_name": f"retina sweep {sweep}"}),
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "log_to_driver": verbose,
    }
    local = address in {None, "local"}
    with ExitStack() as stack:
        folder = stack.enter_context(ray_start.temporary_folder()) if local else None
        with process.exit_on_first_signal(), ray_start.driver_settings(local=local):
            context = ray_start.start(folder, **options) if local else _join(str(address), given, options)
        guard = Guard(local=local)
        stack.callback(guard.dismiss)
        stack.callback(guard.end_orphans)
        stack.enter_context(
            ray_start.quiet_messages(verbose=verbose)
        )  # also during the shutdown, which prints messages
        stack.callback(ray.shutdown)
        stack.enter_context(guard.watching())
        process.raise_if_stop_requested()  # a signal may have arrived while Ray started
        if context.dashboard_url:
            log.info(
                "Ray dashboard: http://%s  (it asks for a token; `ray get-auth-token` prints it)", context.dashboard_url
            )
        yield guard


def is_cluster(guard: Guard | None) -> bool:
    """Return whether Ray was there before this process: its nodes may have what this machine lacks, a GPU for example.

    Args:
        guard: what `connected` yielded.
    """
    return guard is None or not guard.is_local


def _refuse_other_protocol(address: str, given: str) -> NoReturn:
    """Raise with the address format of a cluster: `address` is one of another server of it.

    Raises:
        SpecError: always.
    """
    protocol = address.partition("://")[0]
    what = "Ray Client" if protocol == "ray" else f"the protocol {protocol} (the dashboard's, for example)"
    raise SpecError(f"{given}: {what} is not supported; allowed: auto, HOST:PORT (usually port 6379)")


def _join(address: str, given: str, options: dict[str, Any]) -> Any:
    """Connect to a cluster; `given` names the address and its origin for messages.

    Raises:
        SpecError: it does not answer, requires a token, or has another version of Ray or Python.
    """
    try:
        return ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "ersion mismatch" in reason:
            raise SpecError(
                f"{given}: its nodes have another version of Ray or Python: {reason[:300]};\n"
                "install the same versions everywhere (pip install -c constraints.txt)"
            ) from None
        raise SpecError(
            f"{given}: no Ray cluster answers there ({reason[:200]});\n"
            "a cluster may require its token: copy the head node's ~/.ray/auth_token and export RAY_AUTH_MODE=token"
        ) from None


def _refuse_hidden_modules() -> None:
    """Raise if workers would import files of the working folder instead of Python's own modules.

    Raises:
        SpecError: there are such files.
    """
    files = shadowing.find_shadowing_files([*shadowing.folders_before_stdlib(), os.curdir])
    if files:
        raise SpecError(shadowing.describe(files))


def try_workers(guard: Guard | None, resources: TrialResources) -> None:
    """Start a worker on each node with room for a trial, before anything else takes time.

    Raises:
        ClusterError: a worker does not start.
    """
    able = [node for node in ray.nodes() if node["Alive"] and fitting(*_size(node), resources)]
    local = guard is not None and guard.is_local
    workers_start({node["NodeID"]: node["NodeManagerHostname"] for node in able}, guard, local=local)


def _check_reachable(address: str | None, given: str) -> None:
    """Check that HOST:PORT accepts connections; Ray itself would try for minutes.

    Args:
        address: HOST:PORT; None or "auto" is not checked.
        given: names the address and its origin, for a message.

    Raises:
        SpecError: it does not accept connections.
    """
    if address is None or ":" not in address:
        return
    try:
        check_accepts_connections(address, CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SpecError(f"{given}: no Ray cluster answers there ({error})") from None


def trial_resources(requested: Resources) -> TrialResources:
    """Return the resources of a trial on the connected Ray: the requested ones, else such that trials fill the nodes.

    Raises:
        SpecError: no single node has the requested resources, so that no trial could start.
    """
    return trial_resources_on(requested, _nodes())


def trial_resources_on(requested: Resources, nodes: Sequence[tuple[int, int]]) -> TrialResources:
    """Return the resources of a trial on nodes, each given as its numbers of cores and GPUs.

    Raises:
        SpecError: no single node has the requested resources.
    """
    gpu = requested.gpu if requested.gpu is not None else float(any(gpus for _, gpus in nodes))
    if gpu > max(gpus for _, gpus in nodes):
        most = max(gpus for _, gpus in nodes)
        hint = " (CPU only: --set resources.gpu=0)" if most == 0 else ""
        raise SpecError(f"resources.gpu: {gpu:g} requested; the largest node of this Ray has {most}{hint}")
    able = [(cores, gpus) for cores, gpus in nodes if gpus >= gpu and cores >= (requested.cpu or 1)]
    if not able:
        most = max(cores for cores, gpus in nodes if gpus >= gpu)
        raise SpecError(
            f"resources.cpu: {requested.cpu or 1} requested; the largest node with enough GPUs has {most} cores"
        )
    return TrialResources(cpu=requested.cpu or min(_cores_a_trial(*node, gpu) for node in able), gpu=gpu)


def slots(resources: TrialResources) -> int:
    """Return the number of trials that fit the connected Ray at this moment, 0 or more."""
    return sum(fitting(cores, gpus, resources) for cores, gpus in _nodes())


def fitting(cores: int, gpus: int, resources: TrialResources) -> int:
    """Return the number of trials that fit one node."""
    gpu = resources.gpu
    by_gpu = gpus * int(1 / gpu) if 0 < gpu < 1 else int(gpus / gpu) if gpu else cores
    return min(cores // resources.cpu, by_gpu)


def _nodes() -> list[tuple[int, int]]:
    """Return cores and GPUs of each node of the connected Ray."""
    return [_size(node) for node in ray.nodes() if node["Alive"]]


def _size(node: dict[str, Any]) -> tuple[int, int]:
    return int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))


def _cores_a_trial(cores: int, gpus: int, gpu: float) -> int:
    at_once = int(gpus / gpu) if gpu else min(CPU_TRIALS, cores)
    return max(1, cores // at_once)
