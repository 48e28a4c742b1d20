"""What the nodes of one training are told, compare, and add up; without a network."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import socket
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from standin_runs import planned

from energybench.config import resolve
from energybench.errors import ConfigError, DeviceError
from energybench.node_options import Nodes, first_host, of_slurm, of_torchrun
from energybench.power.meter import Channel, Reading, Sample, Source
from energybench.power.named import prefixed
from energybench.power.timeline import Timeline
from energybench.registry import Registry
from energybench.run.nodes.facts import difference, digest_of, facts
from energybench.run.nodes.link import Link
from energybench.run.nodes.results import (
    metrics_of_nodes,
    phases_of,
    provenance_of,
    scope_of,
    tags_of,
    with_edges_in_doubt,
)
from energybench.run.nodes.several import interface_of, may_follow
from energybench.run.preflight import Machine, prepare
from energybench.run.result import ChannelEnergy, Failure, Phase, Result, result_files
from energybench.study.sameness import decisive

NS = 1_000_000_000
TWO = {"count": 2, "rank": 0, "rendezvous": "node0:29500"}

WRONG = {
    "nodes.count=0": {"count": 0},
    "nodes.rank=null: give this node's number, from 0 to 1": {"count": 2, "rendezvous": "a"},
    "nodes.rank=2: give": {**TWO, "rank": 2},
    "nodes.rank=1: give 0 or null": {"rank": 1},
    "nodes.rendezvous=null: give HOST:PORT": {"count": 2, "rank": 0},
    "nodes.rendezvous=a:b: give HOST:PORT": {**TWO, "rendezvous": "a:b"},
    "nodes.rendezvous=a:70000: give": {**TWO, "rendezvous": "a:70000"},
    "nodes.rendezvous=fd00::1: give": {**TWO, "rendezvous": "fd00::1"},
    "nodes.join_timeout_s=0": {"join_timeout_s": 0},
    "nodes.lost_after_s=1": {"lost_after_s": 1},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_is_named(said):
    with pytest.raises(ConfigError) as error:
        Nodes(**WRONG[said])
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("rendezvous", "address"),
    [("node0", ("node0", 29500)), ("10.0.0.1:80", ("10.0.0.1", 80)), ("[fd00::1]:29501", ("fd00::1", 29501))],
)
def test_where_they_meet(rendezvous, address):
    assert Nodes(**{**TWO, "rendezvous": rendezvous}).address == address


def test_the_first_node_has_the_folder_and_the_others_have_one_within():
    assert Nodes().folder(Path("runs/x")) == Path("runs/x")
    assert Nodes(**{**TWO, "rank": 1}).folder(Path("runs/x")) == Path("runs/x/node-1")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("a", "a"),
        ("gpu[03-05,9],login", "gpu03"),
        ("n[1,2]-ib", "n1-ib"),
        ("a,b[1-2]", "a"),
        ("r[0-1]n[07-08]", "r0n07"),
    ],
)
def test_the_first_of_slurms_hosts(nodes, host):
    assert first_host(nodes) == host


def test_what_slurm_tells():
    told = {"SLURM_NNODES": "9", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_ID": "123456"}
    told |= {"SLURM_STEP_ID": "3", "SLURM_STEP_NODELIST": "gpu[7-8]", "SLURM_NODELIST": "gpu[1-9]"}
    assert [of_slurm(key, told) for key in ("count", "rank", "rendezvous")] == [2, 1, "gpu7:23459"]
    with pytest.raises(ConfigError, match="8 tasks a node; start one command a node"):
        of_slurm("count", {**told, "SLURM_NTASKS_PER_NODE": "8"})
    with pytest.raises(ConfigError, match="nodes=slurm: SLURM_NODEID is not set; start it by srun"):
        of_slurm("rank", {})
    with pytest.raises(ConfigError, match="SLURM_NODEID=x is no number"):
        of_slurm("rank", {"SLURM_NODEID": "x"})


def test_what_torchrun_tells():
    told = {"GROUP_WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_PORT": "29500"}
    told["MASTER_ADDR"] = "fd00::1"
    assert [of_torchrun(key, told) for key in ("count", "rank", "rendezvous")] == [2, 0, "[fd00::1]:29501"]
    with pytest.raises(ConfigError, match="4 processes a node; start one command a node"):
        of_torchrun("count", {**told, "LOCAL_WORLD_SIZE": "4"})
    with pytest.raises(ConfigError, match="start it by torchrun"):
        of_torchrun("rank", {})


def configured(**sections):
    config = {
        "model": {"name": "lenet"},
        "dataset": {"name": "tiny"},
        "engine": {"name": "standin"},
        "meter": {"name": "scripted"},
        "gpu": {"name": "pascal", "count": 2},
        "nodes": TWO,
        "batch": 8,
        **sections,
    }
    return prepare(resolve(OmegaConf.create(config), Registry()), Machine(Registry()))


@pytest.mark.usefixtures("fakes")
def test_a_batch_is_that_of_all_nodes():
    plan = configured()
    assert plan.memory_bytes == configured(nodes={}, batch=4).memory_bytes
    with pytest.raises(DeviceError, match="batch=6 does not divide over 4 devices; use 4 or 8"):
        configured(batch=6)


@pytest.mark.gluon
@pytest.mark.skipif(importlib.util.find_spec("mxnet") is None, reason="needs MXNet: pip install 'energybench[gluon]'")
@pytest.mark.usefixtures("fakes")
def test_an_engine_of_one_machine_is_refused():
    with pytest.raises(ConfigError, match="engine gluon trains on one machine only; use engine=torch, or nodes"):
        configured(engine={"name": "gluon"}, gpu={"name": "cpu", "count": 2}, meter={"name": "tdp"})


@pytest.mark.usefixtures("fakes")
def test_the_first_node_alone_records():
    assert configured(tracking={"name": "mlflow"}).experiment.tracking.name == "mlflow"
    assert configured(tracking={"name": "mlflow"}, nodes={**TWO, "rank": 1}).experiment.tracking.name == "none"


@pytest.mark.usefixtures("fakes")
def test_what_differs_between_nodes_is_told(tmp_path):
    here = facts(configured())
    assert difference("node 1", facts(configured(nodes={**TWO, "rank": 1, "rendezvous": "10.0.0.1"})), here) is None
    other = facts(configured(batch=16, training={"lr": 0.5}))
    assert difference("node 1", other, here) == (
        "node 1 is asked for another run: batch=16 there, 8 on node 0; training.lr=0.5 there, 0.01 on node 0; "
        "give every node the same command"
    )
    checkpoint = tmp_path / "checkpoint.npz"
    checkpoint.write_bytes(b"x")
    changes = {
        "runs Python 3.9, node 0": {"python": "3.9"},
        "runs other code than node 0: code of core; framework standin 1.0 -> standin 2.0": {
            "code": {**here["code"], "framework": "standin 2.0", "core": "abc"}
        },
        "trains on 1 x volta, node 0 2 x pascal; the nodes": {"devices": "1 x volta"},
        "is read by nvml, node 0 scripted": {"meter": "nvml"},
        "goes on from checkpoint": {"checkpoint": digest_of(checkpoint)},
    }
    for said, change in changes.items():
        assert f"node 1 {said}" in str(difference("node 1", {**here, **change}, here))


@pytest.mark.parametrize("unread", [False, True])
def test_a_node_that_ended_is_told_of_alike_whether_or_not_it_had_heard_all(unread):
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as other:
        link = Link(door.accept()[0], lost_after_s=5)
        if unread:
            link.send("hello")
            other.recv(1, socket.MSG_PEEK)  # it has come, so that closing answers with a reset
        other.close()
        with pytest.raises(EOFError, match=r"^its connection ended$"):
            link.receive()
        link.close()


def test_a_worker_may_fail_because_another_did():
    assert may_follow(Failure("crashed", "RuntimeError: Connection closed by peer"))
    assert may_follow(Failure("killed", "the worker was ended by SIGABRT; see worker-0.err"))
    assert not may_follow(Failure("killed", "the worker was ended by SIGKILL; see worker-0.err"))


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") == "lo"


class Told:
    """An opened meter of one card."""

    channels = (Channel("gpu.0", "gpu", "GPU-1"),)
    sources = (Source("gpu.0", "instant", "power_w", 0.1),)

    def read(self, source):
        assert source is self.sources[0]
        return [Sample(5.0)]

    def close(self):
        self.closed = True


def test_a_channel_carries_its_node():
    inner = Told()
    assert prefixed(inner, "") is inner
    session = prefixed(inner, "node1.")
    assert [channel.name for channel in session.channels] == ["node1.gpu.0"]
    assert [source.channel for source in session.sources] == ["node1.gpu.0"]
    assert session.read(session.sources[0]) == [Sample(5.0)]
    session.close()
    assert inner.closed


def line(watts):
    """Power read every 10 ms for 10 s."""
    channel, source = Channel("gpu.0", "gpu", "GPU-1"), Source("gpu.0", "instant", "power_w", 0.01, averaging_s=0.0)
    times = range(0, 10 * NS, NS // 100)
    return Timeline(channel, [source], [Reading("gpu.0", "instant", "power_w", at, at, watts(at / NS)) for at in times])


def test_edges_in_doubt_add_the_power_there():
    """200 W at the start, 50 W at the end, each 20 ms in doubt: a rectangle's standard deviation, in quadrature."""
    steps = line(lambda at_s: 200.0 if at_s < 5 else 50.0)
    window = (2 * NS, 8 * NS)
    plain = steps.energy(*window)
    assert with_edges_in_doubt(plain, steps, window, 0.0) is plain
    found = with_edges_in_doubt(plain, steps, window, 0.02)
    added_j = math.hypot(200.0, 50.0) * 0.02 / math.sqrt(3)
    assert found.independent_u_j == pytest.approx(math.hypot(plain.independent_u_j, added_j))
    assert found.energy_j == plain.energy_j
    nothing = steps.energy(20 * NS, 21 * NS)
    assert with_edges_in_doubt(nothing, steps, (20 * NS, 21 * NS), 0.02) is nothing


def energy(joules):
    return ChannelEnergy(joules, 0.1, 0.2, joules, joules, 9, 0.1, 1.0, "counter", False)


def phase(name, epoch, **channels):
    return Phase(
        name, epoch, 0, NS, True, {key.replace("_", "."): energy(value) for key, value in channels.items()}, {}
    )


def of_node(rank, phases, **more):
    channels = [{"name": f"node{rank}.gpu.0"}]
    provenance = {"devices": [{"uuid": f"GPU-{rank}"}], "channels": channels, "system": f"system {rank}", "cpu": {}}
    scope = (f"node{rank}.gpu.0",)
    return Result(f"run{rank}", "finished", None, {}, "", "", phases=phases, provenance=provenance, scope=scope, **more)


OWN = (phase("idle", None, node0_gpu_0=10.0), phase("train", 1, node0_gpu_0=100.0))


def test_the_phases_of_all_nodes_are_brought_together():
    other = of_node(1, (phase("idle", None, node1_gpu_0=20.0), phase("train", 1, node1_gpu_0=300.0)))
    phases = phases_of(OWN, {1: other})
    scope = scope_of(("node0.gpu.0",), {1: other}, [])
    assert scope == ("node0.gpu.0", "node1.gpu.0")
    assert {name: one.energy_j for name, one in phases[1].channels.items()} == dict(
        zip(scope, (100.0, 300.0), strict=True)
    )
    found = metrics_of_nodes(phases, scope)
    assert (found["energy_j.node0"], found["energy_j.node1"]) == (100.0, 300.0)
    assert (found["power_idle_w.node0"], found["power_idle_w.node1"]) == (10.0, 20.0)
    assert found["energy_uncertainty_j.node1"] == pytest.approx(2 * math.hypot(0.1, 0.2))
    told = provenance_of(of_node(0, OWN).provenance, {1: other}, [{"rank": 0, "host": "a"}, {"rank": 1, "host": "b"}])
    assert [device["uuid"] for device in told["devices"]] == ["GPU-0", "GPU-1"]
    assert [(node["host"], node["system"]) for node in told["nodes"]] == [("a", "system 0"), ("b", "system 1")]


def test_of_a_lost_node_nothing_is_invented():
    scope = scope_of(("node0.gpu.0",), {}, [1])
    assert scope == ("node0.gpu.0", "node1.gpu.0")
    found = metrics_of_nodes(phases_of(OWN, {}), scope)
    assert found["energy_j.node0"] == 100.0
    assert not any("node1" in name for name in found)


def test_what_speaks_against_one_node_speaks_against_the_run():
    tags = tags_of({"quality": "ok", "energy_source": "measured"}, {1: of_node(1, (), tags={"quality": "gaps"})})
    assert tags == {"quality": "gaps", "energy_source": "measured"}
    estimated = {"quality": "gaps", "energy_source": "estimated", "tdp_source": "a guess"}
    tags = tags_of({"quality": "few_updates", "energy_source": "measured"}, {1: of_node(1, (), tags=estimated)})
    assert tags == {"quality": "few_updates,gaps", "energy_source": "estimated", "tdp_source": "a guess"}


def test_copies_of_other_nodes_are_no_runs(tmp_path):
    for folder in ("a", "a/node-1", "node-1-of-something", "a/node-12/0"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "result.json").write_text("{}")
    found = [str(path.parent.relative_to(tmp_path)) for path in result_files(tmp_path)]
    assert found == ["a", "node-1-of-something"]


def test_where_they_meet_makes_no_other_setting():
    one = {"batch": 8, "nodes": dataclasses.asdict(Nodes())}
    two = {"batch": 8, "nodes": dataclasses.asdict(Nodes(**TWO))}
    assert decisive(one) == decisive({"batch": 8})
    assert decisive(two) == {"batch": 8, "nodes": {"count": 2}}
    assert decisive(two) == decisive({"batch": 8, "nodes": {**two["nodes"], "rendezvous": "elsewhere:1"}})


@pytest.mark.usefixtures("fakes")
def test_one_node_is_as_it_was():
    assert planned().experiment.nodes == Nodes()
