"""Ray, found or started, and what share of it a trial gets."""

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
"""Trials at once on a machine without a GPU: small batches gain little from many threads, a search from few trials."""
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets: `cpu` cores (and torch threads) and `gpu` GPUs."""

    cpu: int
    gpu: float


@contextmanager
def connected(address: str | None, sweep: str, *, verbose: bool = False) -> Iterator[Guard | None]:
    """Join the cluster at `address` (or $RAY_ADDRESS), or else start Ray on this machine, and leave it again.

    A Ray that this process has joined already is used as it is and left as it was.

    Yields:
        Who watches that Ray lives; None for a Ray that was there already.

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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a clinic's machine tells nobody what it does
    how = {
        "namespace": f"retina-{sweep}",
        "job_config": JobConfig(metadata={"job_name": f"retina sweep {sweep}"}),
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "log_to_driver": verbose,
    }
    local = address in {None, "local"}
    with ExitStack() as stack:
        folder = stack.enter_context(ray_start.temporary_folder()) if local else None
        with process.starting(), ray_start.driver_settings(local=local):
            context = ray_start.start(folder, **how) if local else _join(str(address), given, how)
        guard = Guard(local=local)
        stack.callback(guard.dismiss)
        stack.callback(guard.end_orphans)
        stack.enter_context(ray_start.quiet_messages(verbose=verbose))  # around the shutdown, which prints what is left
        stack.callback(ray.shutdown)
        stack.enter_context(guard.watching())
        process.check()  # a signal that came meanwhile
        if context.dashboard_url:
            log.info(
                "Ray dashboard: http://%s  (it asks for a token; `ray get-auth-token` prints it)", context.dashboard_url
            )
        yield guard


def _refuse_other_protocol(address: str, given: str) -> NoReturn:
    """Say which address of a cluster is meant instead of one of another of its servers.

    Raises:
        SpecError: always.
    """
    protocol = address.partition("://")[0]
    what = "Ray Client" if protocol == "ray" else f"{protocol}, the dashboard's protocol say,"
    raise SpecError(f"{given}: {what} is not supported; allowed: auto, HOST:PORT (6379, as a rule)")


def _join(address: str, given: str, how: dict[str, Any]) -> Any:
    """Join a cluster; `given` names the address and where it is from.

    Raises:
        SpecError: it does not answer, wants a token, or has another version of Ray or Python.
    """
    try:
        return ray.init(address=address, **how)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "ersion mismatch" in reason:
            raise SpecError(
                f"{given}: its nodes have another version of Ray or Python: {reason[:300]};\n"
                "install the same versions everywhere (pip install -c constraints.txt)"
            ) from None
        raise SpecError(
            f"{given}: no Ray cluster answers there ({reason[:200]});\n"
            "if there is one, it wants its token: copy the head node's ~/.ray/auth_token, export RAY_AUTH_MODE=token"
        ) from None


def _refuse_hidden_modules() -> None:
    """Refuse a working folder whose files would be imported by workers instead of Python's own modules.

    Raises:
        SpecError: there are such files.
    """
    files = shadowing.hiding_files([*shadowing.folders_before_the_library(), os.curdir])
    if files:
        raise SpecError(shadowing.told(files))


def try_workers(guard: Guard | None, wish: TrialResources) -> None:
    """Start a worker on each node that can hold a trial, before anything else takes time.

    Raises:
        ClusterError: a worker does not start.
    """
    able = [node for node in ray.nodes() if node["Alive"] and fitting(*_size(node), wish)]
    local = guard is not None and guard.is_local
    workers_start({node["NodeID"]: node["NodeManagerHostname"] for node in able}, guard, local=local)


def _check_reachable(address: str | None, given: str) -> None:
    """Check that HOST:PORT accepts connections; Ray itself would try for minutes.

    Args:
        address: HOST:PORT; None or "auto" is not checked.
        given: names the address and where it is from, for a message.

    Raises:
        SpecError: it does not accept connections.
    """
    if address is None or ":" not in address:
        return
    try:
        check_accepts_connections(address, CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SpecError(f"{given}: no Ray cluster answers there ({error})") from None


def share_of_a_trial(wish: Resources) -> TrialResources:
    """What a trial gets of the connected Ray: what was asked for, else what makes the trials fill the machine.

    Raises:
        SpecError: more is asked for than any one node has, so that no trial could ever start.
    """
    return share_on(wish, _nodes())


def share_on(wish: Resources, nodes: Sequence[tuple[int, int]]) -> TrialResources:
    """What a trial gets on `nodes`, each with so many cores and so many GPUs.

    Raises:
        SpecError: more is asked for than any one node has.
    """
    gpu = wish.gpu if wish.gpu is not None else float(any(gpus for _, gpus in nodes))
    if gpu > max(gpus for _, gpus in nodes):
        most = max(gpus for _, gpus in nodes)
        hint = " (CPU only: --set resources.gpu=0)" if most == 0 else ""
        raise SpecError(f"resources.gpu: {gpu:g} asked for; the largest node of this Ray has {most}{hint}")
    able = [(cores, gpus) for cores, gpus in nodes if gpus >= gpu and cores >= (wish.cpu or 1)]
    if not able:
        most = max(cores for cores, gpus in nodes if gpus >= gpu)
        raise SpecError(f"resources.cpu: {wish.cpu or 1} asked for; the largest node with what it takes has {most}")
    return TrialResources(cpu=wish.cpu or min(_cores_a_trial(*node, gpu) for node in able), gpu=gpu)


def slots(share: TrialResources) -> int:
    """How many trials of that share fit the connected Ray as it is now, 0 and more."""
    return sum(fitting(cores, gpus, share) for cores, gpus in _nodes())


def fitting(cores: int, gpus: int, share: TrialResources) -> int:
    """How many trials of that share fit one node."""
    by_gpu = gpus * int(1 / share.gpu) if 0 < share.gpu < 1 else int(gpus / share.gpu) if share.gpu else cores
    return min(cores // share.cpu, by_gpu)


def _nodes() -> list[tuple[int, int]]:
    """Cores and GPUs of each node of the connected Ray."""
    return [_size(node) for node in ray.nodes() if node["Alive"]]


def _size(node: dict[str, Any]) -> tuple[int, int]:
    return int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))


def _cores_a_trial(cores: int, gpus: int, gpu: float) -> int:
    at_once = int(gpus / gpu) if gpu else min(CPU_TRIALS, cores)
    return max(1, cores // at_once)
