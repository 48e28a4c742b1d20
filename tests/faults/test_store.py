"""Tracking stores that are locked or damaged: the run goes on, its result waits on disk, `sync` delivers it once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest
from conftest import files

from energybench import tracking
from energybench.run.result import Result

pytestmark = pytest.mark.mlflow

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locked(tmp_path):
    """A database that another process holds, for as long as it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, tmp_path / "mlflow.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    if not process.stdin.closed:
        process.stdin.close()
    process.wait()
    process.stdout.close()


def delivered(tmp_path):
    """How many results a sync delivers, twice."""
    tracker = tracking.MlflowTracker(f"sqlite:///{tmp_path}/mlflow.db", "energybench")
    reports = [tracking.sync([tmp_path / "mine"], tracker) for _ in range(2)]
    assert not any(report.failed for report in reports)
    return [len(report.delivered) for report in reports]


def warning(said):
    return next(line for line in said.splitlines() if "warning: tracking" in line)


WORDS = ["hydra.run.dir=mine", "budget.epochs=1", "tracking=mlflow", "tracking.uri=sqlite:///mlflow.db"]


def test_it_is_locked_by_another_program(ended, locked, tmp_path, row):
    code, said = ended(*WORDS)
    assert code == 0
    result = Result.read(tmp_path / "mine")
    assert (result.status, result.tracking) == ("finished", {})
    kept = files(tmp_path / "mine")
    locked.stdin.close()
    locked.wait()
    assert delivered(tmp_path) == [1, 0]
    row("tracking store locked", warning(said), f"{kept}; the run is not touched", "sync delivers it, exactly once")


CREATING = """
import os, signal, sys
import sqlalchemy
from energybench.tracking import MlflowTracker

made = []

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def before(connection, cursor, statement, *rest):
    made.append("CREATE TABLE" in statement)
    if sum(made) == 10:
        os.kill(os.getpid(), signal.SIGKILL)

MlflowTracker(sys.argv[1], "energybench")
"""


def test_whoever_makes_it_is_killed(ended, tmp_path, row):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    killed = subprocess.run([sys.executable, "-c", CREATING, uri], cwd=tmp_path)
    assert killed.returncode == -9
    half = {path.name for path in tmp_path.iterdir()}
    assert "mlflow.db.partial" in half and "mlflow.db" not in half
    code, said = ended(*WORDS)
    assert (code, "warning" in said) == (0, False)
    assert delivered(tmp_path) == [0, 0]
    row(
        "killed while the tracking store is made",
        "nothing: it is dead",
        "half a store beside, as mlflow.db.partial",
        "the store is made in its place, and every run is recorded",
    )


def test_it_is_damaged(ended, tmp_path, row):
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 64)
    code, said = ended(*WORDS)
    assert code == 0
    assert Result.read(tmp_path / "mine").status == "finished"
    kept = files(tmp_path / "mine")
    (tmp_path / "mlflow.db").unlink()
    assert delivered(tmp_path) == [1, 0]
    row("tracking store damaged", warning(said), f"{kept}; the run is not touched", "sync delivers it to a new one")
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (1,)
    connection.close()
