"""Cells as detached actors of Ray: they live on without the process that made them, and are found again by their names.

Each starts the cell as a process of its own, which takes the signals of a run, has its own working folder and leaves
nothing behind in one of Ray's.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from energybench.cluster.options import RayOptions
from energybench.cluster.request import asked
from energybench.cluster.scheduler import ENDED, RUNNING, Standing
from energybench.cluster.ticket import Ticket
from energybench.errors import ClusterError

NAMESPACE = "energybench"
PASSED = ("ENERGYBENCH_PLUGINS", "ENERGYBENCH_DATA", "ENERGYBENCH_LOCKS", "PYTHONPATH")
"""Variables that decide what a cell is; Ray passes none of this process to the nodes."""

GONE = "its process is no more; what it said is in the sweep's folder, in ray/"

HEARS_S = 10.0
"""For an actor to hear that it is to end; one that does not is still waiting for its place."""


class RayCell:
    """The actor: one cell. It ends when the cell's process does."""

    def __init__(self, ticket: bytes, name: str, environment: Mapping[str, str], log: str) -> None:
        with Path(log).open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "energybench.cluster.node", name],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        assert self._process.stdin is not None
        self._process.stdin.write(ticket)
        self._process.stdin.flush()  # and stays open: at its end the cell knows that this actor is gone

    def run(self) -> None:
        """Lasts as long as the cell."""
        import ray

        self._process.wait()
        ray.actor.exit_actor()

    def stop(self) -> None:
        """Tells the cell to come to its end, with what it has."""
        self._process.send_signal(signal.SIGTERM)


class Ray:
    """See `energybench.cluster.scheduler.Scheduler`.

    Args:
        sweep_id: of the sweep.
        options: of the launcher.
    """

    title = "Ray"

    def __init__(self, sweep_id: str, options: RayOptions) -> None:
        self._sweep = sweep_id[:12]
        self._options = options
        self._ends: dict[int, Any] = {}

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """One actor a cell."""
        ray = self._connected()
        made = []
        try:
            for ticket in tickets:
                made.append(ticket.number)
                self._ends[ticket.number] = self._start(ray, ticket)
        except Exception as error:
            self.cancel(made)
            raise ClusterError(f"Ray does not take {tickets[len(made) - 1].name}: {_first(error)}") from error

    def _start(self, ray: Any, ticket: Ticket) -> Any:
        name = self._name(ticket.number)
        passed = {key: os.environ[key] for key in (*PASSED, *self._options.environment) if key in os.environ}
        log = ticket.directory / "ray" / f"{ticket.number}.out"
        log.parent.mkdir(parents=True, exist_ok=True)
        folder = str(Path(ticket.folder).absolute())
        actor = ray.remote(RayCell).options(
            name=name, namespace=NAMESPACE, lifetime="detached", max_restarts=0, max_concurrency=2,
            **requested(ticket, self._options),
        )  # fmt: skip
        given = pickle.dumps(replace(ticket, folder=folder))
        return actor.remote(given, name, passed, str(log.absolute())).run.remote()

    def standing(self, numbers: Iterable[int]) -> Mapping[int, Standing]:
        """By one call for all of them; of cells that this process submitted also why they ended."""
        ray = self._connected()
        alive = {named["name"] for named in ray.util.list_named_actors(all_namespaces=True)}
        found = {}
        for number in numbers:
            name = self._name(number)
            if name in alive:
                found[number] = Standing(RUNNING, name)
            elif number in self._ends:
                found[number] = Standing(ENDED, name, _why(ray, self._ends[number]))
        return found

    def cancel(self, numbers: Iterable[int]) -> None:
        """SIGTERM to those that run; those that wait are taken back."""
        ray = self._connected()
        actors = []
        for number in numbers:
            try:
                actors.append(ray.get_actor(self._name(number), NAMESPACE))
            except ValueError:
                continue  # it has ended
        told = {actor.stop.remote(): actor for actor in actors}
        if told:
            _, deaf = ray.wait(list(told), num_returns=len(told), timeout=HEARS_S)
            for one in deaf:
                ray.kill(told[one])

    def _name(self, number: int) -> str:
        return f"energybench-{self._sweep}-{number}"

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise ClusterError("hydra/launcher=ray: Ray is not installed; pip install 'energybench[ray]'") from error
        if not ray.is_initialized():
            try:
                with warnings.catch_warnings(action="ignore"):
                    ray.init(
                        address=self._options.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR"
                    )
            except (OSError, RuntimeError, ValueError) as error:
                raise ClusterError(
                    f"hydra.launcher.address={self._options.address}: no Ray cluster answers there: {_first(error)}"
                ) from error
        return ray


def requested(ticket: Ticket, options: RayOptions) -> dict[str, Any]:
    """What a cell asks of Ray."""
    generation, count = asked(ticket.gpu, options)
    request: dict[str, Any] = {"num_cpus": options.cpus, "num_gpus": count}
    if label := options.labels.get(generation):
        name, _, value = label.partition("=")
        request["label_selector"] = {name: value}
    if resources := options.resources.get(generation):
        request["resources"] = resources
    return request


def _why(ray: Any, end: Any) -> str:
    """Why an actor is no more."""
    try:
        ray.get(end, timeout=1)
    except Exception as error:  # of many kinds, all of which tell it
        return GONE if "exit_actor" in str(error) else " ".join(str(error).split())[:300]
    return GONE


def _first(error: Exception) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
