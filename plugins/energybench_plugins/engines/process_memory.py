"""Memory of this process, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(field: str) -> int:
    """VmRSS (memory of this process now) or VmHWM (its peak), from /proc/self/status; 0 where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
