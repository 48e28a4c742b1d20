"""The ways to an instrument: a serial port, a TCP connection, a file that grows."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from energybench.errors import ConfigError, MeterError

WAIT_S = 0.1
"""Longest time that a link waits for bytes, so that it can be ended."""

CONNECT_S = 5.0
POLL_S = 0.02
CHUNK = 65536
TAIL = 1 << 20
"""Of a file that has grown for long, only so many bytes can matter."""


class Link(Protocol):
    """One way to an instrument. It can be opened again when it broke."""

    joins_late: bool
    """Whether the first bytes may be the rest of a line that began before."""

    def open(self) -> None:
        """Connects; raises OSError, or MeterError where trying again is of no use."""

    def receive(self) -> bytes:
        """What came, after a short wait perhaps nothing; raises OSError when the link is broken."""

    def send(self, data: bytes) -> None:
        """Sends; raises OSError."""

    def close(self) -> None:
        """Disconnects; a second call does nothing."""


class TcpLink:
    """A stream from another machine."""

    joins_late = True

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connects; raises OSError."""
        self._socket = socket.create_connection(self._address, CONNECT_S)
        self._socket.settimeout(WAIT_S)

    def receive(self) -> bytes:
        """What came; raises OSError when the other end is gone."""
        if self._socket is None:
            raise ConnectionError("not connected")
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionError("the other end closed the connection")
        return data

    def send(self, data: bytes) -> None:
        """Sends; raises OSError."""
        if self._socket is not None:
            self._socket.sendall(data)

    def close(self) -> None:
        """Disconnects."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class SerialLink:
    """A serial port, by pyserial."""

    joins_late = True

    def __init__(self, port: str, settings: Mapping[str, Any]) -> None:
        self._port = port
        self._settings = dict(settings)
        self._serial: Any = None

    def open(self) -> None:
        """Opens the port; raises OSError, or MeterError where pyserial is missing or refuses a setting."""
        try:
            import serial
        except ImportError as error:
            raise MeterError(
                f"a serial port needs pyserial ({error}); pip install 'energybench[instrument]'"
            ) from error
        try:
            self._serial = serial.Serial(self._port, timeout=WAIT_S, exclusive=True, **self._settings)
        except ValueError as error:
            raise MeterError(f"{self._port}: {error}; see the instrument's manual") from error

    def receive(self) -> bytes:
        """What came; raises OSError when the port is gone."""
        return bytes(self._serial.read(max(1, self._serial.in_waiting)))

    def send(self, data: bytes) -> None:
        """Sends; raises OSError."""
        self._serial.write(data)

    def close(self) -> None:
        """Closes the port."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None


class FileLink:
    """A file that another program writes.

    Args:
        path: the file.
        from_end: what is already in it is of no use.
        header: whether its first line that is no comment names the columns, and is wanted wherever reading begins.
        comment: what a comment begins with.
    """

    joins_late = False

    def __init__(self, path: Path, *, from_end: bool, header: bool, comment: str) -> None:
        self._path = path
        self._from_end = from_end
        self._header = header
        self._comment = comment.encode()
        self._file: BinaryIO | None = None
        self._head = b""

    def open(self) -> None:
        """Opens the file; one that was replaced is read from its beginning. Raises OSError."""
        self._file = self._path.open("rb")
        size = self._path.stat().st_size
        behind = size if self._from_end else max(0, size - TAIL)
        self._from_end = False
        if behind:
            self._head = self._first_line() if self._header else b""
            self._file.seek(max(self._file.tell(), self._line_start(behind)))

    def receive(self) -> bytes:
        """What was appended; raises OSError when the file was cut or replaced."""
        if self._file is None:
            raise OSError("not open")
        data, self._head = self._head or self._file.read(CHUNK), b""
        if not data:
            self._check()
            time.sleep(POLL_S)
        return data

    def send(self, data: bytes) -> None:
        """A file takes nothing."""

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _first_line(self) -> bytes:
        assert self._file is not None
        line = self._file.readline()
        while line.startswith(self._comment) or line.isspace():
            line = self._file.readline()
        return line

    def _line_start(self, at: int) -> int:
        """Where the line begins that the byte `at` belongs to."""
        file = self._file
        assert file is not None
        begin = max(0, at - CHUNK)
        file.seek(begin)
        return begin + file.read(at - begin).rfind(b"\n") + 1

    def _check(self) -> None:
        assert self._file is not None
        now = self._path.stat()
        if now.st_ino != os.fstat(self._file.fileno()).st_ino or now.st_size < self._file.tell():
            raise OSError("the file was cut or replaced")


def link_of(url: str, *, from_end: bool, header: bool, comment: str) -> Link:
    """The link that `url` names.

    Args:
        url: serial:///dev/ttyUSB0?baud=115200, tcp://host:port, file:///path, or a path.
        from_end: of a file, whether what is already in it is of no use.
        header: of a file, whether its first line names the columns.
        comment: of a file, what a comment begins with.

    Raises:
        ConfigError: no such scheme, or a part of it is missing.
    """
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        return _tcp(url)
    if parts.scheme == "serial":
        if not parts.path.strip("/"):
            raise ConfigError(f"meter.url={url}: name the port, as in serial:///dev/ttyUSB0?baud=115200")
        return SerialLink(unquote(parts.path), _settings(url, dict(parse_qsl(parts.query))))
    if parts.scheme != "file" and "://" in url:
        raise ConfigError(f"meter.url={url}: give serial://, tcp://, file:// or a path")
    path = unquote(parts.path) if parts.scheme == "file" else url
    return FileLink(Path(path), from_end=from_end, header=header, comment=comment)


def _tcp(url: str) -> TcpLink:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"meter.url={url}: {error}; give tcp://host:port") from error
    if not host or not port:
        raise ConfigError(f"meter.url={url}: give tcp://host:port")
    return TcpLink(host, port)


def _settings(url: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The settings of pyserial from the query of a serial URL."""
    takes: dict[str, tuple[str, Any]] = {
        "baud": ("baudrate", int),
        "bytesize": ("bytesize", int),
        "parity": ("parity", str),
        "stopbits": ("stopbits", float),
    }
    settings = {}
    for key, text in query.items():
        if key not in takes:
            raise ConfigError(f"meter.url={url}: unknown {key!r}; it takes {', '.join(takes)}")
        name, kind = takes[key]
        try:
            settings[name] = kind(text)
        except ValueError as error:
            raise ConfigError(f"meter.url={url}: {key}={text}: give a number") from error
    return {"baudrate": 115200, **settings}
