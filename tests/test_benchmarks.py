"""The benchmarks that need a GPU, small and on the CPU: a visit to a rented machine is no time to find a slip."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from energybench.run.result import Failure, Result
from energybench_plugins.datasets.fashion_mnist import FashionMnist, FashionMnistOptions

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OUT, DATA = "{out}", "{data}"

torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
fashion = pytest.mark.skipif(not FashionMnist(FashionMnistOptions()).check().ok, reason="needs Fashion-MNIST's files")


@pytest.fixture
def module(monkeypatch):
    """Imports a benchmark by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def stages(visit: ModuleType):
    return [
        (name, cards, stage)
        for name, rounds in visit.VISITS.items()
        for lanes in rounds
        for cards, found in lanes.items()
        for stage in found
    ]


def test_every_stage_says_what_its_script_takes(module, capsys):
    visit = module("gpu_visit")
    for name, _, stage in stages(visit):
        script, *words = stage.command
        if script == "-m":
            continue
        options = module(Path(script).stem).options()
        for more in ((), stage.quick):
            try:
                options.parse_args([*words, *more])
            except SystemExit:
                pytest.fail(f"{name}, {stage.name}: {capsys.readouterr().err}")


def test_the_stages_of_a_lane_fit_into_a_visit(module):
    visit = module("gpu_visit")
    given = visit.options().parse_args(["training"])
    for name, rounds in visit.VISITS.items():
        longest = [max(sum(stage.limit_s for stage in found) for found in lanes.values()) for lanes in rounds]
        assert sum(longest) <= given.seconds, name


def test_a_visit_survives_its_stages_and_a_later_one_has_what_it_left(module, tmp_path, capsys):
    visit = module("gpu_visit")
    good = f"open(r'{OUT}/numbers.json', 'w').write('[1]'); open(r'{OUT}/power.parquet', 'w').write('trace'); print(42)"
    lanes = {
        (0,): [
            visit.Stage("bad", 30, ("-c", "raise SystemExit(3)"), ()),
            visit.Stage("good", 30, ("-c", good), ()),
        ],
        (1,): [visit.Stage("long", 0.5, ("-c", "import time; time.sleep(60)"), ())],
        (0, 1, 2): [visit.Stage("wide", 30, ("-c", "pass"), ())],
    }
    made = visit.Visit(tmp_path / "out", 60.0, tmp_path / "pack.tar.gz", None, quick=True)
    made.run(lanes, here=2)
    made.summary(5)
    outcomes = {one["stage"]: one["outcome"] for one in made.told}
    assert outcomes == {"bad": "exit status 3", "good": "done", "long": "ended after 2 s", "wide": "needs 3 GPUs"}
    assert "42" in capsys.readouterr().out
    with tarfile.open(tmp_path / "pack.tar.gz") as archive:
        assert {"numbers.json", "good.log", "visit.json"} <= set(archive.getnames())
        assert "power.parquet" not in archive.getnames()
    with tarfile.open(tmp_path / "traces-pack.tar.gz") as archive:
        assert archive.getnames() == ["power.parquet"]
    later = visit.Visit(tmp_path / "later", 60.0, None, None, quick=True)
    later.resume([tmp_path / "pack.tar.gz", tmp_path / "traces-pack.tar.gz"])
    assert (tmp_path / "later" / "numbers.json").read_text() == "[1]"
    assert (tmp_path / "later" / "power.parquet").read_text() == "trace"


def test_on_one_card_the_lanes_share_it(module):
    visit = module("gpu_visit")
    first, second = (visit.Stage(name, 1, ()) for name in "ab")
    chosen, lacking = visit.placed({(0,): [first], (1,): [second], (0, 1): [first]}, here=1)
    assert chosen == {(0,): [first, second]}
    assert lacking == [(first, (0, 1))]


def cell(model, batch, way, board, images_per_s, energy_per_image_j, **more):
    metrics = {"images_per_s": images_per_s, "energy_per_image_j": energy_per_image_j, "power_mean_w": 500.0}
    named = {"model": model, "batch": batch, "precision": "bf16", "way": way, "devices": [{"uuid": board}]}
    return {**named, "metrics": {**metrics, "gflops_per_w": 100.0}, **more}


def test_a_grid_shows_the_mean_of_the_boards_and_how_they_differ(module):
    grid = module("torch_grid")
    cells = [
        cell("resnet", 64, "graph", "GPU-a", 1000.0, 0.020),
        cell("resnet", 64, "graph", "GPU-b", 1010.0, 0.022),
        cell("resnet", 64, "eager", "GPU-a", 400.0, 0.040),
        cell("resnet", 64, "eager", "GPU-b", 0.0, 0.0, failure="crashed"),
        cell("caffenet", 64, "graph", "GPU-a", 2000.0, 0.030),
        cell("caffenet", 64, "graph", "GPU-b", 2000.0, 0.036),
    ]
    assert {grid.key_of(one): one["metrics"]["images_per_s"] for one in grid.over_boards(cells)} == {
        ("caffenet", 64, "bf16", "graph"): 2000.0,
        ("resnet", 64, "bf16", "eager"): 400.0,
        ("resnet", 64, "bf16", "graph"): 1005.0,
    }
    assert grid.beside(cells) == [
        "GPU-b / GPU-a, 2 cells: images_per_s 1.0050, standard deviation 0.0071; "
        "energy_per_image_j 1.1500, standard deviation 0.0707"
    ]
    assert grid.beside([]) == []
    assert grid.markdown(grid.over_boards(cells), ["bf16:graph", "bf16:eager"]).splitlines()[2:] == [
        "| caffenet | 64 | 2,000 | 500 | 33.0 | 100 | – | – | – | – |",
        "| resnet | 64 | 1,005 | 500 | 21.0 | 100 | 400 | 500 | 40.0 | 100 |",
    ]


@pytest.mark.torch
@torch
@pytest.mark.parametrize(
    ("visit", "stage", "file"),
    [
        ("training", "resnet50-256", "resnet50_256.json"),
        ("grid", "grid-0", "grid-0.json"),
        ("several", "scaling", "scaling.json"),
        ("rest", "input", "input.json"),
    ],
)
def test_a_stage_runs_small(visit, stage, file, tmp_path):
    if stage == "input":
        for module in ("cv2", "simplejpeg"):
            pytest.importorskip(module)
    command = [sys.executable, str(BENCHMARKS / "gpu_visit.py"), visit, "--only", stage, "--quick", "--seconds", "500"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"{stage} on" in done.stdout
    assert ": done, " in done.stdout, done.stdout
    found = json.loads((tmp_path / file).read_text())
    runs = itertools.chain.from_iterable(found.get("runs", {}).values())
    for one in [*found.get("contestants", []), *found.get("cells", []), *runs]:
        assert not one.get("failure"), one["failure"]
        assert one.get("windows", True)


@pytest.mark.parametrize(
    ("kinds", "more", "last"),
    [
        ([None, "killed", None, None], (), "3 cells are there, 1 are left; give the same command again"),
        ([None, "out_of_memory", None, None], (), "4 cells are there, 0 are left"),
        (["killed"], ("--most", "1"), "0 cells are there, 4 are left; give the same command again"),
    ],
)
def test_what_a_study_will_run_again_is_left(module, monkeypatch, tmp_path, capsys, kinds, more, last):
    study = module("gpu_study")
    words = ["--quick", "--out", str(tmp_path), *more]
    monkeypatch.setattr(sys, "argv", ["gpu_study.py", *words])
    left = list(kinds)

    def run_one(*_):
        kind = left.pop(0)
        failure = Failure(kind, "why") if kind else None
        return Result("a", "failed" if kind else "finished", failure, {}, "", "", metrics={"images_per_s": 1.0})

    monkeypatch.setattr(study, "run_one", run_one)
    study.main()
    assert not left
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_study_records_commands_that_can_be_given_again(module, monkeypatch, tmp_path):
    study = module("gpu_study")
    out = tmp_path / "runs" / "study"
    words = [f"--out={out}", "--walkers", "/d/walkers.tar.xz", "--name", "images/s on an H100", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["gpu_study.py", *words])
    given = study.options().parse_args()
    given.epochs = dict(given.epochs)
    study.planned(given)
    told = "--out=study --walkers walkers.tar.xz --name 'images/s on an H100' --epochs 1"
    assert json.loads((out / "plan.json").read_text())["commands"] == [told]
    monkeypatch.setattr(sys, "argv", ["gpu_study_page.py", "runs/study", "--title=a/b", "--out", "docs/page.md"])
    assert study.said(["runs/study", "docs/page.md"]) == "study --title=a/b --out page.md"


@pytest.mark.torch
@pytest.mark.fashion_mnist
@torch
@fashion
def test_a_study_goes_on_and_becomes_a_page(tmp_path):
    pytest.importorskip("cv2")  # draws the walkers
    pytest.importorskip("matplotlib")
    study = tmp_path / "study"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def said(script: str, *words: str) -> str:
        command = [sys.executable, str(BENCHMARKS / script), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def results() -> dict[str, Result]:
        return {path.parent.name: Result.read(path) for path in study.glob("*/result.json")}

    said("gpu_study.py", "--quick", "--out", str(study), "--most", "1")
    first = results()
    assert len(first) == 1
    assert "4 cells are there, 0 are left" in said("gpu_study.py", "--quick", "--out", str(study))
    every = results()
    assert len(every) == 4
    assert {name: every[name].run_id for name in first} == {name: one.run_id for name, one in first.items()}
    assert {one.sweep_id for one in every.values()} == {json.loads((study / "plan.json").read_text())["sweep_id"]}

    page = tmp_path / "page.md"
    said("gpu_study_page.py", str(study), "--out", str(page), "--title", "Images/s, a study")
    words = page.read_text()
    assert "gpu_study_page.py study --out page.md --title 'Images/s, a study'" in words
    assert "**Larger batches save time and energy.**" in words
    assert "4 finished" in words
    page.write_text(words.replace("<!-- until here -->", "What it means.\n<!-- until here -->"))
    said("gpu_study_page.py", str(study), "--out", str(page))
    assert "What it means." in page.read_text()
