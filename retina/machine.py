"""What this machine gives us."""

import os


def cores() -> int:
    """Cores that this process may use, 1 and more; fewer than the machine has where its affinity is limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
