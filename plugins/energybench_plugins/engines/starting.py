"""Whether a framework starts, found out in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from energybench.availability import Availability

TIMEOUT_S = 120


def fault_at_start(
    program: str, framework: str, extra: str, environment: Mapping[str, str] | None = None
) -> Availability | None:
    """Why a framework does not start; None where it does.

    Args:
        program: Python that imports it and computes something.
        framework: what it is called: "torch 2.13.0".
        extra: of energybench, which installs it.
        environment: variables it needs.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Availability(False, f"{framework} did not start within {TIMEOUT_S} s", "try it by hand")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Availability(False, f"{framework} does not start: {said}", f"reinstall energybench[{extra}]")
    return None
