"""Events on a real pipe."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from energybench.run.events import Event, EventWriter
from energybench.run.workers import Worker


@pytest.fixture
def pipe():
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for descriptor in (read_end, write_end):
        try:
            os.close(descriptor)
        except OSError:
            continue


def receive(read_end):
    return Worker(0, None, read_end, Path("unused"))


def test_what_is_emitted_arrives(pipe):
    read_end, write_end = pipe
    before = time.monotonic_ns()
    writer = EventWriter(write_end)
    writer.emit("started", "train", 3)
    writer.emit("ended", "train", 3, {"images": 64.0, "loss": float("nan"), "accuracy_top1": float("inf")})
    writer.emit("failed", text={"kind": "crashed", "message": "zwölf\nZeilen", "count": 3})
    started, ended, failed = receive(read_end).receive()
    assert (started.kind, started.phase, started.epoch) == ("started", "train", 3)
    assert before <= started.time_ns <= ended.time_ns <= time.monotonic_ns()
    assert ended.values == {"images": 64.0}  # what is not finite does not exist
    assert failed.text == {"kind": "crashed", "message": "zwölf\nZeilen", "count": "3"}


def test_an_event_longer_than_the_pipe_arrives_whole(pipe):
    read_end, write_end = pipe
    message = "x" * 300_000
    writing = threading.Thread(
        target=EventWriter(write_end).emit, args=("failed",), kwargs={"text": {"message": message}}
    )
    writing.start()
    worker, events = receive(read_end), []
    while not events:
        events = worker.receive()
    writing.join()
    assert events[0].text["message"] == message


def test_a_torn_line_is_no_event(pipe):
    read_end, write_end = pipe
    EventWriter(write_end).emit("started", "load")
    os.write(write_end, b'{"kind": "ended", "time_')
    os.close(write_end)
    worker = receive(read_end)
    assert [event.kind for event in worker.receive()] == ["started"]
    assert not worker.ended
    assert worker.receive() == []
    assert worker.ended


@pytest.mark.parametrize(
    "line",
    [b"", b"hello", b"[]", b"3", b"{}", b'{"kind": "exploded", "time_ns": 1}', b'{"kind": "done"}',
     b'{"kind": "done", "time_ns": 1, "colour": "red"}', b"\xff"],
)  # fmt: skip
def test_what_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError):
        Event.from_line(line)


def test_from_line():
    assert Event.from_line(b'{"kind": "done", "time_ns": 7}') == Event("done", 7)
