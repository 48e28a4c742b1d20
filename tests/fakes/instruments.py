"""Instruments that are not there: they stream a known power over TCP, a pseudo-terminal or into a file."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from dataclasses import dataclass, field

S = 1_000_000_000


@dataclass
class Stream:
    """Lines "stamp,power" every `every_s`, from a clock that may be off, with delays that vary.

    `power(time_ns)` is the truth, watts; `line(stamp_ns, watts)` the text. `clock(time_ns)` is the instrument's time.
    `delays_s` is the range that a line's delay is drawn from. `garble(number)` gives a line in place of the right one.
    """

    power: object = lambda time_ns: 100.0
    every_s: float = 0.02
    clock: object = lambda time_ns: time_ns
    line: object = lambda stamp_ns, watts: f"{stamp_ns},{watts:.6f}"
    header: str = ""
    delays_s: tuple = (0.0, 0.0)
    garble: object = lambda number: None
    until: object = lambda number: False
    seed: int = 1
    sent: int = field(default=0, init=False)

    def play(self, send, stop):
        """Sends until `stop` is set or `until` says so; when two lines are due at once they come at once."""
        jitter = random.Random(self.seed)
        if self.header:
            send(self.header + "\n")
        due_ns = time.monotonic_ns()
        while not stop.is_set() and not self.until(self.sent):
            due_ns += round(self.every_s * S)
            stop.wait(max(0.0, (due_ns - time.monotonic_ns()) / S))
            taken_ns = time.monotonic_ns()
            text = self.garble(self.sent) or self.line(round(self.clock(taken_ns)), self.power(taken_ns))
            stop.wait(jitter.uniform(*self.delays_s) if self.delays_s[1] else 0.0)
            send(text + "\n")
            self.sent += 1


class Instrument:
    """Plays a stream in a thread; a context manager with a `url`."""

    def __init__(self, stream):
        self.stream = stream
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join(10)
        self.end()

    def end(self):
        pass


class OverTcp(Instrument):
    """Serves one client after another, `connections` of them."""

    def __init__(self, stream, connections=99, greeting=b""):
        super().__init__(stream)
        self.left, self.greeting = connections, greeting
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.1)
        self.url = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"

    def run(self):
        while not self.stop.is_set() and self.left:
            try:
                client, _ = self.server.accept()
            except TimeoutError:
                continue
            self.left -= 1
            with client:
                try:
                    if self.greeting:
                        assert client.recv(64) == self.greeting
                    self.stream.play(lambda text, client=client: client.sendall(text.encode()), self.stop)
                except OSError:
                    pass
        self.server.close()

    def end(self):
        self.server.close()


class OverSerial(Instrument):
    """A pseudo-terminal: what pyserial opens is its other end."""

    def __init__(self, stream):
        super().__init__(stream)
        self.ours, self.theirs = os.openpty()
        self.url = f"serial://{os.ttyname(self.theirs)}?baud=115200"

    def run(self):
        self.stream.play(self.send, self.stop)

    def send(self, text):
        if select.select([], [self.ours], [], 0.1)[1]:  # nobody reads: a real port drops it too
            os.write(self.ours, text.encode())

    def end(self):
        os.close(self.ours)
        os.close(self.theirs)


class IntoFile(Instrument):
    """A logger's file that grows."""

    def __init__(self, stream, path):
        super().__init__(stream)
        self.path = path
        self.url = str(path)
        path.touch()

    def run(self):
        self.stream.play(self.send, self.stop)

    def send(self, text):
        with self.path.open("a") as file:
            file.write(text)
