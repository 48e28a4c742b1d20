"""A group's tracking server that goes away: runs go on, results wait on disk, `sync` delivers each exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from tracking_server import PASSWORD

from energybench import tracking
from energybench.run.result import Result

pytestmark = pytest.mark.postgres

WORDS = ["gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "batch=8", "budget.epochs=1"]
WORDS += ["measure.baseline_s=0", "measure.warmup_steps=0", "measure.context_s=0", "hydra.sweep.dir=mine", "-m"]
# Without MLflow's own patience with a server that is away, which `sync` makes needless.
QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
LOGIN = {**QUICK, "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}


@pytest.fixture
def energybench(fakes, tmp_path, server):
    """Starts a command line that records in the server, in an experiment of the test's own."""

    def start(*words, environment=LOGIN, uri=None):
        return subprocess.Popen(
            [sys.executable, "-m", "energybench", *words], cwd=tmp_path, text=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri or server.uri, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def ends(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    assert PASSWORD not in out + err
    return out + err


@pytest.fixture
def runs(server, tmp_path, monkeypatch):
    """Every run of the test's experiment, the parent first, as the server has them."""
    mlflow = pytest.importorskip("mlflow")
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    client = mlflow.MlflowClient(tracking_uri=server.uri)

    def found():
        experiment = client.get_experiment_by_name(tmp_path.name)
        every = client.search_runs([experiment.experiment_id])
        parents = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
        cells = [run for run in every if "mlflow.parentRunId" in run.data.tags]
        assert len(parents) == 1
        assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {parents[0].info.run_id}
        names = {file.path for run in cells for file in client.list_artifacts(run.info.run_id)}
        assert {"result.json", "power.parquet"} <= names
        return parents[0].info.status, sorted(run.data.tags["energybench.run_id"] for run in cells)

    return found


def stored(tmp_path):
    return sorted(Result.read(path).run_id for path in (tmp_path / "mine").rglob("result.json"))


@pytest.fixture
def delivered(server, tmp_path, runs):
    """How many results two syncs deliver."""

    def go():
        tracker = tracking.MlflowTracker(server.uri, tmp_path.name)
        reports = [tracking.sync([tmp_path / "mine"], tracker) for _ in range(2)]
        assert not any(report.failed for report in reports)
        return [(len(report.delivered), len(report.already)) for report in reports]

    return go


def test_away_at_the_start(energybench, server, runs, delivered, tmp_path):
    server.stop()
    said = ends(energybench(*WORDS, "seed=0,1", f"tracking.experiment={tmp_path.name}"))
    assert "the server does not answer" in said
    assert "later: energybench sync mine" in said
    server.start()
    assert delivered() == [(2, 0), (0, 2)]
    assert runs() == ("FINISHED", stored(tmp_path))


def test_away_in_the_middle_and_at_the_end(energybench, server, runs, delivered, tmp_path):
    """The first cell is recorded, the second begun; then it is gone until all is over."""
    server.start()
    words = ["seed=0,1", "engine.step_s=0.5", f"tracking.experiment={tmp_path.name}"]
    process = energybench(*WORDS, *words)
    for line in process.stdout:
        if line.startswith("cell 1 of 2") and " J | " in line:
            break
    while not list((tmp_path / "mine" / "1").glob("events.jsonl")):
        assert process.poll() is None
    server.stop()
    ends(process)
    server.start()
    assert delivered() == [(1, 1), (0, 2)]
    assert runs() == ("FINISHED", stored(tmp_path))


def test_the_wrong_password(energybench, server, tmp_path):
    server.start()
    wrong = quote("another-pa/ss", safe="")
    uri = server.uri.replace("//", f"//admin:{wrong}@")
    said = ends(energybench(*WORDS, "seed=0", f"tracking.uri={uri}", environment=QUICK))
    assert "http://***@127.0.0.1" in said
    assert wrong not in said
    assert len(stored(tmp_path)) == 1


def test_a_password_in_the_address_reaches_neither_the_server_nor_a_file(energybench, server, runs, tmp_path):
    server.start()
    uri = server.uri.replace("//", f"//admin:{quote(PASSWORD, safe='')}@")
    ends(
        energybench(*WORDS, "seed=0", f"tracking.uri={uri}", f"tracking.experiment={tmp_path.name}", environment=QUICK)
    )
    assert runs() == ("FINISHED", stored(tmp_path))
    secrets = [PASSWORD.encode(), quote(PASSWORD, safe="").encode()]
    places = [path for folder in (tmp_path, server.folder) for path in folder.rglob("*") if path.is_file()]
    assert len(places) > 10
    assert [path for path in places if any(secret in path.read_bytes() for secret in secrets)] == []


def test_nobody_gets_in_without_a_password_and_nobody_from_elsewhere():
    compose = yaml.safe_load((Path(__file__).parents[2] / "mlflow" / "compose.yaml").read_text())
    services = compose["services"]
    assert services["server"]["ports"] == ["${LISTEN:-127.0.0.1}:5000:5000"]
    assert "ports" not in services["database"]
    assert services["server"]["command"] == ["sh", "/mlflow/server.sh"]
    assert "--app-name basic-auth" in (Path(__file__).parents[2] / "mlflow" / "server.sh").read_text()
