"""Start Ray as a sweep does and print the result: python startup_driver.py MODE; see test_ray_startup.py."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time

import psutil
import ray

from retina.config import TrialConfig
from retina.errors import RetinaError
from retina.sweep.cluster import TrialResources, connected, try_workers
from retina.system import process


def listening() -> list[str]:
    """Return the addresses on which this process and its children listen."""
    pids = {member.pid for member in (psutil.Process(), *psutil.Process().children(recursive=True))}
    sockets = (c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in pids)
    return sorted({socket.laddr.ip for socket in sockets})


def worker_python() -> tuple[str, str]:
    """Return the Python executable of a worker, and a module of this package that it imports."""
    return sys.executable, TrialConfig.__module__


def kill(name: str) -> None:
    for child in psutil.Process().children():
        if child.name() == name:
            child.kill()


def main(mode: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with process.handle_stop_signals():
        try:
            with connected(None, "startup") as guard:
                assert guard is not None
                try_workers(guard, TrialResources(cpu=1, gpu=0))
                python = ray.get(ray.remote(num_cpus=0)(worker_python).remote())
                sys.stdout.write(json.dumps({"listening": listening(), "python": python, "own": sys.executable}) + "\n")
                sys.stdout.flush()
                if mode != "stopped":
                    kill(mode)
                    while True:
                        time.sleep(0.1)
                        guard.check()
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        except RetinaError as error:
            sys.stdout.write(f"{error}\n")
            return error.exit_code
        except KeyboardInterrupt:
            return process.exit_code()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
