"""Studies that nobody ran: results with plausible joules, seconds and accuracies, the same every time."""

from __future__ import annotations

import hashlib
import math
from itertools import product

import numpy as np

from energybench.power.meter import Channel, Reading
from energybench.power.series import by_source
from energybench.power.trace import write_trace
from energybench.run.metrics import epochs, metrics
from energybench.run.result import ChannelEnergy, Failure, Phase, Result

SECOND = 1_000_000_000
GFLOP = {"caffenet": 4.3, "resnetim": 10.9, "resnet": 5.6, "cnn2d": 4.7, "lenet": 0.014}
DATA = {"caffenet": "imagenet", "resnetim": "imagenet", "resnet": "synthetic_gait", "cnn2d": "synthetic_gait"}
BOARDS = {
    "maxwell": ("TITAN X", 2600.0, 205.0, 15.0),
    "pascal": ("TITAN Xp", 5400.0, 222.0, 14.0),
}
"""Generation -> name, GFLOPS at a large batch, watts under load, watts idle."""


def study(
    networks=("caffenet", "resnetim", "resnet", "cnn2d"),
    batches=(64, 128, 256),
    generations=("maxwell", "pascal"),
    counts=(1, 2),
    seeds=(0, 1, 2),
    **changes,
):
    """A grid of finished runs, and one that ran out of memory where there is room for it."""
    cells = product(networks, generations, counts, batches, seeds)
    return [run(*cell, start_s=60 * number, **changes) for number, cell in enumerate(cells)]


def run(
    network, generation, count, batch, seed, *, start_s=0, images=64_000, failure=None, quality="ok", estimated=False
):
    noise = np.random.default_rng(
        int(hashlib.sha256(repr((network, generation, count, batch, seed)).encode()).hexdigest()[:8], 16)
    )
    name, peak, watts, idle_w = BOARDS[generation]
    rate = (
        peak / GFLOP[network] * batch / (batch + 40 * count) * count * (1 - 0.06 * (count - 1)) * noise.normal(1, 0.004)
    )
    load_w = watts * (0.62 + 0.33 * batch / (batch + 60 * count)) * noise.normal(1, 0.004)
    scope = "cpu" if estimated else "gpu"
    uuids = [f"{scope.upper()}-{generation}-{number}" for number in range(count)] if not estimated else ["cpu"]
    phases = tuple(
        _phases(scope, uuids, images, rate, load_w, idle_w, _accuracy(network, batch, noise), estimated, start_s)
    )
    if failure:
        phases = phases[:2]
    names = [f"{scope}.{number}" for number in range(len(uuids))]
    tags = {
        "energy_source": "estimated" if estimated else "measured",
        "energy_scope": scope,
        "meter": "tdp" if estimated else "nvml",
        "engine": "gluon",
        "quality": quality,
        "device": "Intel Xeon" if estimated else name,
        "generation": "cpu" if estimated else generation,
    }
    if estimated:
        tags["tdp_source"] = "145 W, thermal design power of the Intel Xeon E5-2698 v4"
    if network not in ("caffenet", "resnetim", "lenet"):
        tags["data"] = "synthetic"
    gpu = {"name": "cpu" if estimated else generation, "count": count}
    return Result(
        run_id=hashlib.sha256(f"{network}{gpu}{batch}{seed}".encode()).hexdigest()[:32],
        status="failed" if failure else "finished",
        failure=Failure("out_of_memory", failure) if failure else None,
        config={
            "model": {"name": network, "options": {}},
            "dataset": {"name": DATA.get(network, "digits"), "options": {}},
            "gpu": gpu,
            "batch": batch,
            "seed": seed,
            "precision": "fp32",
        },
        started_at=f"2026-03-0{1 + start_s // 86_400 % 9}T{start_s // 3600 % 24:02d}:{start_s // 60 % 60:02d}:00+01:00",
        ended_at=f"2026-03-0{1 + start_s // 86_400 % 9}T{start_s // 3600 % 24:02d}:{start_s // 60 % 60:02d}:50+01:00",
        phases=phases,
        metrics=metrics(phases, names, names, int(GFLOP[network] * 1e9)),
        epochs=epochs(phases, names),
        tags=tags,
        provenance={
            "host": "titan",
            "system": "Linux-6.1-x86_64",
            "python": "3.11.7",
            "cpu": {"name": "Intel Xeon", "logical_cores": 40},
            "git": {"commit": "0123456789abcdef0123", "changes": "no"},
            "packages": {"energybench": "0.1.0", "mxnet-cu112": "1.9.1", "numpy": "1.26.4"},
            "engine": {"engine": "mxnet 1.9.1"},
            "devices": [
                {"kind": scope, "uuid": uuid, "name": tags["device"], "generation": tags["generation"]}
                for uuid in uuids
            ],
            "channels": [
                {
                    "name": channel,
                    "kind": scope,
                    "device_id": uuid,
                    "estimated": estimated,
                    "gain_uncertainty": 0.25 if estimated else 0.025,
                    "origin": tags.get("tdp_source", "NVML 12.535, driver 535.161: power, mean over one second"),
                    "calibration": None,
                }
                for channel, uuid in zip(names, uuids, strict=True)
            ],
        },
        overrides=(f"model={network}", f"batch={batch}", f"gpu={gpu['name']}", f"gpu.count={count}", f"seed={seed}"),
        sweep_id="s" * 32,
        sweep_name="the study",
    )


def _accuracy(network, batch, noise):
    return None if network in ("resnet", "cnn2d") else 0.58 - 0.012 * math.log2(batch / 64) + noise.normal(0, 0.002)


def _phases(scope, uuids, images, rate, load_w, idle_w, accuracy, estimated, start_s):
    spans = [("idle", None, 5.0, idle_w), ("load", None, 4.0, 1.4 * idle_w), ("warmup", None, 1.0, load_w)]
    for epoch in (1, 2):
        spans += [("train", epoch, images / 2 / rate, load_w), ("validate", epoch, images / 20 / rate, 0.8 * load_w)]
    now = start_s
    for name, epoch, seconds, watts in spans:
        channels = {f"{scope}.{number}": _energy(watts, seconds, estimated) for number in range(len(uuids))}
        values = {"images": float(round(images / 2))} if name == "train" else {}
        if name == "validate" and accuracy is not None:
            values["accuracy_top1"] = accuracy - 0.1 * (2 - epoch)
        yield Phase(name, epoch, int(now * SECOND), int((now + seconds) * SECOND), True, channels, values)
        now += seconds


def _energy(watts, seconds, estimated):
    joules = watts * seconds
    common = 0.25 if estimated else 0.025
    return ChannelEnergy(
        energy_j=joules,
        independent_u_j=0.0 if estimated else 0.02 * watts,
        common_u_j=common * joules,
        power_mean_w=watts,
        power_peak_w=1.05 * watts,
        readings=int(seconds * 10),
        longest_gap_s=0.12,
        coverage=1.0,
        source="constant" if estimated else "usage",
        estimated=estimated,
        update_s=None if estimated else 0.1,
    )


def write_run(result, folder):
    """The run on disk, with a power trace that fits its phases."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    readings = []
    for phase in result.phases:
        for channel, energy in phase.channels.items():
            for time_ns in range(phase.start_ns, phase.end_ns, SECOND // 10):
                value = energy.power_mean_w * noise.normal(1, 0.0 if energy.estimated else 0.015)
                readings.append(Reading(channel, energy.source, "power_w", time_ns, time_ns, value))
    channels = [Channel(**{**one, "pci_bus_id": None}) for one in result.provenance["channels"]]
    write_trace(folder / "power.parquet", by_source(readings), channels)
    result.write(folder)
    return folder
