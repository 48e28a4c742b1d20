"""A password in a tracking address goes into no file and no line; only this process and its children know it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from energybench.credentials import complete, sealed

SECRET = "s3cr3t-w0rd"
URI = f"http://me:{SECRET}@127.0.0.1:9/store"
WORDS = [
    "gpu=pascal",
    "meter=scripted",
    "engine=standin",
    "dataset=tiny",
    "batch=8",
    "budget.epochs=1",
    "engine.step_s=0",
]
WORDS += ["measure.baseline_s=0", "measure.warmup_steps=0"]


@pytest.fixture
def energybench(fakes, tmp_path):
    def run(*words, **environment):
        return subprocess.run(
            [sys.executable, "-m", "energybench", *words],
            cwd=tmp_path, env={**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **environment},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def told(folder):
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.mlflow
def test_it_is_written_nowhere(energybench, tmp_path):
    done = energybench(*WORDS, f"tracking.uri={URI}", "-m", "engine.mode=raise,train")
    assert done.returncode == 1
    assert list(tmp_path.rglob("result.json"))
    assert list(tmp_path.rglob("overrides.yaml"))
    assert SECRET not in done.stdout + done.stderr
    assert "http://***@127.0.0.1:9/store: cannot" in done.stderr
    assert told(tmp_path) == []


@pytest.mark.mlflow
def test_from_a_file_it_goes_no_further(energybench, tmp_path):
    (tmp_path / "conf" / "tracking").mkdir(parents=True)
    mine = tmp_path / "conf" / "tracking" / "mine.yaml"
    mine.write_text(f"name: mlflow\nuri: {URI}\nexperiment: energybench\n")
    done = energybench(*WORDS, "--config-dir", "conf", "tracking=mine")
    assert done.returncode == 0, done.stderr
    assert "http://***@127.0.0.1:9/store: cannot" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert told(tmp_path) == [mine]


@pytest.mark.parametrize("words", [["model=null"], ["-m", "seed=0,-1"], ["-m", "tracking.name=none,mlflow"]])
def test_no_error_repeats_it(energybench, tmp_path, words):
    done = energybench(*WORDS, f"tracking.uri={URI}", *words)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_struck_out_address_is_completed_by_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    assert complete("http://***@127.0.0.1:9/store") == URI
    assert complete("http://***@elsewhere/store") == "http://***@elsewhere/store"


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with sealed([f"tracking.uri={URI}", "batch=3"], URI) as words:
        assert os.environ["MLFLOW_TRACKING_URI"] == URI
        assert words == [
            "tracking.uri=http://***@127.0.0.1:9/store",
            "batch=3",
            "tracking.uri='http://***@127.0.0.1:9/store'",
        ]
    assert "MLFLOW_TRACKING_URI" not in os.environ
