"""What the energies kept at each checkpoint of a long run take: a day with a checkpoint an hour.

    python benchmarks/checkpoint_cost.py [--hours 24] [--gpus 1] [--json FILE]

The readings are those of a simulated card, 50 a second. At each checkpoint the phases until then are worked out as a
supervisor does it, and as it did it before: from all readings. Prints processor seconds of the first and the last
checkpoint and of all, and how far the two are apart.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

from pairs import write

from energybench.power.meter import Channel, Source
from energybench.power.series import Columns
from energybench.run.execute import Settled, _phases, timelines
from energybench.run.observation import Observation, Span
from energybench.testing import constant, simulation, square
from energybench.testing.presets import pascal

HERTZ = 50
BEGIN_NS = 10**12
HOUR_NS = 3600 * 10**9


class Recorded:
    """What a supervisor has read until a moment, of a trace that is there already."""

    def __init__(self, sources: list[Source], channels: list[Channel], columns: dict) -> None:
        self.sessions = [SimpleNamespace(sources=sources, channels=channels)]
        self._columns = columns
        self.now_ns = BEGIN_NS
        self.looked_at = 0

    def readings(self, since_ns: int | None = None) -> dict:
        found = {key: part(one, since_ns or 0, self.now_ns) for key, one in self._columns.items()}
        self.looked_at = sum(map(len, found.values()))
        return found


def part(one: Columns, since_ns: int, until_ns: int) -> Columns:
    first, stop = one.read_start_ns.searchsorted([since_ns, until_ns])
    arrays = (one.read_start_ns, one.read_end_ns, one.sensor_ns, one.value, one.code)
    copies = [array[first:stop].copy() for array in arrays]
    return Columns(one.channel, one.source, one.quantity, *copies, one.statuses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--json")
    given = parser.parse_args()
    channels = [Channel(f"gpu.{n}", "gpu", f"GPU-{n}") for n in range(given.gpus)]
    kind = {"resolution": 1e-3, "update_s": 1 / HERTZ, "averaging_s": 1 / HERTZ}
    sources = [Source(one.name, "usage", "power_w", 1 / HERTZ, **kind) for one in channels]
    columns: dict = {}
    for n, source in enumerate(sources):
        curve = square(60 + n, 240 + n, 3.7 + n / 10, 0.7) + constant(5)
        columns |= simulation.readings(pascal(curve, 1.0), [source], 3600.0 * given.hours, BEGIN_NS, seed=n)
    supervisor, settled = Recorded(sources, channels, columns), Settled()
    spans, kept, whole, apart, looked = [], [], [], 0.0, []
    for hour in range(given.hours):
        start_ns = BEGIN_NS + hour * HOUR_NS + 10**9
        supervisor.now_ns = BEGIN_NS + (hour + 1) * HOUR_NS
        spans.append(Span("train", hour + 1, start_ns, supervisor.now_ns - 2 * 10**9))
        seen = Observation(spans=list(spans), end_ns=supervisor.now_ns)
        began = time.process_time()
        phases = settled.phases(seen, supervisor)
        kept.append(time.process_time() - began)
        looked.append(supervisor.looked_at)
        began = time.process_time()
        wanted = _phases(seen, timelines(supervisor.sessions, supervisor.readings()))
        whole.append(time.process_time() - began)
        pairs = zip(phases, wanted, strict=True)
        ratios = [a.channels[c.name].energy_j / b.channels[c.name].energy_j for a, b in pairs for c in channels]
        apart = max(apart, *(abs(ratio - 1) for ratio in ratios))
    for name, taken in (("from the phases that are over", kept), ("from all readings, as before", whole)):
        print(f"{name}: {taken[0]:.3f} s at the first, {taken[-1]:.3f} s at the last, {sum(taken):.2f} s in all")
    print(f"readings looked at: {looked[0]:,} at the first, {looked[-1]:,} at the last; energies differ by {apart:.1e}")
    write(given.json, {"kept_s": kept, "whole_s": whole, "readings": looked, "apart": apart})


if __name__ == "__main__":
    main()
