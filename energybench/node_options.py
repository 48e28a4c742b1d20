"""One training over several machines: how many there are, which of them this is, and where they meet.

The names are torchrun's (--nnodes, --node-rank, --rdzv-endpoint) without its prefixes. A launcher that has told all
this to its processes is asked for it by the resolvers `${slurm:...}` and `${torchrun:...}` of the group `nodes`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from energybench.errors import ConfigError

PORT = 29500
"""torchrun's."""

FOLDER = "node-"
"""Begins the name of the folder, within that of a command, which is another node's than the first."""


@dataclass(frozen=True)
class Nodes:
    """The machines that train as one; the same command runs on each.

    Attributes:
        count: how many.
        rank: number of this one, from 0; null where there is but one.
        rendezvous: HOST:PORT by which all of them reach the first; without a port, 29500.
        join_timeout_s: seconds that those which are there wait for the others at the start of a run.
        lost_after_s: seconds without a word from a node after which it counts as lost.
    """

    count: int = 1
    rank: int | None = None
    rendezvous: str | None = None
    join_timeout_s: float = 600.0
    lost_after_s: float = 15.0

    def __post_init__(self) -> None:
        _require(self.count > 0, "count", self.count, "a number of nodes from 1")
        _require(self.join_timeout_s > 0, "join_timeout_s", self.join_timeout_s, "a number above 0")
        _require(self.lost_after_s >= 2, "lost_after_s", self.lost_after_s, "a number from 2")
        if self.count == 1:
            _require(self.rank in (None, 0), "rank", self.rank, "0 or null: nodes.count is 1")
            return
        named = f"this node's number, from 0 to {self.count - 1}, or nodes=slurm, nodes=torchrun"
        _require(self.rank is not None and 0 <= self.rank < self.count, "rank", self.rank, named)
        _require(self.rendezvous is not None, "rendezvous", None, "HOST:PORT of node 0, as every node reaches it")
        _ = self.address

    @property
    def number(self) -> int:
        """Of this node."""
        return self.rank or 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the rendezvous; raises ConfigError where it names none."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]/]+))(?::(\d{1,5}))?", self.rendezvous or "")
        port = int(found[3] or PORT) if found else 0
        _require(0 < port < 65536, "rendezvous", self.rendezvous, "HOST:PORT, such as node0:29500 or [fd00::1]:29500")
        assert found is not None
        return found[1] or found[2], port

    def folder(self, directory: Path) -> Path:
        """Where this node's files of a command go, of which the first node's are in `directory`."""
        return directory / f"{FOLDER}{self.number}" if self.number else directory


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"nodes.{key}={'null' if value is None else value}: give {wanted}")


def of_slurm(key: str, environment: Mapping[str, str] | None = None) -> int | str:
    """What SLURM tells the tasks of a step: `count`, `rank`, `rendezvous`; raises ConfigError.

    Each job has a port of its own, told by its number, as several may be on one machine.
    """
    known = _Told("slurm", "srun --ntasks-per-node=1 python -m energybench ... nodes=slurm", environment)
    if known.get("SLURM_NTASKS_PER_NODE", "1") not in ("1", ""):
        raise ConfigError(
            f"nodes=slurm: {known.get('SLURM_NTASKS_PER_NODE', '')} tasks a node; start one command a node, by "
            "--ntasks-per-node=1: it starts the processes of all of its GPUs itself"
        )
    if key == "count":
        return known.number("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    if key == "rank":
        return known.number("SLURM_NODEID")
    port = 20000 + (known.number("SLURM_JOB_ID") + known.number("SLURM_STEP_ID", default=0)) % 10000
    return f"{first_host(known.word('SLURM_STEP_NODELIST', 'SLURM_NODELIST'))}:{port}"


def first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts: "gpu[03-05,9],login" -> "gpu03"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0] if first else nodes)


def of_torchrun(key: str, environment: Mapping[str, str] | None = None) -> int | str:
    """What torchrun tells the processes that it starts: `count`, `rank`, `rendezvous`; raises ConfigError.

    torchrun itself has the port that it tells; the next one is ours.
    """
    started = "torchrun --nnodes=... --nproc-per-node=1 ... -m energybench ... nodes=torchrun"
    known = _Told("torchrun", started, environment)
    if known.number("LOCAL_WORLD_SIZE") != 1:
        raise ConfigError(
            f"nodes=torchrun: {known.number('LOCAL_WORLD_SIZE')} processes a node; start one command a node, by "
            "--nproc-per-node=1: it starts the processes of all of its GPUs itself"
        )
    if key == "count":
        return known.number("GROUP_WORLD_SIZE")
    if key == "rank":
        return known.number("GROUP_RANK")
    host = known.word("MASTER_ADDR")
    return f"{f'[{host}]' if ':' in host else host}:{known.number('MASTER_PORT') + 1}"


class _Told:
    """Environment variables of a launcher."""

    def __init__(self, launcher: str, command: str, environment: Mapping[str, str] | None) -> None:
        self._launcher = launcher
        self._command = command
        self.get = (os.environ if environment is None else environment).get

    def word(self, *names: str) -> str:
        """The first of these variables that is set; raises ConfigError where none is."""
        for name in names:
            if value := self.get(name):
                return value
        raise ConfigError(f"nodes={self._launcher}: {names[-1]} is not set; start it by {self._command}")

    def number(self, *names: str, default: int | None = None) -> int:
        """The same as a number."""
        if default is not None and not any(self.get(name) for name in names):
            return default
        value = self.word(*names)
        if not value.isdecimal():
            raise ConfigError(f"nodes={self._launcher}: {names[-1]}={value} is no number; start it by {self._command}")
        return int(value)


OmegaConf.register_new_resolver("slurm", lambda key: of_slurm(key), replace=True)
OmegaConf.register_new_resolver("torchrun", lambda key: of_torchrun(key), replace=True)
