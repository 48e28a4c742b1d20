"""A SLURM cluster of two nodes on this host: real munged, slurmctld and slurmd, and a fake driver on each node."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from clusters import CELL, LAUNCHER, NODES, Command, free_ports, until

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=4
KillWait=20
MinJobAge=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
NodeName=old1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=1000 Gres=gpu:2 Feature=p100
NodeName=new1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=1000 Gres=gpu:2 Feature=volta
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass
class Cluster:
    """The running cluster."""

    folder: Path

    def call(self, *words):
        done = subprocess.run(words, env=self.environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    def environment(self):
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, *words):
        """A daemon, which leaves by itself."""
        with (self.folder / "out").open("ab") as out:
            subprocess.run(
                words, env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60
            )

    def pid(self, name):
        return int((self.folder / f"{name}.pid").read_text())

    def idle(self):
        return self.call("sinfo", "--noheader", "-N", "-p", "main", "-o", "%t").split() == ["idle", "idle"]

    def quiet(self):
        """Nothing is queued or runs, and both nodes are there."""
        until(lambda: not self.call("squeue", "--noheader") and self.idle())


def _start(folder, stack):
    cluster = Cluster(folder)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for number in (0, 1):
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    exports = []
    for node, server in NODES.items():
        (folder / f"spool-{node}").mkdir()
        (folder / f"driver-{node}").mkdir()
        variables = server.start(folder / f"driver-{node}").environment()
        lines = "\n".join(f'echo "export {name}={value}"' for name, value in variables.items())
        exports.append(f"{node})\n{lines}\n;;")
    prolog = folder / "prolog.sh"
    prolog.write_text("#!/bin/sh\ncase $SLURMD_NODENAME in\n" + "\n".join(exports) + "\nesac\n")
    prolog.chmod(0o755)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=free_ports(3)))
    (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={folder}/gpu[0-1]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    stack.callback(_stop, cluster)
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munge.log"}
    files["seed-file"] = "munge.seed"
    cluster.start("munged", "--force", *(f"--{option}={folder / name}" for option, name in files.items()))
    cluster.start("slurmctld")
    for node in NODES:
        cluster.start("slurmd", "-N", node)
    until(cluster.idle)
    return cluster


def _stop(cluster):
    """Jobs first, then the daemons; each by its own id."""
    with suppress(Exception):
        cluster.call("scancel", "--me")
        cluster.quiet()
    processes = []
    for name in ("slurmd-old1", "slurmd-new1", "slurmctld", "munged"):
        with suppress(OSError, ValueError, psutil.Error):
            processes.append(psutil.Process(cluster.pid(name)))
            processes[-1].terminate()
    for process in psutil.wait_procs(processes, timeout=10)[1]:
        process.kill()


@pytest.fixture(scope="session")
def slurm():
    """A cluster for all tests of this process."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs SLURM ({', '.join(missing)} missing): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("needs root: slurmd starts jobs as their user")
    pytest.importorskip("submitit", reason="needs submitit (pip install 'energybench[slurm]')")
    folder = Path(tempfile.mkdtemp(prefix="energybench-slurm-"))  # munge's socket needs a short name
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield _start(folder, stack)


@pytest.fixture
def cluster(slurm, monkeypatch, fakes):
    """The cluster, with nothing on it; commands of this test and their jobs find it."""
    slurm.quiet()
    monkeypatch.setenv("SLURM_CONF", str(slurm.folder / "slurm.conf"))
    yield slurm
    with suppress(AssertionError):
        slurm.call("scancel", "--me")


@pytest.fixture
def start(tmp_path):
    """Starts a sweep; what is still running when the test ends is ended."""
    commands = []

    def go(*words, launcher=LAUNCHER, cell=CELL):
        commands.append(Command([*cell, *launcher, *words], tmp_path))
        return commands[-1]

    yield go
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture
def run(start):
    """Runs a sweep to its end and gives what it said."""

    def go(*words, code=0, **options):
        command = start(*words, **options)
        said = command.end()
        assert command.returncode == code, said
        assert "Traceback" not in said, said
        return said

    return go
