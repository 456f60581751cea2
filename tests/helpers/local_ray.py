"""A small Ray on this machine for the tests of a module."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from repository import HELPERS


@contextmanager
def local_ray(cores: int) -> Iterator[None]:
    """Start Ray with so many cores and no GPU, whose workers can import the test helpers; end it afterwards."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HELPERS), before])
    ray.init(
        address="local", num_cpus=cores, num_gpus=0, object_store_memory=100_000_000, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR", configure_logging=False,
    )  # fmt: skip
    yield
    ray.shutdown()
    os.environ["PYTHONPATH"] = before
