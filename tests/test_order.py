"""The order of a sweep's cells: what is validated is what Hydra runs, in whichever order."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from energybench.order import ordered
from energybench.run.result import Result

WORDS = ["dataset=tiny", "engine=standin", "engine.step_s=0.001", "meter=scripted", "gpu=pascal", "tracking=none"]
SHORT = ["budget.epochs=1", "measure.baseline_s=0", "measure.warmup_steps=0"]


def parsed(*words):
    return OverridesParser.create().parse_overrides(list(words))


def test_a_seed_gives_one_order_of_the_same_cells():
    words = parsed("batch=8,16,32", "seed=range(0,4)", "model=lenet")
    plain = ordered(words, None)
    assert plain[:2] == [["batch=8", "seed=0", "model=lenet"], ["batch=8", "seed=1", "model=lenet"]]
    orders = [ordered(words, seed) for seed in range(20)]
    assert ordered(words, 3) == orders[3]
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert len({json.dumps(order) for order in orders}) == 20


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("extra", [[], ["hydra.sweeper.max_batch_size=2"]])
def test_hydra_runs_them_in_it(tmp_path, extra):
    command = [sys.executable, "-m", "energybench", *WORDS, *SHORT, "batch=8,16", "seed=0,1", "sweep.shuffle=3", "-m"]
    done = subprocess.run([*command, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [sweep] = tmp_path.rglob("sweep.json")
    told = [
        [word for word in cell if word.startswith(("batch", "seed"))] for cell in json.loads(sweep.read_text())["cells"]
    ]
    assert told == ordered(parsed("batch=8,16", "seed=0,1"), 3)
    assert told != ordered(parsed("batch=8,16", "seed=0,1"), None)
    results = [Result.read(sweep.parent / str(number)) for number in range(4)]
    ran = [[word for word in result.overrides if word.startswith(("batch", "seed"))] for result in results]
    assert ran == told
    assert [result.started_at for result in results] == sorted(result.started_at for result in results)
    assert {result.config["sweep"]["shuffle"] for result in results} == {3}


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.shuffle=1,2"], "sweep.shuffle=1,2: it holds for the whole sweep; give one value"),
        (
            ["sweep.shuffle=1", "hydra/sweeper=basic"],
            "sweep.shuffle=1: this sweeper orders its cells itself; use hydra/sweeper=ordered, or sweep.shuffle=null",
        ),
    ],
)
def test_what_cannot_be_shuffled_is_refused(tmp_path, words, message):
    command = [sys.executable, "-m", "energybench", *WORDS, "batch=8,16", *words, "-m"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"energybench: {message}\n")
