"""The tools that `meter_error.py` compares, each in a process of its own: it is given a plan and writes what it told.

    python benchmarks/meter_error_tools.py TOOL CARD PLAN OUT

Those that record all along (energybench, the polls) are asked for any window afterwards. Those that one asks at a
window's two ends (Zeus, CodeCarbon) are asked then, and the window is what lay between the two calls.
"""

from __future__ import annotations

import heapq
import itertools
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

START, END = 0, 1


def sleep_until(time_ns: int) -> None:
    time.sleep(max(0, time_ns - time.monotonic_ns()) / 1e9)


def length_ns(window: dict[str, Any]) -> int:
    """However late a window begins, it is as long as it was drawn."""
    return int(window["end_ns"] - window["start_ns"])


def energybench(plan: dict[str, Any], card: int, out: Path) -> None:
    """The library, on every card."""
    from dataclasses import asdict

    from sources import sources_of

    import energybench
    from energybench.config import make
    from energybench.experiment import Part
    from energybench.registry import Registry

    with energybench.measure("nvml") as block:
        sleep_until(plan["end_ns"])
    block.write_trace(out)
    _, sources = sources_of("nvml", make(Registry(), "meter", Part("nvml")).devices())
    out.with_suffix(".json").write_text(json.dumps([asdict(source) for source in sources]), encoding="utf-8")


def poll(plan: dict[str, Any], card: int, out: Path) -> None:
    """nvmlDeviceGetPowerUsage of every card, ten times a second."""
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    rows = []
    for beat in itertools.count():
        at_ns = plan["begin_ns"] + beat * 100_000_000
        if at_ns > plan["end_ns"]:
            break
        sleep_until(at_ns)
        for number, handle in enumerate(handles):
            before_ns = time.monotonic_ns()
            watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            rows.append((number, (before_ns + time.monotonic_ns()) // 2, watts))
    out.write_text(json.dumps(rows), encoding="utf-8")


def nvidia_smi(plan: dict[str, Any], card: int, out: Path) -> None:
    """nvidia-smi's own loop, of every card; its lines are stamped by the wall clock."""
    query = "--query-gpu=index,timestamp,power.draw"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "100", "-f", str(out)]
    process = subprocess.Popen(command)
    sleep_until(plan["end_ns"])
    process.kill()
    process.wait()


def zeus(plan: dict[str, Any], card: int, out: Path) -> None:
    """ZeusMonitor's windows; they overlap. CUDA_VISIBLE_DEVICES shows this process one card."""
    try:
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])
    except BaseException as error:
        out.write_text(json.dumps({"failure": f"{type(error).__name__}: {error}"}), encoding="utf-8")
        return
    warnings.simplefilter("ignore")
    told: dict[int, Any] = {}
    begun: dict[int, int] = {}
    failure = ""
    events = [(window["start_ns"], number, START) for number, window in enumerate(plan["windows"][card])]
    heapq.heapify(events)
    while events:
        at_ns, number, edge = heapq.heappop(events)
        sleep_until(at_ns)
        if edge == START:
            monitor.begin_window(str(number), sync_execution=False)
            begun[number] = time.monotonic_ns()
            heapq.heappush(events, (begun[number] + length_ns(plan["windows"][card][number]), number, END))
            continue
        ended_ns = time.monotonic_ns()
        joules: float | None = None
        try:
            measured = monitor.end_window(str(number), sync_execution=False)
            joules = measured.gpu_energy[0]
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        told[number] = (begun[number], ended_ns, joules)
    out.write_text(json.dumps({"failure": failure, "told": list(told.values()), "of": list(told)}), encoding="utf-8")


def codecarbon(plan: dict[str, Any], card: int, out: Path) -> None:
    """CodeCarbon's tasks: one after the other by one tracker, the long ones by another."""
    from codecarbon import OfflineEmissionsTracker

    told: dict[int, Any] = {}
    failures: list[str] = []

    def follow(numbers: list[int]) -> None:
        try:
            tracker = OfflineEmissionsTracker(
                country_iso_code="FRA",
                gpu_ids=[card],
                save_to_file=False,
                allow_multiple_runs=True,
                log_level="critical",
            )
            for number in ["warm", *numbers]:
                window = {"start_ns": 0, "end_ns": 0} if number == "warm" else plan["windows"][card][number]
                sleep_until(window["start_ns"])
                tracker.start_task(str(number))
                begun_ns = time.monotonic_ns()
                sleep_until(begun_ns + length_ns(window))
                ended_ns = time.monotonic_ns()
                joules = tracker.stop_task(str(number)).gpu_energy * 3.6e6
                if number != "warm":
                    told[number] = (begun_ns, ended_ns, joules)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=follow, args=(numbers,)) for numbers in plan["apart"][card]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {"failure": "; ".join(failures), "told": list(told.values()), "of": list(told)}
    out.write_text(json.dumps(found), encoding="utf-8")


TOOLS: dict[str, Callable[[dict[str, Any], int, Path], None]] = {
    "energybench": energybench,
    "poll": poll,
    "nvidia_smi": nvidia_smi,
    "zeus": zeus,
    "codecarbon": codecarbon,
}
ONE_CARD = ("zeus", "codecarbon")
"""Tools that are started once for each card; the others read all of them."""


def main() -> None:
    tool, card, plan, out = sys.argv[1:]
    TOOLS[tool](json.loads(Path(plan).read_text(encoding="utf-8")), int(card), Path(out))


if __name__ == "__main__":
    main()
