"""Shows what was recorded: MLflow's own web page on the store in use."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress

from energybench.credentials import redact
from energybench.errors import ConfigError, TrackingError
from energybench.tracking import view
from energybench.tracking.store import (
    absolute,
    artifact_folder,
    available,
    is_server,
    load,
    sqlite_path,
    tracking_errors,
)

# The page needs neither a worker per core nor MLflow's job queue, each of which starts processes.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_command(uri: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the page of a store that is not itself a server.

    It reads the store's address from MLFLOW_BACKEND_STORE_URI: a password among the arguments would show in the
    machine's process list.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    folder = artifact_folder(uri)
    # Otherwise MLflow makes a folder for artifacts wherever it is started.
    return command if folder is None else [*command, "--default-artifact-root", folder.as_uri()]


def ui(uri: str, host: str = "127.0.0.1", port: int = 5000, experiment: str = "energybench") -> None:
    """Serves the page until interrupted, in place of this process; of a tracking server, says where its page is.

    Args:
        uri: the store.
        host: address that the page is served on.
        port: likewise.
        experiment: name of the one whose runs the printed address shows side by side, where it is there.

    Raises:
        TrackingError: MLflow is missing, or nothing was recorded yet: MLflow would make an empty store.
        ConfigError: nothing can be served on that port.
    """
    if is_server(uri):
        print(f"The tracking server shows its runs at {redact(uri)}")
        return
    state = available(uri)
    if not state.ok:
        raise TrackingError(f"ui: {state}")
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise TrackingError(f"ui: nothing recorded at {database} yet; run something first, or set tracking.uri")
    _require_free(host, port)
    print(
        f"Runs of {redact(uri)} at {_address(uri, experiment, f'http://{host}:{port}')} (end with Ctrl-C)", flush=True
    )
    command = ui_command(uri, host, port)
    os.execve(command[0], command, {**_ENVIRONMENT, **os.environ, "MLFLOW_BACKEND_STORE_URI": absolute(uri)})


def _require_free(host: str, port: int) -> None:
    """MLflow would say it in a page of logs, and end as if all was well; what answers there is a stranger's."""
    if not 0 < port < 2**16:
        raise ConfigError(f"ui: --port {port}: give a number from 1 to 65535")
    try:
        socket.create_server((host, port)).close()  # as MLflow: a port whose last connection has just ended is free
    except OSError as error:
        said = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(f"ui: port {port} {said}; give another with --port N") from error


def _address(uri: str, experiment: str, root: str) -> str:
    """Of the experiment's runs side by side; of the page's beginning where the store does not tell the experiment."""
    with suppress(TrackingError), tracking_errors(uri, "look up the experiment"):
        found = load(uri).MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
        if found is not None and view.TAG in found.tags:
            return view.address(root, str(found.experiment_id))
    return root
