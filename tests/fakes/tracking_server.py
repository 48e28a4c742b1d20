"""The tracking server of mlflow/compose.yaml without containers: a real PostgreSQL and the same mlflow/server.sh."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "mlflow" / "server.sh"
PASSWORD = "p/w@rd-of-admin"
PATIENCE_S = 180.0


NEEDED = {"psycopg2": "pip install psycopg2-binary", "flask_wtf": "pip install 'mlflow[auth]'"}


def programs():
    """The folder of PostgreSQL's programs: Debian keeps them off PATH."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    return Path(found).resolve().parent if found else None


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def missing() -> str | None:
    """What this machine lacks for it, and how to get it; None: nothing."""
    if programs() is None:
        return "needs PostgreSQL: apt-get install postgresql"
    return next((f"needs {name}: {how}" for name, how in NEEDED.items() if find_spec(name) is None), None)


@contextmanager
def database() -> Iterator[dict[str, str]]:
    """A PostgreSQL of its own with the databases mlflow and auth: the environment by which libpq finds it."""
    folder = programs()
    assert folder is not None, missing()
    where = Path(tempfile.mkdtemp(prefix="energybench-pg-"))  # pytest's own folders are private to root
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
    if as_user:
        shutil.chown(where, "postgres")

    def call(*words):
        done = subprocess.run([*as_user, *words], capture_output=True, text=True, cwd=where)
        assert done.returncode == 0, done.stderr + done.stdout

    port, data = str(free_port()), str(where / "data")
    (where / "password").write_text("s3cr3t")
    if as_user:
        shutil.chown(where / "password", "postgres")
    login = ["-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={where}/password"]
    call(folder / "initdb", "-D", data, *login, "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {where} -c fsync=off"
    call(folder / "pg_ctl", "-D", data, "-l", str(where / "log"), "-o", options, "-w", "start")
    environment = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "mlflow", "PGPASSWORD": "s3cr3t"}
    try:
        for name in ("mlflow", "auth"):
            subprocess.run([folder / "createdb", name], env={**os.environ, **environment}, check=True)
        yield environment
    finally:
        call(folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(where)


class Server:
    """The server, which can be taken away and comes back at the same address."""

    def __init__(self, database, folder):
        self.port, self.folder = free_port(), folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ, **database,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 32,
            "ARTIFACTS": str(folder / "artifacts"), "PORT": str(self.port),
        }  # fmt: skip
        self.process = None

    def start(self):
        """Returns when it answers; at once where it runs already."""
        if self.process is not None:
            return self
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", SCRIPT], env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
