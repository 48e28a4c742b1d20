"""Records results in MLflow; the only part that imports it, and only when something is recorded.

`store` finds and opens a store, `record` says what of a result is written, `tracker` writes it, `reader` reads it back,
`delivery` catches up on what a run could not write, `ui` shows it. Tracking never costs a run: whatever goes wrong is a
`TrackingError`, and `sync` delivers later what result.json holds, exactly once.
"""

from energybench.tracking.delivery import SyncReport, sync
from energybench.tracking.reader import MlflowReader
from energybench.tracking.record import run_name
from energybench.tracking.store import available, named, resolve_uri
from energybench.tracking.tracker import MlflowTracker
from energybench.tracking.ui import ui, ui_command

__all__ = [
    "MlflowReader",
    "MlflowTracker",
    "SyncReport",
    "available",
    "named",
    "resolve_uri",
    "run_name",
    "sync",
    "ui",
    "ui_command",
]
