"""Memory of this process, as Linux tells it."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_bytes(field: str) -> int:
    """VmRSS (memory of this process now), VmHWM (its peak) or VmSize (its addresses), from /proc/self/status.

    0 where there is no such file.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def available_bytes() -> int:
    """Memory that this process can still take: of the machine, and within the limit on its addresses."""
    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    free = int(psutil.virtual_memory().available)
    return free if limit == resource.RLIM_INFINITY else min(free, max(limit - resident_bytes("VmSize"), 0))
