"""The hardware of this machine that this process may use, and its current load."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import pynvml


@dataclass(frozen=True)
class GpuLoad:
    """The current load of one GPU: `busy` 0 to 1, memory in bytes."""

    busy: float
    memory_used: int
    memory: int


@dataclass(frozen=True)
class Load:
    """The current load of this machine: `cpu` busy 0 to 1 since the previous call, and each of its GPUs."""

    cpu: float
    gpus: list[GpuLoad]


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1; its CPU affinity can limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def current_load() -> Load:
    """Return the machine's current load; `gpus` is empty where there is no NVIDIA driver."""
    return Load(cpu=psutil.cpu_percent(interval=None) / 100, gpus=_gpus())


def _gpus() -> list[GpuLoad]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [_gpu(handle) for handle in handles]
    except pynvml.NVMLError:  # a driver that does not report the load, for example inside a MIG slice
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> GpuLoad:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuLoad(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, int(memory.used), int(memory.total))
