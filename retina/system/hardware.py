"""What this machine gives us, and how much of it is in use."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import pynvml


@dataclass(frozen=True)
class GpuLoad:
    """One GPU just now: `busy` 0 to 1, memory in bytes."""

    busy: float
    memory_used: int
    memory: int


@dataclass(frozen=True)
class Load:
    """This machine just now: `cpu` busy 0 to 1 since it was last asked, and each of its GPUs."""

    cpu: float
    gpus: list[GpuLoad]


def available_cores() -> int:
    """Cores that this process may use, 1 and more; fewer than the machine has where its affinity is limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def current_load() -> Load:
    """How busy this machine is; without GPUs where there is no NVIDIA driver."""
    return Load(cpu=psutil.cpu_percent(interval=None) / 100, gpus=_gpus())


def _gpus() -> list[GpuLoad]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [_gpu(handle) for handle in handles]
    except pynvml.NVMLError:  # a driver that does not tell, inside a MIG slice say
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> GpuLoad:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuLoad(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, int(memory.used), int(memory.total))
