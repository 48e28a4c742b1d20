"""Nodes of one training that die, fall silent, never come, or differ: the others end, and say which of them it was."""

from __future__ import annotations

import json
import socket
import time

import pytest
from conftest import PATIENCE_S, SIGKILL, SIGTERM, files, until, worker_of
from hosts import Hosts, netns, supervisor

from energybench.run.result import Result
from energybench.run.workers import GRACE_S

MINE = "hydra.run.dir=mine"
LONG = [MINE, "budget.epochs=500"]
LOST_AFTER_S = 3.0
ENDED_S = 2 * GRACE_S + 5.0
"""What ending workers, telling each other and writing may take, on a machine that is busy."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.fixture
def nodes(start, tmp_path):
    """Starts the nodes of a run on this machine, in one folder as on a disk that they share."""
    port = free_port()

    def go(*words, ranks=(0, 1), of=None, **options):
        started = []
        for rank in ranks:
            locks = tmp_path / f"locks{rank}"
            locks.mkdir(exist_ok=True)
            here = ["nodes.count=2", f"nodes.rank={rank}", f"nodes.rendezvous=127.0.0.1:{port}"]
            environment = {"ENERGYBENCH_LOCKS": str(locks)}
            started.append(start(*here, *words, *(of or {}).get(rank, ()), environment=environment, **options))
        return started

    go.port = port
    return go


def ends(process, within_s=PATIENCE_S):
    """(exit code, what it said), no later than that."""
    begun = time.monotonic()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    assert time.monotonic() - begun < within_s
    return process.returncode, out + err


def training(folder, *ranks):
    """Waits until these nodes have ended an epoch."""
    for rank in ranks:
        events = folder / "mine" / (f"node-{rank}" if rank else "") / "events.jsonl"
        until(lambda path=events: path.exists() and path.read_text().count('"train"') > 1)


def partial(folder):
    """The first node's result: the joules of its own card, and none that stands for all."""
    result = Result.read(folder / "mine")
    assert result.status == "failed"
    trained = [phase for phase in result.phases if phase.name == "train"]
    assert result.metrics["energy_j.node0"] == pytest.approx(sum(100.0 * p.time_s for p in trained), rel=0.05)
    return result


def anew(nodes):
    """The same command, given again, but that it trains less."""
    assert [ends(one)[0] for one in nodes(MINE, "budget.epochs=1")] == [0, 0]


ANEW = "runs anew; with checkpoint.resume=auto from the last checkpoint"


def test_a_supervisor_is_killed(nodes, tmp_path, row):
    first, second = nodes(*LONG)
    training(tmp_path, 0, 1)
    second.send_signal(SIGKILL)
    assert ends(first, ENDED_S)[0] == 1
    result = partial(tmp_path)
    assert result.failure.kind == "lost"
    assert "energy_j" not in result.metrics
    assert result.scope == ("node0.gpu.2", "node1.gpu.2")
    kept = files(tmp_path / "mine")
    anew(nodes)
    row(
        "supervisor of another node killed (SIGKILL)",
        result.failure.message,
        f"{kept}; the energy of the nodes that are left",
        ANEW,
    )


def test_the_first_supervisor_is_killed(nodes, tmp_path, row):
    first, second = nodes(*LONG)
    training(tmp_path, 0, 1)
    first.send_signal(SIGKILL)
    assert ends(second, ENDED_S)[0] == 1
    result = Result.read(tmp_path / "mine" / "node-1")
    assert result.failure.kind == "lost"
    assert result.metrics["energy_j.node1.gpu.2"] > 0
    kept = files(tmp_path / "mine" / "node-1")
    anew(nodes)
    row(
        "supervisor of node 0 killed (SIGKILL)",
        result.failure.message,
        f"on each other node, in node-1, ...: {kept}; its own energy",
        ANEW,
    )


def test_a_worker_on_another_node_is_killed(nodes, tmp_path, row):
    first, second = nodes(*LONG)
    training(tmp_path, 0, 1)
    worker_of(second).send_signal(SIGKILL)
    codes = [ends(first, ENDED_S)[0], ends(second, ENDED_S)[0]]
    assert codes == [1, 1]
    result = partial(tmp_path)
    assert result.failure.kind == "killed"
    assert result.metrics["energy_j"] == pytest.approx(
        result.metrics["energy_j.node0"] + result.metrics["energy_j.node1"]
    )
    assert Result.read(tmp_path / "mine" / "node-1") == result
    kept = files(tmp_path / "mine")
    row(
        "worker on another node killed (SIGKILL)",
        result.failure.message,
        f"{kept}; the energy of all nodes until then",
        ANEW,
    )


def test_one_node_is_told_to_end_and_the_command_goes_on(nodes, tmp_path, row):
    words = [MINE, "budget.epochs=2", "checkpoint.resume=auto", "dataset.images=800"]
    first, second = nodes(*words)
    training(tmp_path, 0, 1)
    second.send_signal(SIGTERM)
    assert [ends(one, ENDED_S)[0] for one in (first, second)] == [130, 130]
    stopped = Result.read(tmp_path / "mine")
    kept = files(tmp_path / "mine")
    assert stopped.status == "interrupted"
    codes = [ends(one)[0] for one in nodes(*words)]
    assert codes == [0, 0]
    result = Result.read(tmp_path / "mine")
    assert result.metrics["attempts"] == 2
    # The stand-in's workers do not wait for each other: what counts is what the first of them did.
    told = [tmp_path / "mine" / "attempt-1" / "events.jsonl", tmp_path / "mine" / "events.jsonl"]
    events = [json.loads(line) for path in told for line in path.read_text().splitlines()]
    assert sum(event["values"].get("steps", 0) for event in events if event["kind"] == "ended") == 2 * 100
    own = [phase.channels for phase in result.phases if phase.name == "train"]
    for node in ("node0", "node1"):
        own_j = sum(channels[f"{node}.gpu.2"].energy_j for channels in own)
        assert result.metrics[f"energy_j.{node}"] == pytest.approx(stopped.metrics[f"energy_j.{node}"] + own_j)
    assert result.metrics["energy_j"] == pytest.approx(
        result.metrics["energy_j.node0"] + result.metrics["energy_j.node1"]
    )
    row(
        "SIGTERM on one of several nodes",
        stopped.failure.message,
        f"{kept}; status interrupted, the energy of all nodes until then",
        "with the next step; the joules of both attempts are added up; the run's folder must be one that all nodes see",
    )


def test_a_node_never_comes(nodes, tmp_path, row):
    (first,) = nodes(*LONG, "nodes.join_timeout_s=3", ranks=(0,))
    assert ends(first)[0] == 1
    result = Result.read(tmp_path / "mine")
    assert result.failure.kind == "rendezvous"
    told = result.failure.message.replace(f":{nodes.port}", ":PORT")
    row("a node never comes", told, files(tmp_path / "mine"), "runs, when all nodes are there")


def test_the_first_node_is_not_there(nodes, tmp_path, row):
    (second,) = nodes(*LONG, "nodes.join_timeout_s=3", ranks=(1,))
    assert ends(second)[0] == 1
    result = Result.read(tmp_path / "mine" / "node-1")
    told = result.failure.message.replace(f":{nodes.port}", ":PORT")
    row(
        "node 0 is not there, or not at that port",
        told,
        files(tmp_path / "mine" / "node-1"),
        "runs, when all nodes are there",
    )


def test_nodes_that_are_asked_for_different_runs(nodes, tmp_path, row):
    first, second = nodes(*LONG, of={1: ["batch=16", "training.lr=0.5"]})
    assert [ends(one, 30.0)[0] for one in (first, second)] == [1, 1]
    results = [Result.read(tmp_path / "mine"), Result.read(tmp_path / "mine" / "node-1")]
    assert results[0].failure == results[1].failure
    row(
        "nodes are asked for different runs",
        results[0].failure.message,
        files(tmp_path / "mine"),
        "runs, when the commands are the same",
    )


def test_the_port_is_in_use(nodes, tmp_path, row):
    with socket.create_server(("", nodes.port)):
        (first,) = nodes(*LONG, ranks=(0,))
        assert ends(first, 30.0)[0] == 1
    told = Result.read(tmp_path / "mine").failure.message.replace(str(nodes.port), "PORT")
    row("the port of the rendezvous is in use", told, files(tmp_path / "mine"), "runs, with another port")


def test_strangers_at_the_door_are_sent_away(nodes, tmp_path):
    (first,) = nodes(MINE, "budget.epochs=2", ranks=(0,))
    until(lambda: _says(nodes.port, b"GET / HTTP/1.1\r\n\r\n"))
    for words in (
        b'{"kind": "hello"}\n',
        b'{"kind": "hello", "rank": 1, "host": "x", "facts": []}\n',
        b"\xff" * 4000,
        b"",
    ):
        assert _says(nodes.port, words)
    silent = socket.create_connection(("127.0.0.1", nodes.port))
    (second,) = nodes(MINE, "budget.epochs=2", ranks=(1,))
    assert [ends(one)[0] for one in (first, second)] == [0, 0]
    silent.close()


def _says(port, words):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(100) == b""
    except ConnectionResetError:
        return True
    except OSError:
        return False


def test_something_else_answers_at_that_port(nodes, tmp_path):
    with socket.create_server(("", nodes.port)) as server:
        (second,) = nodes(*LONG, ranks=(1,))
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            assert ends(second, 30.0)[0] == 1
    assert "what answers there is no energybench" in Result.read(tmp_path / "mine" / "node-1").failure.message


def test_two_nodes_of_one_number(nodes, tmp_path):
    """The later of them is sent away; the others wait on, until they are told to end."""
    words = ["nodes.count=3", "batch=9"]
    first, *both = nodes(MINE, *words) + nodes("hydra.run.dir=other", *words, ranks=(1,))
    (later,) = until(lambda: [process for process in both if process.poll() is not None])
    code, out = ends(later)
    assert code == 1
    assert "node 1 is there already" in out
    first.send_signal(SIGTERM)
    assert [ends(one, ENDED_S)[0] for one in (first, *both) if one is not later] == [130, 130]


def test_a_sweep_meets_for_each_of_its_cells(nodes, tmp_path):
    words = ["hydra.sweep.dir=mine", "batch=8,16", "budget.epochs=1", "-m"]
    assert [ends(one)[0] for one in nodes(*words)] == [0, 0]
    cells = [Result.read(tmp_path / "mine" / str(number)) for number in (0, 1)]
    copies = [Result.read(tmp_path / "mine" / "node-1" / str(number)) for number in (0, 1)]
    assert [cell.config["batch"] for cell in cells] == [8, 16]
    assert [cell.run_id for cell in cells] == [copy.run_id for copy in copies]
    again = [ends(one) for one in nodes(*words)]
    assert [code for code, _ in again] == [0, 0]
    assert "2 of 2 cells are done" in again[0][1]


@pytest.mark.netns
@netns[1]
@pytest.mark.usefixtures("fakes")
def test_the_network_fails(tmp_path, row):
    """No connection is closed: nothing comes any more, in neither direction."""
    hosts = Hosts(tmp_path)
    try:
        both = [hosts.node(rank, *LONG, f"nodes.lost_after_s={LOST_AFTER_S}") for rank in (0, 1)]
        for rank in (0, 1):
            training(hosts.place(rank), rank)
        assert supervisor(both[1]) is not None
        hosts.unplug()
        assert [ends(one, LOST_AFTER_S + ENDED_S)[0] for one in both] == [1, 1]
        results = [Result.read(hosts.place(0) / "mine"), Result.read(hosts.place(1) / "mine" / "node-1")]
        assert "node 1 (host1) was lost" in results[0].failure.message
        assert "node 0 (host0) was lost" in results[1].failure.message
        assert all(result.failure.kind == "lost" for result in results)
        kept = files(hosts.place(0) / "mine")
        row(
            "the network between nodes fails", results[0].failure.message, f"on each node: {kept}; its own energy", ANEW
        )
    finally:
        hosts.close()
