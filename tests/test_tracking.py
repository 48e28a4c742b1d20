"""Recording in MLflow: a real SQLite store, read back through MLflow's own client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from energybench.cli import main
from energybench.credentials import redact
from energybench.errors import TrackingError
from energybench.experiment import Tracking
from energybench.power.meter import Channel, Reading
from energybench.power.series import by_source
from energybench.power.trace import write_trace
from energybench.run.result import ChannelEnergy, Failure, Phase, Result
from energybench.tracking import (
    MlflowTracker,
    available,
    resolve_uri,
    run_name,
    sync,
    ui,
    ui_command,
)
from energybench.tracking.record import flatten

ROOT = Path(__file__).parents[1]
SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One store for all tests: creating its tables takes seconds."""
    pytest.importorskip("mlflow.store.db.utils", reason="needs MLflow with its SQL store")
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def tracker(store, monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return MlflowTracker(store, f"test-{uuid.uuid4().hex}")


@pytest.fixture
def project(client, tmp_path):
    """A run as `mlflow run` starts it, in an experiment of its own."""
    experiment = client.create_experiment(uuid.uuid4().hex, (tmp_path / "mlartifacts").as_uri())
    return client.create_run(experiment, run_name="mine")


@pytest.fixture
def client(store):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=store)


def make_result(status="finished", **changes):
    energy = ChannelEnergy(99.0, 0.5, 1.0, 99.0, 120.0, 10, 0.1, 1.0, "counter", False)
    phases = (
        Phase("train", 1, 5 * SECOND, 6 * SECOND, True, {"gpu.0": energy}, {"loss": 1.0}),
        Phase("train", 2, 6 * SECOND, 7 * SECOND, True, {"gpu.0": energy}, {"loss": 0.5}),
    )
    failures = {
        "failed": Failure("out_of_memory", "batch 64 does not fit"),
        "interrupted": Failure("interrupted", "^C"),
    }
    values = {
        "run_id": uuid.uuid4().hex,
        "status": status,
        "failure": failures.get(status),
        "config": {"model": {"name": "lenet", "options": {"width": [1, 2]}}, "batch": 64, "note": None, "fast": True},
        "started_at": "2026-01-02T03:04:05+00:00",
        "ended_at": "2026-01-02T03:04:15+00:00",
        "phases": phases,
        "metrics": {"energy_j": 198.0, "energy_j.gpu.0": 198.0, "validate.energy_j": 3.0},
        "epochs": ({"epoch": 1, "energy_j": 99.0, "accuracy_top1": 0.5}, {"epoch": 2, "energy_j": 99.0}),
        "tags": {"energy_scope": "gpu", "energy_source": "measured", "quality": "ok"},
        "provenance": {"cpu": "some", "git": {"commit": "abc123", "changes": "no"}},
        "overrides": ("batch=64", "+gpu=volta"),
    }
    return Result(**{**values, **changes})


def make_run(directory, **changes):
    """A result with everything that lies beside it, on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    result = make_result(**changes)
    readings = [Reading("gpu.0", "instant", "power_w", t * SECOND, t * SECOND, 90.0 + t) for t in range(4, 9)]
    write_trace(directory / "power.parquet", by_source(readings), [Channel("gpu.0", "gpu", "GPU-1")])
    (directory / "events.jsonl").write_text("{}\n")
    (directory / "worker-0.err").write_text("a warning\n")
    (directory / "worker-0.out").write_text("")
    result.write(directory)
    return result


def runs_of(client, tracker, query=""):
    experiment = client.get_experiment_by_name(tracker.experiment)
    return client.search_runs([experiment.experiment_id], query)


def artifacts_of(client, run_id):
    return {file.path for file in client.list_artifacts(run_id)}


# -- without a store


def test_uri_from_options_then_environment_then_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(Tracking()) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert resolve_uri(Tracking()) == f"sqlite:///{tmp_path}/other.db"
    assert resolve_uri(Tracking(uri="http://host:5000")) == "http://host:5000"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host:5000/x", "http://***@host:5000/x"),
        ("http://token@host", "http://***@host"),
        ("postgresql://user:p/a@ss@host/db", "postgresql://***@host/db"),
        ("postgresql+psycopg2://u:pw@h/d", "postgresql+psycopg2://***@h/d"),
        ("postgresql://h/d?user=me&password=pw&sslmode=on", "postgresql://h/d?user=me&password=***&sslmode=on"),
        ("cannot reach http://u:pw@h/d now", "cannot reach http://***@h/d now"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_redact(text, shown):
    assert redact(text) == shown


def test_flatten():
    nested = {"a": {"b": {"c": 1}, "empty": {}}, "list": ["x", 1], "none": None, "yes": True, "long": "x" * 7000}
    flat = flatten(nested)
    assert flat.pop("long") == "x" * 5999 + "…"
    assert flat == {"a.b.c": "1", "a.empty": "{}", "list": '["x", 1]', "none": "null", "yes": "true"}


def test_run_name():
    config = {"model": {"name": "lenet"}, "batch": 64}
    assert run_name(config) == "lenet batch=64"
    assert run_name(config, ("model=lenet", "batch=64", "+gpu=volta", "tracking.uri=x")) == "lenet batch=64 gpu=volta"


def test_available_says_what_to_do(tmp_path):
    (tmp_path / "mlflow").mkdir()
    # Only the standard library, this project and an empty folder named mlflow, as in a clone without the extra.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = (
        "import sys, importlib.util\n"
        "from energybench.tracking.store import available, load\n"
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "print(available())\n"
        "try: load('sqlite:///x.db')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    first, second = out.stdout.splitlines()
    assert "MLflow is not installed" in first and "energybench[mlflow]" in first and "tracking=none" in first
    assert second.startswith("TrackingError")


@pytest.mark.mlflow
def test_available_with_mlflow():
    assert available().ok
    assert available().detail.startswith("MLflow 3")


def test_importing_the_package_imports_no_mlflow():
    code = "import sys, energybench.tracking; print({'mlflow', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# -- one run


@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("status", "shown"), [("finished", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED")]
)
def test_run_of_each_status(tracker, client, tmp_path, status, shown):
    result = make_run(tmp_path / "0", status=status)
    run_id = tracker.begin(result.run_id, "lenet")
    assert client.get_run(run_id).info.status == "RUNNING"
    tracker.finish(result, tmp_path / "0", run_id)
    run = client.get_run(run_id)
    assert run.info.status == shown
    assert run.info.end_time == 1767323055000
    assert run.data.tags.get("energybench.failure") == (
        f"{result.failure.kind}: {result.failure.message}" if result.failure else None
    )
    assert run.data.metrics["energy_j"] == 198.0


@pytest.mark.mlflow
def test_everything_is_recorded(tracker, client, tmp_path):
    result = make_run(tmp_path / "0")
    run_id = tracker.begin(result.run_id, run_name(result.config, result.overrides))
    tracker.finish(result, tmp_path / "0", run_id)
    run = client.get_run(run_id)
    assert run.data.params == {
        "model.name": "lenet",
        "model.options.width": "[1, 2]",
        "batch": "64",
        "note": "null",
        "fast": "true",
    }
    assert {name: run.data.metrics[name] for name in result.metrics} == result.metrics
    assert len(client.get_metric_history(run_id, "energy_j")) == 1
    history = client.get_metric_history(run_id, "epoch.energy_j")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (1, 99.0, 1767323054000),
        (2, 99.0, 1767323055000),
    ]
    assert "epoch.epoch" not in run.data.metrics
    assert run.info.run_name == "lenet batch=64 gpu=volta"
    tags = run.data.tags
    assert tags["energybench.run_id"] == result.run_id
    assert tags["energybench.complete"] == "true"
    assert tags["mlflow.source.name"] == "energybench"
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert {key: tags[key] for key in result.tags} == result.tags
    names = {"config.yaml", "result.json", "environment.json", "power.parquet", "power.png", "events.jsonl"}
    assert artifacts_of(client, run_id) == names | {"worker-0.err"}


@pytest.mark.mlflow
def test_artifacts_lie_beside_the_database_and_hold_the_result(tracker, client, store, tmp_path):
    result = make_run(tmp_path / "0")
    run_id = tracker.begin(result.run_id, "lenet")
    tracker.finish(result, tmp_path / "0", run_id)
    folder = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert Path(store.removeprefix("sqlite:///")).parent / "mlartifacts" in folder.parents
    assert not (folder / "power.parquet").is_symlink()
    assert Result.read(folder).tracking == {"run_id": run_id, "uri": store}
    assert json.loads((folder / "environment.json").read_text()) == result.provenance


@pytest.mark.mlflow
def test_thousands_of_values(tracker, client, tmp_path):
    epochs = tuple({"epoch": epoch, **{f"m{n}": 1.0 for n in range(20)}} for epoch in range(1, 101))
    config = {"section": {f"key {n}!": "v" * 7000 for n in range(150)}}
    result = make_result(epochs=epochs, config=config, tags={f"tag{n}": "x" * 9000 for n in range(120)})
    run_id = tracker.begin(result.run_id, "large")
    tracker.finish(result, tmp_path, run_id)
    run = client.get_run(run_id)
    assert len(run.data.params) == 150
    assert "section.key 7_" in run.data.params
    assert len(client.get_metric_history(run_id, "epoch.m19")) == 100
    assert sum(key.startswith("tag") for key in run.data.tags) == 120


@pytest.mark.mlflow
def test_credentials_are_recorded_nowhere(tracker, client, tmp_path):
    secret = "postgresql://user:geheim@host/db"
    result = make_run(
        tmp_path / "0",
        config={"model": {"name": "lenet"}, "tracking": {"uri": secret}},
        overrides=(f"tracking.uri={secret}", f"other={secret}"),
        provenance={"argv": [f"tracking.uri={secret}"]},
        tags={"note": secret},
    )
    run_id = tracker.begin(result.run_id, run_name(result.config, result.overrides))
    tracker.finish(result, tmp_path / "0", run_id)
    run = client.get_run(run_id)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    texts = [path.read_bytes().decode(errors="replace") for path in folder.iterdir()]
    assert "geheim" not in str(run.to_dictionary()) + "".join(texts)
    assert run.data.params["tracking.uri"] == "postgresql://***@host/db"


@pytest.mark.mlflow
def test_finishing_twice_changes_nothing(tracker, client, tmp_path):
    result = make_run(tmp_path / "0")
    run_id = tracker.begin(result.run_id, "lenet")
    tracker.finish(result, tmp_path / "0", run_id)
    tracker.finish(replace(result, status="failed"), tmp_path / "0", run_id)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "epoch.energy_j")) == 2


@pytest.mark.mlflow
def test_a_damaged_trace_costs_only_the_plot(tracker, client, tmp_path, caplog):
    result = make_run(tmp_path / "0")
    (tmp_path / "0" / "power.parquet").write_bytes(b"damaged")
    run_id = tracker.begin(result.run_id, "lenet")
    tracker.finish(result, tmp_path / "0", run_id)
    assert "power.png" not in artifacts_of(client, run_id)
    assert "no power plot" in caplog.text


# -- sweeps


@pytest.mark.mlflow
def test_sweep(tracker, client, tmp_path):
    sweep = uuid.uuid4().hex
    parent = tracker.begin_sweep(sweep, "batches", params={"study": {"repeats": 2}}, tags={"author": "me"})
    assert tracker.begin_sweep(sweep, "batches") == parent
    assert client.get_run(parent).info.status == "RUNNING"
    for number, status in enumerate(("finished", "failed")):
        result = make_run(tmp_path / str(number), status=status, sweep_id=sweep, sweep_name="batches")
        tracker.finish(result, tmp_path / str(number), tracker.begin(result.run_id, "cell", parent))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<p>")
    (tmp_path / "summary.csv").write_text("a,b\n")
    tracker.end_sweep(parent, ["finished", "failed"], [tmp_path / "report", tmp_path / "summary.csv"])

    run = client.get_run(parent)
    assert (run.info.run_name, run.info.status) == ("batches", "FAILED")
    assert run.data.params == {"study.repeats": "2"}
    assert run.data.tags["author"] == "me"
    assert (run.data.tags["energybench.finished"], run.data.tags["energybench.failed"]) == ("1", "1")
    assert artifacts_of(client, parent) == {"report", "summary.csv"}
    assert len(runs_of(client, tracker, f"tags.`mlflow.parentRunId` = '{parent}'")) == 2
    assert len(runs_of(client, tracker)) == 3


@pytest.mark.mlflow
def test_a_cell_that_is_run_again(tracker, client, tmp_path):
    parent = tracker.begin_sweep("sweep-again", "twice")
    died = tracker.begin("first", "cell", parent, cell="a")
    result = make_run(tmp_path / "0")
    assert tracker.begin(result.run_id, "cell", parent, cell="a") == died  # it had recorded nothing
    assert tracker.begin("other", "cell", parent, cell="b") != died
    assert tracker.recorded(parent) == set()
    tracker.finish(result, tmp_path / "0", died)
    assert tracker.recorded(parent) == {result.run_id}
    again = tracker.begin("third", "cell", parent, cell="a")
    assert again != died
    assert client.get_run(died).data.tags["energybench.superseded"] == "true"
    assert client.get_run(died).data.metrics["energy_j"] == 198.0
    assert "energybench.superseded" not in client.get_run(again).data.tags


@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("statuses", "shown"),
    [(["finished"], "FINISHED"), (["failed", "interrupted"], "KILLED"), (["finished", "failed"], "FAILED")],
)
def test_status_of_a_sweep(tracker, client, statuses, shown):
    parent = tracker.begin_sweep(uuid.uuid4().hex, "s")
    tracker.end_sweep(parent, statuses)
    assert client.get_run(parent).info.status == shown


# -- started by `mlflow run`


@pytest.mark.mlflow
def test_a_run_attaches_to_the_run_of_mlflow_run(tracker, client, project, tmp_path, monkeypatch):
    client.log_param(project.info.run_id, "batch", "sixty-four")
    monkeypatch.setenv("MLFLOW_RUN_ID", project.info.run_id)
    result = make_run(tmp_path / "0")
    run_id = tracker.begin(result.run_id, "lenet")
    assert run_id == project.info.run_id
    tracker.finish(result, tmp_path / "0", run_id)
    run = client.get_run(run_id)
    assert run.info.run_name == "mine"
    assert run.data.params["batch"] == "sixty-four"
    assert run.data.params["model.name"] == "lenet"
    assert runs_of(client, tracker) == []
    assert sync([tmp_path], tracker).already == [tmp_path / "0" / "result.json"]


@pytest.mark.mlflow
def test_a_second_run_in_the_same_project_is_nested(tracker, client, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", project.info.run_id)
    assert tracker.begin("first", "a") == project.info.run_id
    second = client.get_run(tracker.begin("second", "b"))
    assert second.data.tags["mlflow.parentRunId"] == project.info.run_id
    assert second.info.experiment_id == project.info.experiment_id


@pytest.mark.mlflow
def test_a_sweep_takes_the_run_of_mlflow_run_as_parent(tracker, client, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", project.info.run_id)
    parent = tracker.begin_sweep("sweep-" + project.info.run_id, "s")
    assert parent == project.info.run_id
    cell = client.get_run(tracker.begin("cell", "c", parent))
    assert cell.data.tags["mlflow.parentRunId"] == parent
    assert cell.info.experiment_id == project.info.experiment_id


@pytest.mark.mlflow
@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_id_of_another_store_is_ignored(tracker, client, monkeypatch, deleted):
    gone = tracker.begin("gone", "x") if deleted else uuid.uuid4().hex
    if deleted:
        client.delete_run(gone)
    monkeypatch.setenv("MLFLOW_RUN_ID", gone)
    assert tracker.begin("new", "y") != gone


# -- sync


@pytest.mark.mlflow
def test_sync_records_once(tracker, client, tmp_path):
    for number in range(3):
        make_run(tmp_path / str(number), sweep_id=f"s-{tracker.experiment}", sweep_name="nightly")
    single = make_run(tmp_path / "single")
    first, second = sync([tmp_path, tmp_path / "0"], tracker), sync([tmp_path], tracker)
    assert (len(first.delivered), first.already, first.failed) == (4, [], {})
    assert (second.delivered, len(second.already), second.failed) == ([], 4, {})
    parents = runs_of(client, tracker, "tags.`energybench.sweep_id` != ''")
    assert [(run.info.run_name, run.info.status) for run in parents] == [("nightly", "FINISHED")]
    cells = runs_of(client, tracker, f"tags.`mlflow.parentRunId` = '{parents[0].info.run_id}'")
    assert len(cells) == 3
    assert len(runs_of(client, tracker)) == 5
    written = Result.read(tmp_path / "single").tracking
    assert client.get_run(written["run_id"]).data.tags["energybench.run_id"] == single.run_id
    assert client.get_run(written["run_id"]).info.start_time == 1767323045000


@pytest.mark.mlflow
def test_sync_completes_what_was_begun(tracker, client, tmp_path):
    begun = make_run(tmp_path / "0")
    run_id = tracker.begin(begun.run_id, "lenet")
    # Died in the middle: parameters and metrics are there, the artifacts and the last tag are not.
    client.log_param(run_id, "batch", "64")
    client.log_metric(run_id, "energy_j", 198.0, timestamp=1767323055000, step=0)
    assert len(sync([tmp_path], tracker).delivered) == 1
    assert [run.info.run_id for run in runs_of(client, tracker)] == [run_id]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert "power.png" in artifacts_of(client, run_id)
    assert len(client.get_metric_history(run_id, "energy_j")) == 1


@pytest.mark.mlflow
def test_sync_ends_a_sweep_that_died(tracker, client, tmp_path):
    sweep = uuid.uuid4().hex
    parent = tracker.begin_sweep(sweep, "died")
    make_run(tmp_path / "0", sweep_id=sweep)
    sync([tmp_path], tracker)
    assert client.get_run(parent).info.status == "FINISHED"
    cells = runs_of(client, tracker, f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len(cells) == 1


@pytest.mark.mlflow
def test_a_cell_begun_without_its_parent_is_nested_when_it_ends(tracker, client, tmp_path):
    sweep = uuid.uuid4().hex
    result = make_run(tmp_path / "0", sweep_id=sweep)
    run_id = tracker.begin(result.run_id, "cell")
    tracker.finish(result, tmp_path / "0", run_id)
    (parent,) = runs_of(client, tracker, f"tags.`energybench.sweep_id` = '{sweep}'")
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


@pytest.mark.mlflow
def test_what_is_not_there_is_named_once(store, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    assert main(["sync", "--uri", store, str(nowhere)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"energybench: {nowhere}: no such file or folder"


@pytest.mark.mlflow
def test_deleted_runs_are_not_there(tracker, client, tmp_path):
    make_run(tmp_path / "0")
    sync([tmp_path], tracker)
    (old,) = runs_of(client, tracker)
    client.delete_run(old.info.run_id)
    assert len(sync([tmp_path], tracker).delivered) == 1
    (new,) = runs_of(client, tracker)
    assert new.info.run_id != old.info.run_id


@pytest.mark.mlflow
def test_two_syncs_at_once(tracker, client, store, tmp_path):
    for number in range(8):
        make_run(tmp_path / str(number), sweep_id=f"s-{tracker.experiment}")
    code = (
        "import sys, pathlib\nfrom energybench.tracking import MlflowTracker, sync\n"
        "tracker = MlflowTracker(sys.argv[1], sys.argv[2])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "report = sync([pathlib.Path(sys.argv[3])], tracker); assert not report.failed, report.failed\n"
        "print(len(report.delivered))"
    )
    command = [sys.executable, "-c", code, store, tracker.experiment, str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=120)[0]) for process in both]
    assert sum(counts) == 8
    assert len(runs_of(client, tracker)) == 9
    assert {path.name for path in (tmp_path / "0").iterdir()} == {
        "result.json",
        "power.parquet",
        "power.png",
        "events.jsonl",
        "worker-0.err",
        "worker-0.out",
    }


@pytest.mark.mlflow
def test_sync_reports_what_it_cannot_read(tracker, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text("{")
    make_run(tmp_path / "1")
    make_run(tmp_path / "mlartifacts" / "copy")
    report = sync([tmp_path, tmp_path / "nowhere"], tracker)
    assert len(report.delivered) == 1
    assert set(report.failed) == {tmp_path / "0" / "result.json", tmp_path / "nowhere"}
    assert all("\n" not in reason for reason in report.failed.values())


# -- failures


@pytest.mark.mlflow
def test_a_store_that_cannot_be_opened(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError) as caught:
        MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db", "x")
    assert str(caught.value).startswith(f"tracking at sqlite:///{tmp_path}/file/mlflow.db: cannot open experiment 'x'")
    assert "\n" not in str(caught.value)


@pytest.mark.mlflow
def test_a_deleted_experiment_says_how_to_restore_it(tracker, client, store):
    client.delete_experiment(client.get_experiment_by_name(tracker.experiment).experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        MlflowTracker(store, tracker.experiment)


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"who are you?")

    def log_message(self, *args):
        pass


@pytest.mark.mlflow
def test_a_server_that_refuses_shows_no_password():
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(TrackingError) as caught:
                MlflowTracker(f"http://user:geheim@127.0.0.1:{server.server_port}", "x")
        finally:
            server.shutdown()
            thread.join()
    assert "geheim" not in str(caught.value)
    assert "http://***@127.0.0.1" in str(caught.value)


@pytest.mark.mlflow
def test_a_server_that_is_down_is_one_short_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        port = server.server_port
    with pytest.raises(TrackingError) as caught:
        MlflowTracker(f"http://user:geheim@127.0.0.1:{port}", "x")
    where = f"tracking at http://***@127.0.0.1:{port}"
    assert str(caught.value) == f"{where}: cannot open experiment 'x': the server does not answer (Connection refused)"


@pytest.mark.mlflow
def test_nothing_but_our_lines_on_the_terminal(tmp_path):
    """A new store, a failed call and a new process: MLflow logs at each of them."""
    code = (
        "import sys, threading\nfrom energybench.tracking import MlflowTracker\n"
        "tracker = MlflowTracker(f'sqlite:///{sys.argv[1]}/mlflow.db', 'x')\n"
        "run = tracker.begin('1', 'a')\n"
        "try: tracker.end_sweep('missing', [])\n"
        "except Exception as error: print(error)\n"
        "print(threading.active_count())"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert out.stderr == ""
    message, threads = out.stdout.splitlines()
    assert "cannot end the sweep" in message and "missing" in message
    assert threads == "1"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db"}


# -- as others see it: MLflow's page, and a project started by MLflow


@pytest.mark.mlflow
def test_ui_shows_an_artifact_serves_a_tracker_and_leaves_nothing_running(tracker, client, store, tmp_path):
    """Started in the clone's root, whose folder mlflow/ must not hide the library."""
    result = make_run(tmp_path / "0")
    run_id = tracker.begin(result.run_id, "lenet")
    tracker.finish(result, tmp_path / "0", run_id)
    port = _free_port()
    code = "import sys; from energybench.tracking import ui; ui(sys.argv[1], port=int(sys.argv[2]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, store, str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        picture = _get(f"http://127.0.0.1:{port}/get-artifact?run_uuid={run_id}&path=power.png", process)
        assert picture.startswith(b"\x89PNG")
        make_run(tmp_path / "1")
        remote = MlflowTracker(f"http://user:geheim@127.0.0.1:{port}", tracker.experiment)
        report = sync([tmp_path], remote)
        assert (len(report.delivered), len(report.already), report.failed) == (1, 1, {})
        written = Result.read(tmp_path / "1").tracking
        assert written["uri"] == f"http://***@127.0.0.1:{port}"
        assert "power.parquet" in artifacts_of(client, written["run_id"])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    with pytest.raises(ProcessLookupError):
        _wait_for_end_of_group(process.pid)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(url, process, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)


def _wait_for_end_of_group(group, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        os.killpg(group, 0)
        time.sleep(0.1)


@pytest.mark.mlflow
def test_mlproject_passes_its_parameters(tmp_path):
    """MLflow's own runner on a copy of the folder, with a `python` that writes down how it was called."""
    shutil.copytree(ROOT / "mlflow", tmp_path / "clone" / "mlflow")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "python"
    script.write_text('#!/bin/sh\n{ pwd; echo "$MLFLOW_RUN_ID"; printf "%s\\n" "$@"; } > seen\n')
    script.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"PATH": f"{tmp_path / 'bin'}:{env['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "run", "mlflow", "--env-manager", "local", "-e", "main"]
    parameters = ["-P", "batch=32", "-P", "overrides=budget.epochs=2 seed=1"]
    subprocess.run([*command, *parameters], cwd=tmp_path / "clone", env=env, capture_output=True, check=True)
    folder, run_id, *words = (tmp_path / "clone" / "seen").read_text().splitlines()
    assert folder == str(tmp_path / "clone")
    assert len(run_id) == 32
    assert words == ["-m", "energybench", "model=lenet", "batch=32", "gpu=auto", "budget.epochs=2", "seed=1"]


def test_the_folder_mlflow_holds_no_python():
    assert [path.name for path in (ROOT / "mlflow").rglob("*.py")] == []


def test_ui_command_runs_the_real_mlflow_on_loopback(tmp_path):
    command = ui_command(f"sqlite:///{tmp_path}/mlflow.db", port=5001)
    assert command[:4] == [sys.executable, "-m", "mlflow", "ui"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--default-artifact-root") + 1] == (tmp_path / "mlartifacts").as_uri()
    assert "geheim" not in " ".join(ui_command("postgresql://user:geheim@host/db"))


def test_ui_of_a_server_names_its_address(capsys):
    ui("https://user:geheim@host/mlflow")
    assert capsys.readouterr().out == "The tracking server shows its runs at https://***@host/mlflow\n"


def test_ui_of_a_port_that_is_taken_starts_nothing(tmp_path, capsys):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        assert main(["ui", "--uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"energybench: ui: port {port} is in use; give another with --port N\n")


def test_ui_of_no_port(tmp_path, capsys):
    (tmp_path / "mlflow.db").touch()
    assert main(["ui", "--uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", "70000"]) == 2
    assert capsys.readouterr().err == "energybench: ui: --port 70000: give a number from 1 to 65535\n"


def test_ui_makes_no_store(tmp_path):
    with pytest.raises(TrackingError, match="nothing recorded"):
        ui(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []
