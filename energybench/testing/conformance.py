"""The tests that every meter must pass. Needs pytest.

A meter's author subclasses `MeterConformance` in a test file, and pytest runs what it inherits:

    class TestMine(MeterConformance):
        @pytest.fixture(scope="class")
        def meter(self):
            return MyMeter(MyOptions())

`truths` and `failing` are given likewise, where the author has a sensor whose truth is known or one that fails; without
them their tests are skipped, and say so.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import pytest

from energybench.devices import CPU, GPU, Device, cpu_device
from energybench.errors import MeterError
from energybench.power.meter import Channel, Meter, Reading, Session, Source
from energybench.power.sampler import Sampler
from energybench.power.timeline import Timeline
from energybench.run.result import ChannelEnergy

STRANGER = Device(kind=GPU, uuid="GPU-ffffffff-dead-beef-0000-000000000000", name="stranger", generation="none")
COVERAGE_FACTOR = 3.0
"""A deviation of more than three standard uncertainties is a failure."""

ROUNDING = 1e-6
"""Of the energy: whole milliwatts and nanoseconds."""

CLOCK_SLACK_NS = 5_000_000
OLDEST_S = 60.0


class KnownPower(Protocol):
    """What a device truly draws; `energybench.testing.Truth` is one."""

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """Energy between two times of CLOCK_MONOTONIC, joules."""

    def power_w(self, time_ns: int) -> float:
        """Power at a time of CLOCK_MONOTONIC, watts."""


@dataclass(frozen=True)
class Recording:
    """A few seconds of every source of a meter.

    Attributes:
        devices: what the meter was opened on.
        channels, sources: as the session gave them.
        readings: all of them.
        start_ns, end_ns: between these every window has readings around it.
    """

    devices: Sequence[Device]
    channels: Sequence[Channel]
    sources: Sequence[Source]
    readings: Sequence[Reading]
    start_ns: int
    end_ns: int

    def of(self, source: Source) -> list[Reading]:
        """The readings of one source, in the order of reading."""
        key = (source.channel, source.name)
        return [reading for reading in self.readings if (reading.channel, reading.source) == key]

    def timeline(self, channel: Channel) -> Timeline:
        """What the readings make of a channel's power."""
        return Timeline(channel, self.sources, self.readings)


@dataclass(frozen=True)
class Window:
    """One window of a channel: what was measured and what is true."""

    energy: ChannelEnergy
    true_j: float

    @property
    def measured_j(self) -> float:
        """The measured energy; a window with a known truth has one, else the test fails."""
        assert self.energy.energy_j is not None, f"no energy although the window was read throughout: {self.energy}"
        return self.energy.energy_j


class MeterConformance:
    """Inherit, give the fixture `meter`, run pytest.

    Attributes:
        seconds: how long the meter is recorded; give more where a sensor is slow.
        windows: how many windows of random length are compared with the truth.
        seed: of the windows.
    """

    seconds: ClassVar[float] = 3.0
    windows: ClassVar[int] = 20
    seed: ClassVar[int] = 1

    @pytest.fixture(scope="class")
    def meter(self) -> Meter:
        """The meter under test; to be given."""
        raise NotImplementedError("give the fixture `meter`, scope='class'")

    @pytest.fixture(scope="class")
    def truths(self) -> Mapping[str, KnownPower]:
        """Device id of a channel -> what it truly draws; empty where nobody knows."""
        return {}

    @pytest.fixture
    def failing(self) -> Iterator[Session | None]:
        """An open session of which every read fails; None where that cannot be made."""
        yield None

    @pytest.fixture(scope="class")
    def devices(self, meter: Meter) -> Sequence[Device]:
        """What the meter is opened on: the devices that it reports, else the CPU if it covers that."""
        found = [device for device in meter.devices() if meter.covers(device)]
        cpu = cpu_device()
        devices = found or ([cpu] if meter.covers(cpu) else [])
        assert devices, "the meter covers no device of this machine; give the fixture `devices`"
        return devices

    @pytest.fixture(scope="class")
    def recording(self, meter: Meter, devices: Sequence[Device]) -> Recording:
        """A few seconds of everything."""
        session = meter.open(devices)
        channels, sources = list(session.channels), list(session.sources)
        with Sampler(session) as sampler:
            start_ns = time.monotonic_ns()
            time.sleep(self.seconds)
            end_ns = time.monotonic_ns()
        return Recording(devices, channels, sources, sampler.readings(), start_ns, end_ns)

    def test_it_says_that_it_works(self, meter: Meter) -> None:
        """`check` answers without an exception; here the meter must work."""
        state = meter.check()
        assert state.ok, f"check: {state}"
        assert state.detail, "check: say in `detail` what was found"

    def test_its_devices_have_an_identity(self, meter: Meter) -> None:
        """A device is found again by its UUID, so no two may share one."""
        found = meter.devices()
        uuids = [device.uuid for device in found]
        assert len(set(uuids)) == len(uuids), f"devices share a UUID: {uuids}"
        for device in found:
            assert device.kind in (CPU, GPU), f"{device}: a device that trains is a cpu or a gpu"
            assert device.name and device.generation, f"{device}: give name and generation"

    def test_it_covers_its_devices_and_no_stranger(self, meter: Meter, devices: Sequence[Device]) -> None:
        """What it covers it can be opened on; a GPU that nobody knows is refused by both."""
        assert all(meter.covers(device) for device in devices)
        assert not meter.covers(STRANGER), "covers a GPU with a UUID that does not exist"
        with pytest.raises(MeterError):
            meter.open([STRANGER])

    def test_channels_are_told_apart(self, recording: Recording) -> None:
        """Names are unique, every channel has a kind, a device and a usable gain uncertainty."""
        names = [channel.name for channel in recording.channels]
        assert names and len(set(names)) == len(names), f"channel names: {names}"
        for channel in recording.channels:
            assert channel.kind and channel.device_id, f"{channel}: give kind and device_id"
            assert math.isfinite(channel.gain_uncertainty) and channel.gain_uncertainty >= 0, f"{channel}"
            assert channel.origin, f"{channel.name}: say in `origin` where the number comes from"

    def test_sources_are_sane(self, recording: Recording) -> None:
        """Each belongs to a channel, no two of a channel have one name, and every channel has one."""
        names = {channel.name for channel in recording.channels}
        keys = [(source.channel, source.name) for source in recording.sources]
        assert len(set(keys)) == len(keys), f"two sources of one name: {keys}"
        assert {channel for channel, _ in keys} == names, "sources and channels do not match"
        for source in recording.sources:
            assert source.quantity in ("power_w", "energy_j"), f"{source}"
            assert math.isfinite(source.period_s) and source.period_s > 0, f"{source}"
            assert source.resolution >= 0, f"{source}"

    def test_it_reads_just_the_device_it_is_opened_on(self, meter: Meter, devices: Sequence[Device]) -> None:
        """The last alone: neither its neighbours nor the card that stands at its place."""
        device = devices[-1]
        session = meter.open([device])
        try:
            ids = [channel.device_id for channel in session.channels if channel.kind == device.kind == GPU]
        finally:
            session.close()
        assert ids == ([device.uuid] if device.kind == GPU else [])

    def test_every_source_gives_readings(self, recording: Recording) -> None:
        """None fails, and none is silent."""
        for source in recording.sources:
            readings = recording.of(source)
            failed = [reading.status for reading in readings if reading.value is None]
            assert not failed, f"{source.channel} {source.name}: {failed[0]}"
            assert readings, f"{source.channel} {source.name}: no reading in {self.seconds:g} s"

    def test_a_read_is_done_before_the_next_is_due(self, recording: Recording) -> None:
        """The median read takes less than the source's period, or the sampler cannot keep pace."""
        for source in recording.sources:
            lengths_s = [(reading.read_end_ns - reading.read_start_ns) / 1e9 for reading in recording.of(source)]
            assert statistics.median(lengths_s) < source.period_s, f"{source.channel} {source.name}: {lengths_s}"

    def test_values_are_possible(self, recording: Recording) -> None:
        """Power is not below 0 W; a counter does not run back, unless it wraps."""
        for source in recording.sources:
            values = [reading.value for reading in recording.of(source) if reading.value is not None]
            assert all(math.isfinite(value) and value >= 0 for value in values), f"{source}: {min(values)}"
            if source.quantity == "energy_j" and source.wraps_at_j is None:
                assert values == sorted(values), f"{source.channel} {source.name}: the counter runs back"

    def test_sensor_times_are_of_this_clock(self, recording: Recording) -> None:
        """They rise, no sample is given twice, and none is of the future or long past."""
        for source in recording.sources:
            readings = [reading for reading in recording.of(source) if reading.sensor_ns is not None]
            times_ns = [reading.time_ns for reading in readings]
            assert all(a < b for a, b in pairwise(times_ns)), f"{source.channel} {source.name}: times do not rise"
            for reading in readings:
                age_ns = reading.read_end_ns - reading.time_ns
                assert -CLOCK_SLACK_NS <= age_ns <= OLDEST_S * 1e9, (
                    f"{source.channel} {source.name}: a sample {age_ns / 1e9:g} s old; is it on CLOCK_MONOTONIC?"
                )

    def test_the_energy_is_within_its_uncertainty(self, recording: Recording, truths: Mapping[str, KnownPower]) -> None:
        """Windows of random length, within three standard uncertainties, both parts."""
        for channel, windows in self._windows(recording, truths):
            for window in windows:
                energy = window.energy
                limit_j = COVERAGE_FACTOR * math.hypot(energy.independent_u_j or 0, energy.common_u_j or 0)
                error_j = window.measured_j - window.true_j
                assert abs(error_j) <= limit_j + ROUNDING * window.true_j, f"{channel.name}: {error_j:+.3g} J; {window}"
                assert energy.coverage > 0.98, f"{channel.name}: {window}"

    def test_on_one_board_the_independent_part_is_enough(
        self, recording: Recording, truths: Mapping[str, KnownPower]
    ) -> None:
        """One gain of the board, whichever, explains every window within three independent uncertainties."""
        for channel, windows in self._windows(recording, truths):
            gains = [_gains(window) for window in windows if window.true_j > 0]
            lowest, highest = max(low for low, _ in gains), min(high for _, high in gains)
            assert lowest <= highest, (
                f"{channel.name}: one window needs a gain of at least {lowest:.4f}, another of at most {highest:.4f}; "
                f"{windows}"
            )

    def test_it_invents_no_energy(self, recording: Recording) -> None:
        """Of the time long before it was opened and after it was closed it knows nothing."""
        minute_ns = 60_000_000_000
        for channel in recording.channels:
            timeline = recording.timeline(channel)
            before = timeline.energy(recording.start_ns - 3 * minute_ns, recording.start_ns - 2 * minute_ns)
            assert (before.energy_j, before.coverage) == (None, 0.0), f"{channel.name}: {before}"
            if not channel.estimated:
                after = timeline.energy(recording.end_ns + 2 * minute_ns, recording.end_ns + 3 * minute_ns)
                assert (after.energy_j, after.coverage) == (None, 0.0), f"{channel.name}: {after}"

    def test_a_failed_read_is_an_error_and_not_0(self, failing: Session | None) -> None:
        """Else a dead sensor looks like an idle device."""
        if failing is None:
            pytest.skip("no fixture `failing`: that a failed read raises MeterError is not shown")
        for source in failing.sources:
            with pytest.raises(MeterError):
                failing.read(source)

    def test_closing_twice_is_harmless_and_it_opens_again(self, meter: Meter, devices: Sequence[Device]) -> None:
        """A run that fails closes more than once; a sweep opens the meter for each cell."""
        for _ in range(2):
            session = meter.open(devices)
            assert session.read(session.sources[0]) is not None
            session.close()
            session.close()

    def _windows(
        self, recording: Recording, truths: Mapping[str, KnownPower]
    ) -> Iterator[tuple[Channel, list[Window]]]:
        """For each channel with a known truth, windows of random place and length."""
        known = [channel for channel in recording.channels if channel.device_id in truths]
        if not known:
            pytest.skip("no fixture `truths`: energies are not compared with anything")
        for channel in known:
            chance = random.Random(self.seed)
            timeline, truth = recording.timeline(channel), truths[channel.device_id]
            lengths_ns = recording.end_ns - recording.start_ns
            spans: list[tuple[int, int]] = []
            for _ in range(self.windows):
                length_ns = round(chance.uniform(0.2, 0.95) * lengths_ns)
                start_ns = recording.start_ns + round(chance.random() * (lengths_ns - length_ns))
                spans.append((start_ns, start_ns + length_ns))
            yield channel, [_window(timeline, truth, *span) for span in spans]


def _window(timeline: Timeline, truth: KnownPower, start_ns: int, end_ns: int) -> Window:
    return Window(timeline.energy(start_ns, end_ns), truth.energy_j(start_ns, end_ns))


def _gains(window: Window) -> tuple[float, float]:
    """The lowest and the highest gain of the board with which the window is right."""
    limit_j = COVERAGE_FACTOR * (window.energy.independent_u_j or 0) + ROUNDING * window.true_j
    return (window.measured_j - limit_j) / window.true_j, (window.measured_j + limit_j) / window.true_j
