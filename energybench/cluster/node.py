"""One cell on the node of a cluster: from its ticket to its result, whatever the scheduler does meanwhile."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import OmegaConf

from energybench import cells  # noqa: F401  its resolver is used by configurations
from energybench.cluster.ticket import Node, Ticket, this_node
from energybench.errors import DataError
from energybench.experiment import Checkpoint
from energybench.job import job
from energybench.run.attempts import goes_on
from energybench.run.result import Result
from energybench.study.ledger import set_aside


class Stop:
    """Ends the run of this process when its scheduler sends SIGTERM, as Ctrl-C does.

    What comes after the first is passed over: the run is coming to its end, within `checkpoint.grace_s`.

    Args:
        words: asked, when it comes, what the result is to say of it.

    Attributes:
        came: whether it has come.
    """

    def __init__(self, words: Callable[[], str]) -> None:
        self._words = words
        self.came = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt(self._words())


def run(ticket: Ticket, node: Node) -> Result | None:
    """Runs the cell in its folder, unless an earlier start of the same job has brought it to its end.

    Returns:
        What lies in the folder afterwards; None where nothing was measured.
    """
    os.chdir(ticket.folder)
    setup_globals()
    folder = ticket.directory / str(ticket.number)
    if node.restarts:
        before = _result(folder)
        if before is not None and before.status != "interrupted":
            return before
        if not goes_on(folder, checkpoint_of(ticket)):
            set_aside(ticket.directory, ticket.number)
    node.write(folder)
    with suppress(KeyboardInterrupt):  # the result says why, if it came to one
        run_job(
            task_function=partial(job, records=False),
            config=ticket.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=HydraContext(ConfigLoaderImpl(ConfigSearchPathImpl()), Callbacks(ticket.config)),
        )
    return _result(folder)


def checkpoint_of(ticket: Ticket) -> Checkpoint:
    """The ticket's options of saving and going on, which were validated when it was made."""
    values = OmegaConf.to_container(ticket.config.checkpoint, resolve=True)
    assert isinstance(values, dict)
    return Checkpoint(**{str(key): value for key, value in values.items()})


def _result(folder: Path) -> Result | None:
    with suppress(DataError):
        return Result.read(folder)
    return None


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs the pickled ticket on standard input, whose end ends it; the argument is the scheduler's name for it."""
    ticket: Ticket = pickle.load(sys.stdin.buffer)
    Stop(lambda: "stopped by its scheduler")
    threading.Thread(target=_end_with_input, daemon=True).start()
    run(ticket, this_node(sys.argv[1]))


if __name__ == "__main__":
    main()
