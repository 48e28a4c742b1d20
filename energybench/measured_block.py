"""`energybench.measure`: the energy of a block, of windows in it, or of each call of a function, in this process."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from energybench.config import make
from energybench.config import meter as fitted_meter
from energybench.devices import GPU, Device, cpu_device, unique
from energybench.errors import ConfigError, MeterError, WindowError
from energybench.experiment import AUTO, Part
from energybench.measurement import TOTAL, Measurement
from energybench.power import identity
from energybench.power.lock import BusyError, Lock
from energybench.power.meter import Session
from energybench.power.quality import flags
from energybench.power.sampler import Sampler, settling_s
from energybench.power.timeline import Timeline
from energybench.power.trace import write_trace
from energybench.registry import Registry
from energybench.run.metrics import COVERAGE_FACTOR, in_scope, total
from energybench.run.preflight import Machine, NamedMeter, choose_meters
from energybench.run.result import Phase

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 1.0
"""How long reading a window of an open block waits for the sensors to tell its end."""


@dataclass
class _Window:
    start_ns: int
    end_ns: int | None = None
    complete: bool = True


class measure:  # noqa: N801  a context manager, named as one reads it: `with energybench.measure() as m`
    """Measures a block, windows inside it, or each call of a function.

    Args:
        meter: "auto", a meter's name, or a mapping of "name" and the meter's options.
        gpus: "auto": those that this process sees (CUDA_VISIBLE_DEVICES), the CPU where there are none. Else indices as
            the framework numbers them, UUIDs or PCI addresses; "none" or an empty list: the CPU.
        on_result: called with the measurement of the whole block, or of each call, when it has ended.

    Raises:
        EnergybenchError: on entering: no such meter or card, or none reads the devices; in one line.
    """

    def __init__(
        self,
        meter: str | Mapping[str, Any] = AUTO,
        gpus: object = AUTO,
        *,
        on_result: Callable[[Measurement], object] | None = None,
    ) -> None:
        if callable(meter):
            raise ConfigError("measure: call it first: @energybench.measure()")
        self._meter = _named(meter)
        self._gpus = gpus
        self._on_result = on_result
        self._name = TOTAL
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}
        self._block: _Window | None = None
        self._pid = os.getpid()
        self._meters: Sequence[NamedMeter] = ()
        self._sessions: list[Session] = []
        self._samplers: list[Sampler] = []
        self._locks: list[Lock] = []
        self._shared: set[str] = set()
        self._scope = ""
        self._waits: list[Callable[[], None]] = []
        self._release: weakref.finalize[Any, Any] | None = None
        self._lines: dict[str, Timeline] | None = None

    def __enter__(self) -> measure:
        if self._block is not None:
            raise WindowError("measure: this block was used before; make another with energybench.measure()")
        self._pid = os.getpid()
        registry = Registry()
        devices = self._devices(registry)
        self._scope = devices[0].kind
        self._meters = choose_meters(fitted_meter(dict(self._meter), registry), devices, registry)
        self._waits = [make(registry, "synchronizer", Part(name)) for name in _in_order(registry)]
        with ExitStack() as stack:
            for named in self._meters:
                self._open(named, unique(devices), stack)
            self._take_locks(unique(devices), stack)
            self._release = weakref.finalize(self, _stop, self._samplers, self._locks, self._pid)
            self._synchronize()
            self._block = _Window(time.monotonic_ns())
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid or self._block is None:
            return  # a fork: the parent's thread and driver are not ours to end
        try:
            self._end(self._block, error)
        finally:
            if self._release is not None:
                self._release()
        if self._on_result is not None:
            self._on_result(self.total)

    def __call__(self, function: Callable[..., Any]) -> Any:
        """The function, measured at each call; its `measurements` lists them."""
        _refuse(function)
        measurements: list[Measurement] = []

        def done(result: Measurement) -> None:
            measurements.append(result)
            if self._on_result is not None:
                self._on_result(result)

        def fresh() -> measure:
            one = measure(self._meter, self._gpus, on_result=done)
            one._name = getattr(function, "__qualname__", repr(function))
            return one

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with fresh():
                return function(*arguments, **named)

        @functools.wraps(function)
        async def await_(*arguments: Any, **named: Any) -> Any:
            with fresh():
                return await function(*arguments, **named)

        measured: Any = await_ if inspect.iscoroutinefunction(function) else call
        measured.measurements = measurements
        return measured

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """A window of the block. Windows nest and overlap, also from several threads.

        Raises:
            WindowError: a second of this name, or the block is not open.
        """
        window = self._begin(name)
        try:
            yield
        except BaseException as error:
            self._end(window, error)
            raise
        self._end(window, None)

    def __getitem__(self, name: str) -> Measurement:
        """The window `name`, once it has ended; in an open block this waits until the sensors have told its end.

        Raises:
            WindowError: there is none of this name, or it is open.
        """
        self._refuse_fork()
        window = self._windows.get(name)
        if window is None:
            raise WindowError(f"window {name!r}: there is none; there is: {', '.join(self._windows) or 'none'}")
        return self._measured(name, window)

    @property
    def windows(self) -> tuple[str, ...]:
        """Names of the windows, in the order in which they were opened."""
        return tuple(self._windows)

    @property
    def total(self) -> Measurement:
        """The whole block; raises WindowError before it has ended."""
        self._refuse_fork()
        if self._block is None:
            raise WindowError("total: the block has not begun; write `with energybench.measure() as m:`")
        return self._measured(self._name, self._block)

    def write_trace(self, path: str | Path) -> None:
        """Writes every reading as power.parquet holds them."""
        channels = [channel for session in self._sessions for channel in session.channels]
        columns = {key: one for sampler in self._samplers for key, one in sampler.columns().items()}
        write_trace(Path(path), columns, channels)

    def _devices(self, registry: Registry) -> list[Device]:
        return identity.selected(self._gpus, Machine(registry).installed, os.environ) or [cpu_device()]

    def _open(self, named: NamedMeter, boards: Sequence[Device], stack: ExitStack) -> None:
        covered = [board for board in boards if named.meter.covers(board)] or [cpu_device()]
        session = named.open(covered)
        sampler = Sampler(session)  # closes the session when it stops
        stack.callback(sampler.stop)
        sampler.start()
        self._sessions.append(session)
        self._samplers.append(sampler)

    def _take_locks(self, boards: Sequence[Device], stack: ExitStack) -> None:
        """Other measured work on the same card is told, not refused: the user's program is not ours to stop."""
        for board in boards:
            if board.kind != GPU:
                continue
            try:
                lock = Lock(board.uuid, self._name)
            except BusyError:
                self._shared.add("shared_card")
            except MeterError as error:
                log.debug("no lock: %s", error)
            else:
                stack.callback(lock.release)
                self._locks.append(lock)

    def _begin(self, name: str) -> _Window:
        self._refuse_fork()
        if self._block is None or self._block.end_ns is not None:
            raise WindowError(f"window {name!r}: the block is not open")
        window = _Window(0)
        with self._lock:
            if name in self._windows:
                raise WindowError(f"window {name!r}: there is one already; give each its own name, as f'epoch-{{n}}'")
            self._windows[name] = window
        self._synchronize()
        window.start_ns = time.monotonic_ns()
        return window

    def _end(self, window: _Window, error: BaseException | None) -> None:
        """After an interrupt nothing is waited for, and no error of the work hides the one that is on its way."""
        if os.getpid() != self._pid:
            return
        window.complete = error is None
        try:
            if error is None:
                self._synchronize()
            elif isinstance(error, Exception):
                self._synchronize_quietly()
        finally:
            if self._block is window or self._block is None or self._block.end_ns is None:
                window.end_ns = time.monotonic_ns()

    def _synchronize(self) -> None:
        for wait in self._waits:
            wait()

    def _synchronize_quietly(self) -> None:
        try:
            self._synchronize()
        except Exception:
            log.debug("the devices could not be waited for after an error", exc_info=True)

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise WindowError("measure: this process is a fork of the one that measures; read and open windows there")

    def _measured(self, name: str, window: _Window) -> Measurement:
        if window.end_ns is None:
            raise WindowError(f"{name}: has not ended; read it behind its `with`")
        lines = self._timelines(window.end_ns)
        channels = {channel: line.energy(window.start_ns, window.end_ns) for channel, line in lines.items()}
        phase = Phase(name, None, window.start_ns, window.end_ns, window.complete, channels, {})
        declared = [channel for session in self._sessions for channel in session.channels]
        scope = in_scope({channel.name: channel.kind for channel in declared}, self._scope)
        energy = total([phase], scope)
        known = energy.energy_j is not None
        return Measurement(
            name=name,
            energy_j=energy.energy_j,
            uncertainty_j=energy.expanded_u_j if known else None,
            independent_uncertainty_j=COVERAGE_FACTOR * energy.independent_u_j if known else None,
            time_s=phase.time_s,
            power_mean_w=energy.mean_w,
            scope=self._scope,
            meter=self._meters[0].name,
            estimated=any(channel.estimated for channel in declared if channel.name in scope),
            complete=window.complete,
            quality=tuple(sorted({*flags(channels[channel] for channel in scope), *self._shared})),
            channels=channels,
            provenance={
                "channels": [{**asdict(channel), "contains": list(channel.contains)} for channel in declared],
                "start_ns": window.start_ns,
                "end_ns": window.end_ns,
                "process": self._pid,
            },
        )

    def _timelines(self, end_ns: int) -> dict[str, Timeline]:
        """Of all readings; in an open block of those so far, once the sensors have had the time to tell `end_ns`."""
        if self._lines is not None:
            return self._lines
        ended = self._block is not None and self._block.end_ns is not None
        if not ended:
            _wait_until(end_ns + round(1e9 * min(LONGEST_WAIT_S, _told_after_s(self._sessions))))
        lines = {}
        for session, sampler in zip(self._sessions, self._samplers, strict=True):
            columns = sampler.columns()
            for channel in session.channels:
                lines[channel.name] = Timeline(channel, session.sources, columns)
        if ended:
            self._lines = lines
        return lines


def _stop(samplers: Sequence[Sampler], locks: Sequence[Lock], pid: int) -> None:
    if os.getpid() == pid:
        for sampler in reversed(samplers):
            sampler.stop()
        for lock in locks:
            lock.release()


def _named(meter: str | Mapping[str, Any]) -> Mapping[str, Any]:
    given: Mapping[str, Any] = {"name": meter} if isinstance(meter, str) else meter
    if not (isinstance(given, Mapping) and isinstance(given.get("name"), str)):
        raise ConfigError(f"measure: meter={meter!r}: give auto, a meter's name, or {{'name': ..., its options}}")
    return given


def _in_order(registry: Registry) -> list[str]:
    """As they were registered: a framework's own before the driver's."""
    return [entry.name for entry in registry.registered("synchronizer")]


def _refuse(function: object) -> None:
    if isinstance(function, staticmethod | classmethod):
        raise ConfigError("measure: put @energybench.measure() below @staticmethod or @classmethod")
    if inspect.isclass(function) or not callable(function):
        raise ConfigError(f"measure: {function!r} is no function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"measure: {getattr(function, '__name__', function)} is a generator, which runs while others do; "
            "use `with energybench.measure()`"
        )


def _told_after_s(sessions: Sequence[Session]) -> float:
    sources = [source for session in sessions for source in session.sources]
    return max((source.period_s for source in sources), default=0.0) + settling_s(sources)


def _wait_until(time_ns: int) -> None:
    time.sleep(max(0, time_ns - time.monotonic_ns()) / 1e9)
