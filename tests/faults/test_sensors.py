"""Drivers that fail and clocks that jump, while a run goes on."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import PATIENCE_S, said, until
from standin_runs import planned
from views import Silent

from energybench.power.trace import read_trace
from energybench.run.execute import Place, execute
from energybench.run.result import Result
from energybench.testing import CounterSensor, Failure, Server, constant, volta
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench.testing.server import GPU_IS_LOST, UNKNOWN

WALL_CLOCK = Path(__file__).parents[1] / "fakes" / "wall_clock.c"
AGE_S = 10.0


def faults(from_s):
    """A card with each fault, which begins so many seconds after the server did."""
    return {
        "driver fails for a while": {"failures": (Failure("*", UNKNOWN, from_s, from_s + 1.5),)},
        "driver fails for good": {"failures": (Failure("*", UNKNOWN, from_s),)},
        "card falls off the bus": {"failures": (Failure("*", GPU_IS_LOST, from_s),)},
        "energy counter begins again": {"counter": CounterSensor(resets_s=(from_s,))},
    }


def start_s(folder):
    """How long it takes here, now, until a run trains."""
    begun_ns = time.monotonic_ns()
    result = execute(planned(epochs=1), Place(folder), Silent())
    return (next(phase.start_ns for phase in result.phases if phase.name == "train") - begun_ns) / 1e9


@pytest.mark.usefixtures("fakes")
def test_a_driver(fake_nvml, tmp_path, row):  # noqa: F811
    """Four cards, a fault each, in one training that lasts until all of them are over."""
    from_s = AGE_S + max(4.0, 3 * start_s(tmp_path / "before"))
    cards = faults(from_s)
    fake_nvml(Server(tuple(volta(constant(200.0), **fault) for fault in cards.values())), AGE_S)
    until_s = time.monotonic() + from_s + 3.0 - AGE_S
    plan = planned(gpu={"name": "volta", "count": 4}, meter={"name": "nvml"}, epochs=1, until_s=until_s)
    result = execute(plan, Place(tmp_path), Silent())
    assert result.status == "finished"  # training takes no harm
    [trained] = [phase for phase in result.phases if phase.name == "train"]
    assert "gaps" in result.tags["quality"]
    statuses = {}
    for (channel, _), columns in read_trace(tmp_path / "power.parquet")[0].items():
        statuses.setdefault(channel, set()).update(set(columns.statuses) - {"ok"})
    for number, fault in enumerate(cards):
        channel = f"gpu.{number}"
        energy = trained.channels[channel]
        assert energy.energy_j == pytest.approx(200.0 * trained.time_s * energy.coverage, rel=0.05)
        reset = "counter" in cards[fault]
        assert (energy.coverage > 0.99) == reset
        assert bool(statuses.get(channel)) != reset
        row(
            fault,
            "nothing" if reset else f"the flag gaps; the readings' status: {min(statuses[channel])}",
            "the training, and the joules " + ("before and behind it" if reset else "of the time that readings cover"),
            "nothing is to be done: the run has finished",
        )


def test_the_wall_clock_is_set(start, tmp_path, row):
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("needs a C compiler")
    library, step = tmp_path / "wall_clock.so", tmp_path / "step"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, WALL_CLOCK, "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_STEP": str(step)}
    begun = time.monotonic()
    process = start("hydra.run.dir=mine", "budget.epochs=3", "dataset.images=400", environment=environment)
    until(said, tmp_path, '"progress"')
    step.write_text("-86400")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (0, False)
    result = Result.read(tmp_path / "mine")
    assert result.started_at > result.ended_at  # people read the wall clock, arithmetic does not
    assert result.metrics["time_s"] < time.monotonic() - begun
    assert result.metrics["energy_j"] == pytest.approx(100.0 * result.metrics["time_s"], rel=0.05)
    row(
        "wall clock set back by a day",
        "nothing: no number comes from it",
        "everything; started_at and ended_at are by the clock as it stood",
        "nothing is to be done: the run has finished",
    )
