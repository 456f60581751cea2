"""Checks that Ray lives and that its workers start, and finds the cause where they do not."""

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
"""Time between two checks."""
REACTION_SECONDS = 5.0
"""Time that the main thread has to call `Guard.check` once Ray has died: it may be blocked in Ray, which waits for a
minute."""
UNWIND_SECONDS = 20.0
"""Time that the main thread then has to close the sweep and Ray."""
LOST_CHECKS = 5
"""Failed connections in a row after which a cluster's head node counts as gone."""
CONNECT_SECONDS = 2.0
"""Timeout of such a connection."""
DEAD_SECONDS = 5.0
"""Time that all started workers must be dead before a start counts as failed: Ray may be starting the next one."""
STILL_SECONDS = 60.0
"""Time that a starting worker may use neither CPU nor disk nor network. Slow imports use them all the time."""
REMOTE_SECONDS = 600.0
"""Time that a worker on another node may take to start; its process is not visible from here."""
WAITING_SECONDS = 30.0
"""Time between two log lines while workers start."""
WAITING_TRIALS_SECONDS = 30.0
"""Time that trials may wait while none runs before the workers are checked."""


class RayGoneError(BaseException):
    """Raised when Ray has died while Tune ran. No Exception: Tune would catch it and wait for workers that are gone."""

    def __init__(self, reason: ClusterError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Guard:
    """Checks Ray's processes in a thread of its own; `check` raises the failure it has found in the main thread.

    If the main thread does not call `check`, because it is blocked in Ray, the guard ends the process with exit code 1.
    Each file of a sweep is complete at any moment, so `--resume` can continue it.
    """

    def __init__(self, *, local: bool) -> None:
        """Create a guard of the Ray that this process has just started (`local`) or joined."""
        self.is_local = local
        self._logs = ray_start.logs_folder()
        self._address = ray.get_runtime_context().gcs_address
        self._processes = _ray_processes() if local else {}
        self._orphans: set[psutil.Process] = set()
        self._failure: ClusterError | None = None
        self._reported = threading.Event()
        self._closed = threading.Event()
        self._dismissed = threading.Event()
        self._last_check, self._waited = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._watch, name="Ray guard", daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Check Ray while the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._closed.set()

    def dismiss(self) -> None:
        """Do not end the process any more: Ray is closed."""
        self._dismissed.set()

    def end_orphans(self) -> None:
        """Kill the processes that a dead Ray has left: its agents run on for a minute without its head."""
        for orphan in self._orphans:
            with suppress(psutil.Error):
                orphan.kill()

    def check(self) -> None:
        """Raise if Ray has died.

        Raises:
            ClusterError: Ray has died.
            KeyboardInterrupt: Ray has died, and the process was asked to stop.
        """
        if self._failure is None:
            return
        self._reported.set()
        process.check()
        raise self._failure

    def check_trials(self, *, waiting: bool) -> None:
        """Raise, while Tune runs, if Ray has died or no worker starts although trials wait.

        Args:
            waiting: whether trials wait for workers and none runs.

        Raises:
            RayGoneError: Ray has died, or no worker starts.
        """
        now = time.monotonic()
        elapsed, self._last_check = now - self._last_check, now
        # a main thread that was busy with other work, such as the next proposal, requested no worker meanwhile
        self._waited = self._waited + min(elapsed, POLL_SECONDS) if waiting and self.is_local else 0.0
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
            dead = [name for name, child in self._processes.items() if not _is_alive(child)]
            lost = 0 if self.is_local or _answers(self._address) else lost + 1
            for child in self._processes.values() if dead else ():
                with suppress(psutil.Error):  # a process that has ended has no children any more: init adopts them
                    self._orphans.update(child.children(recursive=True))
            if dead:
                self._failure = self._death_of(dead[0])
            elif lost >= LOST_CHECKS:
                self._failure = ClusterError(
                    f"the Ray cluster at {self._address} does not answer any more;\n"
                    "what was finished is kept: start the cluster, then go on with --resume"
                )
            if self._failure:
                self._end_unless_handled(self._failure)
                return

    def _death_of(self, name: str) -> ClusterError:
        logged = ray_logs.worker_failure(self._logs) if self._logs and name == "raylet" else ""
        cause = logged or "killed from outside, for example by the system when memory is short"
        return ClusterError(
            f"Ray has died: its process {name} has ended ({cause});\n"
            f"what was finished is kept: go on with --resume\nRay's logs: {self._logs}"
        )

    def _end_unless_handled(self, failure: ClusterError) -> None:
        if not self._reported.wait(REACTION_SECONDS):
            self._end(str(failure))
        if not self._dismissed.wait(UNWIND_SECONDS):
            self._end(str(failure))

    def _end(self, message: str) -> None:
        if process.asked_to_stop():
            process.end_now(process.exit_code(), "stopped; go on with --resume")
        else:
            process.end_now(ClusterError.exit_code, message)


def _import_trainable() -> str:
    """Import what a trial needs; runs in a worker."""
    from retina.sweep import trainable  # noqa: PLC0415  # in the worker

    return trainable.__name__


def try_workers(nodes: Mapping[str, str], guard: Guard | None, *, local: bool) -> None:
    """Start one worker on each node and import what a trial needs in it.

    Such a worker requests no CPU or GPU, so it need not wait for a free one. There is no time limit while it makes
    progress: a start has failed when all worker processes have ended, or when they have used neither CPU nor disk for
    `STILL_SECONDS`. On other nodes, whose processes are not visible, it has failed after `REMOTE_SECONDS`.

    Args:
        nodes: names of the nodes by their Ray ids.
        guard: checks meanwhile that Ray itself lives.
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
    logged = begun
    while pending:
        ready, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
        for reference in ready:
            _refuse_error(reference, pending.pop(reference), logs)
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
                "see worker-*.err and raylet.err in /tmp/ray/session_latest/logs there"
            )
        if pending and now - logged > WAITING_SECONDS:
            logged = now
            log.info("waiting for workers to start: %s", ", ".join(sorted(set(pending.values()))))


def _refuse_error(reference: Any, node: str, logs: Path | None) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = ray_logs.last_error_line(str(error)) or type(error).__name__
        if isinstance(error, ray.exceptions.WorkerCrashedError) and logs:
            reason = ray_logs.worker_failure(logs, ray_logs.started_workers(logs)[::-1]) or reason
        raise ClusterError(f"a worker cannot start on node {node}: {reason}{_logs_hint(logs)}") from None


def _refuse_dead(logs: Path | None) -> None:
    """Raise if every worker that this machine's raylet has started is dead.

    Raises:
        ClusterError: every worker is dead, and no new one was started within `DEAD_SECONDS`.
    """
    pids = ray_logs.started_workers(logs) if logs else []
    alive = [worker for worker in map(_live_process, pids) if worker]
    if not pids or alive or logs is None:
        return
    time.sleep(DEAD_SECONDS)
    if ray_logs.started_workers(logs) != pids:
        return
    reason = ray_logs.worker_failure(logs, pids[::-1]) or "it has ended and logged nothing"
    raise ClusterError(f"Ray cannot start a worker: {reason}{_logs_hint(logs)}")


def _logs_hint(logs: Path | None) -> str:
    return f"\nRay's logs: {logs}" if logs else ""


class _Progress:
    """CPU time and disk reads of starting workers, to find out whether they make progress."""

    def __init__(self) -> None:
        self._used: dict[int, tuple[float, ...]] = {}
        self._since = time.monotonic()

    def refuse_still(self, logs: Path | None) -> None:
        """Raise if no worker makes progress.

        Raises:
            ClusterError: no worker has used CPU or disk for `STILL_SECONDS`.
        """
        pids = ray_logs.started_workers(logs) if logs else []
        alive = [worker for worker in map(_live_process, pids) if worker]
        used = {worker.pid: _used(worker) for worker in alive}
        if used != self._used:
            self._used, self._since = used, time.monotonic()
        elif time.monotonic() - self._since > STILL_SECONDS:
            pids = [worker.pid for worker in alive]
            reason = (
                ray_logs.worker_failure(logs, pids) if logs else ""
            ) or "it is waiting, and its logs do not say for what"
            raise ClusterError(
                f"Ray cannot start a worker: process {', '.join(map(str, pids)) or 'none'} has done nothing for "
                f"{STILL_SECONDS:.0f} s: {reason}{_logs_hint(logs)}"
            )


def _used(worker: psutil.Process) -> tuple[float, ...]:
    """Return the CPU seconds and the bytes read of a process and its children.

    While one of them waits for a disk, the second number changes with each call.
    """
    total = [0.0, 0.0]
    with suppress(psutil.Error):
        for part in (worker, *worker.children(recursive=True)):
            cpu = part.cpu_times()
            total[0] += cpu.user + cpu.system
            if hasattr(part, "io_counters"):
                total[1] += part.io_counters().read_chars
            if part.status() == psutil.STATUS_DISK_SLEEP:  # for example a slow network file system
                total[1] += time.monotonic()
    return round(total[0], 1), total[1]


def _live_process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        candidate = psutil.Process(pid)
        return candidate if _is_alive(candidate) else None
    return None


def _is_alive(candidate: psutil.Process) -> bool:
    try:
        return candidate.is_running() and candidate.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _ray_processes() -> dict[str, psutil.Process]:
    """Return the processes that the Ray which this process has started cannot live without, by their names."""
    processes = {}
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it may end at this moment
            name = child.name()
            if name in {"gcs_server", "raylet"}:
                processes[name] = child
    return processes


def check_accepts_connections(address: str, seconds: float) -> None:
    """Raise if HOST:PORT does not accept connections; the host may be an IPv6 address in brackets.

    Raises:
        OSError: `address` does not accept a connection within `seconds`.
        ValueError: the port is no number from 1 to 65535, or the host is no valid name.
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
