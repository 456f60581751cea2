"""Functions that a Ray task runs on a node."""

import logging
import os
from pathlib import Path

import torch

from retina.errors import ResultsError


def describe_process(file: Path) -> None:
    """Log at three levels, and write process id, number of threads and visible devices to `file`."""
    log = logging.getLogger("retina.test")
    log.debug("not for the driver")
    log.info("in the task")
    log.warning("a warning with a %d", 1)
    file.write_text(f"{os.getpid()} {torch.get_num_threads()} {os.environ['CUDA_VISIBLE_DEVICES']!r}")


def fail(message: str) -> None:
    """Log a line and raise an error of the package."""
    logging.getLogger("retina.test").info("before the error")
    raise ResultsError(message)


def break_down(file: Path) -> None:
    """Count the calls in `file`, and raise an error that is not the package's."""
    with file.open("a") as counts:
        counts.write("called\n")
    raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED")


def die() -> None:
    """End the process."""
    os._exit(1)
