"""How many threads are worth starting on this machine."""

import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores that this process may use, at least 1: hyper-threads count once."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // 2)
    usable = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in usable}
    return max(1, min(len(cores), _quota() or len(cores)))


def _siblings(cpu: int) -> str:
    """The hyper-threads of a CPU's core; itself where the system does not tell."""
    path = _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return path.read_text() if path.exists() else str(cpu)


def _quota() -> int | None:
    """Whole CPUs that the control group grants, if it has a limit."""
    if not _QUOTA.exists():
        return None
    quota, period = _QUOTA.read_text().split()
    return None if quota == "max" else max(1, int(quota) // int(period))
