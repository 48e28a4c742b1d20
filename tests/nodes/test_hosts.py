"""One training over two hosts, each with a network, a clock and cards of its own: the joules are those truly drawn."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import pytest
from hosts import ADDRESSES, AHEAD_S, Hosts, netns

from energybench.run.result import Result
from energybench.testing import Server, constant, square, volta

pytestmark = netns
PATIENCE_S = 120.0
NS = 1_000_000_000
DELAY_S = 0.03
WATTS = constant(200.0), square(100.0, 300.0, 1.7)
CARDS = ["gpu=volta", "meter=nvml", "hydra.run.dir=run"]

RELAY = """
import queue, socket, sys, threading, time
def received(source):
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""
def pass_on(source, sink, delay_s):
    waiting = queue.SimpleQueue()
    threading.Thread(target=deliver, args=(waiting, sink), daemon=True).start()
    data = b"any"
    while data:
        data = received(source)
        waiting.put((time.monotonic() + delay_s, data))
def deliver(waiting, sink):
    while True:
        due_s, data = waiting.get()
        time.sleep(max(due_s - time.monotonic(), 0.0))
        try:
            sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
here, there = socket.create_server((sys.argv[1], 29500)), (sys.argv[2], 29500)
while True:
    caller = here.accept()[0]
    while True:
        try:
            called = socket.create_connection(there)
            break
        except OSError:
            time.sleep(0.1)
    for side in (caller, called):
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=pass_on, args=(caller, called, 0.0), daemon=True).start()
    threading.Thread(target=pass_on, args=(called, caller, float(sys.argv[3])), daemon=True).start()
"""


@pytest.fixture
def hosts(fakes, tmp_path):
    made = Hosts(tmp_path)
    yield made
    made.close()


def said(process):
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    return process.returncode, out + err


@pytest.fixture
def cards(tmp_path):
    """A card on each host, whose counter runs by its clock: (environment, what it truly draws by host 0's clock)."""
    found = []
    for number, curve in enumerate(WATTS):
        folder = tmp_path / f"cards{number}"
        folder.mkdir()
        server = Server((volta(curve, uuid=f"GPU-0000000{number}-fa4e-0000-0000-000000000000"),))
        running = server.start(folder)
        running.path.write_text(server.scenario(running.start_ns + number * AHEAD_S * NS), encoding="utf-8")
        found.append((running.environment(), next(iter(running.truths.values()))))
    return found


def trained(result):
    return [phase for phase in result.phases if phase.name == "train"]


def assert_true(result, cards):
    """Every joule and its error, per node and in all."""
    sums = []
    for number, (_, truth) in enumerate(cards):
        channel = f"node{number}.gpu.0"
        true_j = [truth.energy_j(phase.start_ns, phase.end_ns) for phase in trained(result)]
        for phase, expected_j in zip(trained(result), true_j, strict=True):
            found = phase.channels[channel]
            assert found.coverage == 1
            assert abs(found.energy_j - expected_j) <= 3 * found.independent_u_j + 0.01 * expected_j
        assert result.metrics[f"energy_j.node{number}"] == pytest.approx(sum(true_j), rel=0.02)
        assert result.metrics[f"energy_j.{channel}"] == result.metrics[f"energy_j.node{number}"]
        sums.append(result.metrics[f"energy_j.node{number}"])
    assert result.metrics["energy_j"] == pytest.approx(sum(sums))
    return result.provenance["nodes"][1]


def test_the_joules_of_two_hosts_by_two_clocks(hosts, cards, tmp_path):
    """The second host's card draws more and less by turns, so that a wrong clock would show."""
    words = [*CARDS, "budget.epochs=3", "engine.step_s=0.15", "measure.baseline_s=1", "measure.baseline_max_s=1"]
    words += ["tracking=mlflow", "engine.slower_by_rank_s=0.05"]
    nodes = [hosts.node(number, *words, environment=cards[number][0]) for number in (0, 1)]
    codes, out = zip(*map(said, nodes), strict=True)
    assert codes == (0, 0), out
    result = Result.read(hosts.place(0) / "run")
    clock = assert_true(result, cards)
    assert [node["host"] for node in result.provenance["nodes"]] == ["host0", "host1"]
    assert abs(clock["clock_offset_s"] - AHEAD_S) <= clock["clock_error_s"] < 0.005
    assert result.metrics["power_idle_w.node0"] == pytest.approx(200, rel=0.02)
    assert 100 <= result.metrics["power_idle_w.node1"] <= 300
    assert result.scope == ("node0.gpu.0", "node1.gpu.0")
    assert {device["uuid"][:12] for device in result.provenance["devices"]} == {"GPU-00000000", "GPU-00000001"}
    # The slower worker, on the second host, ends the phase.
    assert all(phase.time_s >= 8 * 0.2 for phase in trained(result))
    assert Result.read(hosts.place(1) / "run" / "node-1") == replace(result, tracking=result.tracking)
    assert (hosts.place(0) / "mlflow.db").exists()
    assert not (hosts.place(1) / "mlflow.db").exists()
    for place in (hosts.place(0) / "run", hosts.place(1) / "run" / "node-1"):
        assert {"power.parquet", "events.jsonl"} <= {path.name for path in place.iterdir()}
    assert "node 1: lenet batch=8" in out[1]


def test_a_network_that_is_slow_one_way_is_told_by_the_error(hosts, cards):
    relay = [sys.executable, "-c", RELAY, ADDRESSES[1], ADDRESSES[0], str(DELAY_S)]
    hosts.start(1, relay)
    words = [*CARDS, "budget.epochs=2", "engine.step_s=0.1"]
    first = hosts.node(0, *words, environment=cards[0][0])
    second = hosts.node(1, *words, f"nodes.rendezvous={ADDRESSES[1]}:29500", environment=cards[1][0])
    assert (said(first)[0], said(second)[0]) == (0, 0)
    result = Result.read(hosts.place(0) / "run")
    clock = assert_true(result, cards)
    wrong_s = abs(clock["clock_offset_s"] - AHEAD_S)
    assert clock["round_trip_s"] > DELAY_S
    assert wrong_s == pytest.approx(DELAY_S / 2, rel=0.2)
    assert wrong_s <= clock["clock_error_s"] < 1.5 * DELAY_S
    # 100 to 300 W at two edges, within the error each: the energy's own uncertainty knows of it.
    for phase in trained(result):
        assert phase.channels["node1.gpu.0"].independent_u_j > 100 * clock["clock_error_s"] / 3**0.5
        assert phase.channels["node0.gpu.0"].independent_u_j > 200 * clock["clock_error_s"] / 3**0.5


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch: pip install 'energybench[torch]'")
def test_torchrun_brings_two_hosts_together_and_they_train_as_one(hosts, tmp_path):
    """torchrun's c10d rendezvous; two processes on two hosts make the run of two on one."""
    words = ["model=lenet", "dataset=digits", "gpu=cpu", "engine=torch", "meter=tdp", "batch=64", "budget.epochs=1"]
    words += ["tracking=none", "measure.warmup_steps=1", "hydra.run.dir=run"]
    alone = hosts.start(0, [sys.executable, "-m", "energybench", *words, "gpu.count=2", "hydra.run.dir=alone"])
    assert said(alone)[0] == 0
    nodes = []
    for number in (0, 1):
        launch = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
        launch += ["--rdzv-endpoint=host0:29400"]
        command = [sys.executable, *launch, "-m", "energybench", *words, "nodes=torchrun"]
        nodes.append(hosts.start(number, command, {"OMP_NUM_THREADS": "1"}))  # sums in the same order
    out = [said(node) for node in nodes]
    assert [code for code, _ in out] == [0, 0], out
    # Which of them is the first, torchrun has decided.
    (first,) = [path for number in (0, 1) for path in (hosts.place(number) / "run").glob("result.json")]
    together, expected = Result.read(first), Result.read(hosts.place(0) / "alone")
    assert together.provenance["engine"]["processes"] == "2"
    for found, wanted in zip(together.epochs, expected.epochs, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert found["accuracy_top1"] == wanted["accuracy_top1"]
    watts = sum(together.metrics[f"power_mean_w.node{number}"] for number in (0, 1))
    assert together.metrics["energy_j"] == pytest.approx(watts * together.metrics["time_s"], rel=0.01)
    lines = [line for path in hosts.folder.rglob("run/**/events.jsonl") for line in path.read_text().splitlines()]
    assert {json.loads(line)["rank"] for line in lines} == {0, 1}
