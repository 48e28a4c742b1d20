"""Frames a second and core that become gait samples' maps, against what optical flow alone would allow.

A walk is drawn, scaled to TUM-GAID's 640x480 pixels and written as JPEG files. One side prepares it as `energybench prepare`
does: reads, finds the walker, finds motion, makes maps, writes the part. The other side finds motion in frames that are
in memory. Both are timed by the processor time of this process, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
from pairs import alternate, ratio_line, write

from energybench.prepare import checksum
from energybench.prepared import write_part
from energybench_plugins.datasets.walkers import MadeUpWalk, WalkersOptions
from energybench_plugins.gait.flow import FLOWS, flow_method
from energybench_plugins.gait.layout import FilmedWalk
from energybench_plugins.gait.prepared_walks import WalksJob
from energybench_plugins.gait.video import grey_frames


def filmed(folder: Path, frames: int) -> None:
    folder.mkdir()
    walk = MadeUpWalk(WalkersOptions(frames=frames), 0, 0, "w001-n01", 0)
    for number, frame in enumerate(walk.frames(), start=1):
        large = cv2.resize(frame, (640, 480), interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))


def prepared_per_s(job: WalksJob, frames: int, folder: Path) -> float:
    began = time.process_time()
    write_part(folder / "part.arrow", list(job.samples()))
    checksum(folder / "part.arrow")
    return frames / (time.process_time() - began)


def flow_per_s(flow: str, frames: list) -> float:
    method = flow_method(flow)
    began = time.process_time()
    for before, after in zip(frames, frames[1:], strict=False):
        method(before, after)
    return len(frames) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", nargs="+", default=["dis_fast", "dis_medium"], choices=FLOWS)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "n01"
        filmed(folder, given.frames)
        walk = FilmedWalk(folder, "n01", 0, 0)
        frames = list(grey_frames(folder))
        for flow in given.flows:
            job = WalksJob("train", [walk], given.frames, flow, "background")
            ours, alone = alternate(
                lambda job=job: prepared_per_s(job, given.frames, Path(directory)),
                lambda flow=flow: flow_per_s(flow, frames),
                given.rounds,
            )
            found[flow] = {"prepared_per_s": ours, "flow_alone_per_s": alone}
            print(ratio_line(f"{flow}, prepared / flow alone", ours, alone, "frames/s"), flush=True)
    made = MadeUpWalk(WalkersOptions(frames=given.frames), 0, 0, "w001-n01", 0)
    job = WalksJob("train", [made], given.frames, "dis_fast", "background")
    with tempfile.TemporaryDirectory() as directory:
        rates = [prepared_per_s(job, given.frames, Path(directory)) for _ in range(given.rounds)]
    found["walkers"] = {"prepared_per_s": rates}
    print(f"walkers, drawn and prepared: {sorted(rates)[len(rates) // 2]:,.0f} frames/s")
    write(given.json, {"arguments": vars(given), "flows": found})


if __name__ == "__main__":
    main()
