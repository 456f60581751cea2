"""Watches that Ray lives and that its workers start, and says why they do not."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from retina.errors import ClusterError
from retina.sweep import ray_logs, ray_start
from retina.system import process

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
DEAF_SECONDS = 5.0
"""How long the main thread may take to hear that Ray has died: it may wait inside of Ray, which waits for a minute."""
UNWIND_SECONDS = 20.0
"""How long it may then take to close the sweep and Ray."""
LOST_CHECKS = 5
"""Failed connections in a row after which a cluster's head node counts as gone."""
CONNECT_SECONDS = 2.0
DEAD_SECONDS = 5.0
"""How long all started workers may be dead before a start counts as failed: Ray may just be starting the next."""
STILL_SECONDS = 60.0
"""How long a starting worker may use neither CPU nor disk nor network. Slow imports use them all the time."""
REMOTE_SECONDS = 600.0
"""How long a worker on another node may take, whose process cannot be seen from here."""
WAITING_SECONDS = 30.0
"""How often a start that takes long is reported."""
WAITING_TRIALS_SECONDS = 30.0
"""How long trials may wait while none runs before the workers are looked at."""


class RayGoneError(BaseException):
    """Ray has died while Tune ran: no Exception, since Tune would wait for workers that are gone."""

    def __init__(self, reason: ClusterError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Guard:
    """Watches Ray's processes from a thread of its own; `check` raises in the main thread what it has found.

    Where the main thread does not call `check`, since it waits inside of Ray, the guard ends the process with exit
    code 1: each file of a sweep is whole at any moment, and `--resume` goes on.
    """

    def __init__(self, *, local: bool) -> None:
        """Watch the Ray that this process has just started (`local`) or joined."""
        self.is_local = local
        self._logs = ray_start.logs_folder()
        self._address = ray.get_runtime_context().gcs_address
        self._processes = _ray_processes() if local else {}
        self._orphans: set[psutil.Process] = set()
        self._failure: ClusterError | None = None
        self._heard = threading.Event()
        self._closed = threading.Event()
        self._dismissed = threading.Event()
        self._looked, self._waited = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._watch, name="Ray guard", daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._closed.set()

    def dismiss(self) -> None:
        """Ray is closed: the process need not be ended for its sake any more."""
        self._dismissed.set()

    def end_orphans(self) -> None:
        """End what a Ray that has died leaves behind: without its head its agents run on for a minute."""
        for one in self._orphans:
            with suppress(psutil.Error):
                one.kill()

    def check(self) -> None:
        """Raise what was found.

        Raises:
            ClusterError: Ray has died.
            KeyboardInterrupt: it has died, and the process was asked to stop.
        """
        if self._failure is None:
            return
        self._heard.set()
        process.check()
        raise self._failure

    def check_trials(self, *, waiting: bool) -> None:
        """Raise what was found while Tune runs, also that no worker starts although trials wait.

        Args:
            waiting: whether trials wait for workers and none runs.

        Raises:
            RayGoneError: Ray has died, or no worker starts.
        """
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        # a main thread that was busy elsewhere, with the next proposal say, has not asked for a worker meanwhile
        self._waited = self._waited + min(passed, POLL_SECONDS) if waiting and self.is_local else 0.0
        try:
            self.check()
            if self._waited > WAITING_TRIALS_SECONDS:
                self._waited = 0.0
                _refuse_dead(self._logs)
        except ClusterError as error:
            raise RayGoneError(error) from None

    def _watch(self) -> None:
        lost = 0
        while not self._closed.wait(POLL_SECONDS):
            dead = [name for name, one in self._processes.items() if not _is_alive(one)]
            lost = 0 if self.is_local or _answers(self._address) else lost + 1
            for one in self._processes.values() if dead else ():
                with suppress(psutil.Error):  # of one that has ended the children are the system's
                    self._orphans.update(one.children(recursive=True))
            if dead:
                self._failure = self._died(dead[0])
            elif lost >= LOST_CHECKS:
                self._failure = ClusterError(
                    f"the Ray cluster at {self._address} does not answer any more;\n"
                    "what was finished is kept: start the cluster, then go on with --resume"
                )
            if self._failure:
                self._end_if_deaf(self._failure)
                return

    def _died(self, name: str) -> ClusterError:
        said = ray_logs.worker_failure(self._logs) if self._logs and name == "raylet" else ""
        cause = said or "killed from outside, by the system for want of memory say"
        return ClusterError(
            f"Ray has died: its process {name} has ended ({cause});\n"
            f"what was finished is kept: go on with --resume\nRay's logs: {self._logs}"
        )

    def _end_if_deaf(self, failure: ClusterError) -> None:
        if not self._heard.wait(DEAF_SECONDS):
            self._end(str(failure))
        if not self._dismissed.wait(UNWIND_SECONDS):
            self._end(str(failure))

    def _end(self, message: str) -> None:
        if process.asked_to_stop():
            process.end_now(process.exit_code(), "stopped; go on with --resume")
        else:
            process.end_now(ClusterError.exit_code, message)


def _import_trainable() -> str:
    """Import in a worker what a trial needs."""
    from retina.sweep import trainable  # noqa: PLC0415  # in the worker

    return trainable.__name__


def try_workers(nodes: Mapping[str, str], guard: Guard | None, *, local: bool) -> None:
    """Start one worker on each node and import there what a trial needs.

    Such a worker waits for no free CPU or GPU. It may take as long as it makes progress: a start has failed when all
    worker processes have ended, when one has used neither CPU nor disk for `STILL_SECONDS`, or, on other nodes, whose
    processes cannot be seen, after `REMOTE_SECONDS`.

    Args:
        nodes: names of the nodes by their Ray ids.
        guard: watches that Ray itself lives meanwhile.
        local: whether the only node is this machine.

    Raises:
        ClusterError: a worker does not start; gives the node and the cause in Ray's logs.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(_import_trainable)
    pending = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(): name
        for node, name in nodes.items()
    }
    logs, progress, begun = ray_start.logs_folder(), _Progress(), time.monotonic()
    told = begun
    while pending:
        ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for one in ready:
            _refuse_error(one, pending.pop(one), logs)
        if guard:
            guard.check()
        process.check()
        now = time.monotonic()
        if local and pending and now - begun > DEAD_SECONDS:
            _refuse_dead(logs)
            progress.refuse_still(logs)
        elif pending and now - begun > REMOTE_SECONDS:
            raise ClusterError(
                f"no worker has started on node {next(iter(pending.values()))} within {REMOTE_SECONDS:.0f} s;\n"
                "look at worker-*.err and raylet.err in /tmp/ray/session_latest/logs there"
            )
        if pending and now - told > WAITING_SECONDS:
            told = now
            log.info("waiting for workers to start: %s", ", ".join(sorted(set(pending.values()))))


def _refuse_error(reference: Any, node: str, logs: Path | None) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = ray_logs.last_error_line(str(error)) or type(error).__name__
        if isinstance(error, ray.exceptions.WorkerCrashedError) and logs:
            reason = ray_logs.worker_failure(logs, ray_logs.started_workers(logs)[::-1]) or reason
        raise ClusterError(f"a worker cannot start on node {node}: {reason}{_see(logs)}") from None


def _refuse_dead(logs: Path | None) -> None:
    """Raise where every worker that this machine's raylet has started is dead.

    Raises:
        ClusterError: they are.
    """
    pids = ray_logs.started_workers(logs) if logs else []
    alive = [one for one in map(_process, pids) if one]
    if not pids or alive or logs is None:
        return
    time.sleep(DEAD_SECONDS)
    if ray_logs.started_workers(logs) != pids:
        return
    reason = ray_logs.worker_failure(logs, pids[::-1]) or "it has ended without a word"
    raise ClusterError(f"Ray cannot start a worker: {reason}{_see(logs)}")


def _see(logs: Path | None) -> str:
    return f"\nRay's logs: {logs}" if logs else ""


class _Progress:
    """What starting workers use of CPU and disk."""

    def __init__(self) -> None:
        self._used: dict[int, tuple[float, ...]] = {}
        self._since = time.monotonic()

    def refuse_still(self, logs: Path | None) -> None:
        """Raise where no worker has used anything for long.

        Raises:
            ClusterError: none has.
        """
        alive = [one for one in map(_process, ray_logs.started_workers(logs)) if one] if logs else []
        used = {one.pid: _used(one) for one in alive}
        if used != self._used:
            self._used, self._since = used, time.monotonic()
        elif time.monotonic() - self._since > STILL_SECONDS:
            pids = [one.pid for one in alive]
            reason = (ray_logs.worker_failure(logs, pids) if logs else "") or "it waits for something"
            raise ClusterError(
                f"Ray cannot start a worker: process {', '.join(map(str, pids)) or 'none'} has done nothing for "
                f"{STILL_SECONDS:.0f} s: {reason}{_see(logs)}"
            )


def _used(one: psutil.Process) -> tuple[float, ...]:
    """Return CPU seconds and bytes read of a process with its children; the time where it waits for a disk."""
    total = [0.0, 0.0]
    with suppress(psutil.Error):
        for part in (one, *one.children(recursive=True)):
            cpu = part.cpu_times()
            total[0] += cpu.user + cpu.system
            if hasattr(part, "io_counters"):
                total[1] += part.io_counters().read_chars
            if part.status() == psutil.STATUS_DISK_SLEEP:  # a slow network file system
                total[1] += time.monotonic()
    return round(total[0], 1), total[1]


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        found = psutil.Process(pid)
        return found if _is_alive(found) else None
    return None


def _is_alive(one: psutil.Process) -> bool:
    try:
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _ray_processes() -> dict[str, psutil.Process]:
    """Find the processes without which the Ray that this process has started cannot live, by their names."""
    found = {}
    for one in psutil.Process().children():
        with suppress(psutil.Error):  # it may end just now
            name = one.name()
            if name in {"gcs_server", "raylet"}:
                found[name] = one
    return found


def check_accepts_connections(address: str, seconds: float) -> None:
    """Connect to HOST:PORT, of which the host may be an IPv6 address in brackets, and leave.

    Raises:
        OSError: the address does not accept a connection within `seconds`.
        ValueError: the port is none, or the host cannot be one.
    """
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise ValueError("a port is a number from 1 to 65535")
    socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def _answers(address: str) -> bool:
    try:
        check_accepts_connections(address, CONNECT_SECONDS)
    except (OSError, ValueError):
        return False
    return True
