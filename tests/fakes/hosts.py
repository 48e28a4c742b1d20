"""Two hosts on one machine: a network, a name and a CLOCK_MONOTONIC of each, by namespaces of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

AHEAD_S = 1000
"""The second host's CLOCK_MONOTONIC is so many seconds ahead, exactly."""

ADDRESSES = ("10.77.0.1", "10.77.0.2")
OWN = "127.0.1.1"
"""What a host's own name stands for on itself, as Debian has it: nobody else reaches it there."""

WORDS = ["gpu=pascal", "meter=scripted", "engine=standin", "dataset=tiny", "tracking=none", "batch=8"]
WORDS += ["engine.step_s=0.02", "measure.baseline_s=0", "measure.warmup_steps=0", "measure.context_s=0"]


def unable() -> str:
    """Why there can be no such hosts here; empty where there can."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        return "needs root and iproute2, util-linux (apt-get install iproute2 util-linux)"
    tried = subprocess.run(["unshare", "-n", "-u", "-T", "--monotonic=1", "-f", "true"], capture_output=True, text=True)
    return f"this kernel lends no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


netns = [pytest.mark.netns, pytest.mark.skipif(bool(unable()), reason=unable())]


class Hosts:
    """Two hosts joined by a cable; each command runs in a folder of the host's own."""

    def __init__(self, folder):
        self.folder = folder
        self.names = [f"energybench-{os.getpid()}-{number}" for number in (0, 1)]
        self.processes = []
        for name in self.names:
            _ip("netns", "add", name)
        _ip(
            "link",
            "add",
            "cable",
            "netns",
            self.names[0],
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            self.names[1],
        )
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", name, "link", "set", device, "up")
        for number in (0, 1):
            (self.place(number) / "locks").mkdir(parents=True)
            self._names(number).mkdir(parents=True)
            lines = [f"{OWN if other == number else address} host{other}" for other, address in enumerate(ADDRESSES)]
            (self._names(number) / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def _names(self, number):
        """`ip netns exec` shows a host the files of this folder in place of those of /etc."""
        return Path("/etc/netns") / self.names[number]

    def place(self, number):
        return self.folder / f"host{number}"

    def start(self, number, command, environment=None):
        """Starts a command on a host."""
        named = f'hostname host{number} && exec "$@"'
        clock = ["unshare", "-u", "-T", f"--monotonic={AHEAD_S * number}", "-f", "--kill-child"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[number], *clock, "sh", "-c", named, "sh", *command],
            cwd=self.place(number), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "ENERGYBENCH_LOCKS": str(self.place(number) / "locks"), **(environment or {})},
        )  # fmt: skip
        self.processes.append(process)
        return process

    def node(self, number, *words, environment=None, started_by=("-m", "energybench")):
        """Starts one node of a run."""
        here = ["nodes.count=2", f"nodes.rank={number}", "nodes.rendezvous=host0:29500"]
        return self.start(number, [sys.executable, *started_by, *WORDS, *here, *words], environment)

    def unplug(self):
        _ip("-n", self.names[1], "link", "set", "cable", "down")

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        for number, name in enumerate(self.names):
            _ip("netns", "del", name)
            shutil.rmtree(self._names(number))


def supervisor(process):
    """The energybench process below what has started it on its host."""
    children = psutil.Process(process.pid).children()
    return children[0] if children else None


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)
