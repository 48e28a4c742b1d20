"""What a sampler would read of a declared card, worked out instead of waited for: hours in a second.

The sensors are those of `Card`, seen as the fake driver lets them be seen; when a read is answered is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from energybench.power.meter import Source
from energybench.power.series import NO_TIME, Columns, Key
from energybench.testing.curves import Curve, Part
from energybench.testing.sensors import CounterSensor, PowerSensor, SampleBuffer
from energybench.testing.server import Card

Floats = npt.NDArray[np.float64]

WAKE_S = 0.0008
"""A thread that sleeps wakes so much later, on average."""

POWER_READ_S = 4e-6


def readings(
    card: Card, sources: Sequence[Source], seconds: float, start_ns: int = 0, seed: int = 0
) -> dict[Key, Columns]:
    """Readings of `card` through `sources`, whose names are those of the card's sensors.

    Args:
        card: what is read; the curve's time 0 is `start_ns`.
        sources: "counter", "usage", "instant", "average", "buffer".
        seconds: how long it is read, from the curve's time 0 on.
        start_ns: CLOCK_MONOTONIC at that time.
        seed: of the times of reading.
    """
    chance = np.random.default_rng(seed)
    found = {}
    for source in sources:
        sensor = getattr(card, source.name)
        columns = _read(card.curve, source, sensor, seconds, start_ns, chance)
        found[source.channel, source.name] = columns
    return found


def energy_j(curve: Curve, start_s: Floats, end_s: Floats) -> Floats:
    """(n,) true energy of each window, joules."""
    return _integral(curve, end_s) - _integral(curve, start_s)


def _read(
    curve: Curve,
    source: Source,
    sensor: CounterSensor | PowerSensor | SampleBuffer,
    seconds: float,
    start_ns: int,
    chance: np.random.Generator,
) -> Columns:
    if isinstance(sensor, SampleBuffer):
        return _buffer(curve, source, sensor, seconds, start_ns)
    read_at = np.arange(0.0, seconds, source.period_s)
    read_at = read_at + chance.exponential(WAKE_S, len(read_at))
    if isinstance(sensor, CounterSensor):
        length = np.full(len(read_at), sensor.read_s)
        tick = np.floor((read_at - sensor.phase_s) / sensor.update_s).astype(np.int64)
        if sensor.worst_every:
            length[tick % sensor.worst_every == 0] = sensor.worst_read_s
        # The driver answers somewhere inside the read.
        answered = read_at + length * chance.random(len(read_at))
        value = _counted(curve, sensor, answered)
    else:
        length = np.full(len(read_at), POWER_READ_S)
        value = _seen(curve, sensor, read_at)
    first = start_ns + np.round(read_at * 1e9).astype(np.int64)
    return _columns(source, first, first + np.round(length * 1e9).astype(np.int64), value, None)


def _columns(
    source: Source,
    start_ns: npt.NDArray[np.int64],
    end_ns: npt.NDArray[np.int64],
    value: Floats,
    sensor_ns: npt.NDArray[np.int64] | None,
) -> Columns:
    sensor_ns = np.full(len(value), NO_TIME, np.int64) if sensor_ns is None else sensor_ns
    code = np.zeros(len(value), np.uint32)
    return Columns(source.channel, source.name, source.quantity, start_ns, end_ns, sensor_ns, value, code)


def _counted(curve: Curve, sensor: CounterSensor, at_s: Floats) -> Floats:
    """The counter's value in whole millijoules, as it stands at `at_s`."""
    updated = np.floor((at_s - sensor.latency_s - sensor.phase_s) / sensor.update_s) * sensor.update_s + sensor.phase_s
    total = sensor.start_j + sensor.gain * _integral(curve, updated) + sensor.offset_w * updated
    for reset_s in sensor.resets_s:
        at_reset = sensor.gain * float(_integral(curve, np.array([reset_s]))[0]) + sensor.offset_w * reset_s
        after = updated >= reset_s
        total = np.where(after, sensor.gain * _integral(curve, updated) + sensor.offset_w * updated - at_reset, total)
    return np.asarray(np.round(total * 1000) / 1000)


def _seen(curve: Curve, sensor: PowerSensor, at_s: Floats) -> Floats:
    """A power reading in whole milliwatts, as it stands at `at_s`."""
    updated = at_s - sensor.latency_s
    if sensor.update_s > 0:
        updated = np.floor((updated - sensor.phase_s) / sensor.update_s) * sensor.update_s + sensor.phase_s
    if sensor.window_s > 0:
        true = (_integral(curve, updated) - _integral(curve, updated - sensor.window_s)) / sensor.window_s
    elif sensor.lag_s > 0:
        true = _lagged(curve, updated, sensor.lag_s)
    else:
        true = np.array([curve.power_w(float(time_s)) for time_s in updated])
    return np.asarray(np.round((sensor.gain * true + sensor.offset_w) * 1000) / 1000)


LAG_STEP_S = 0.0005


def _lagged(curve: Curve, at_s: Floats, lag_s: float) -> Floats:
    """A first-order low-pass, taken in steps so short that the power within each counts as steady."""
    grid = np.arange(at_s.min() - 20 * lag_s, at_s.max() + LAG_STEP_S, LAG_STEP_S)
    powers = np.diff(_integral(curve, grid)) / LAG_STEP_S
    decay = np.exp(-LAG_STEP_S / lag_s)
    smooth = lfilter([1 - decay], [1, -decay], powers, zi=[decay * powers[0]])[0]
    return np.interp(at_s, grid[1:], smooth)


def _buffer(curve: Curve, source: Source, sensor: SampleBuffer, seconds: float, start_ns: int) -> Columns:
    """Every sample of the ring, fetched often enough; its clock already told from CLOCK_MONOTONIC."""
    first = np.ceil((-sensor.phase_s - sensor.count * sensor.update_s) / sensor.update_s)
    taken = np.arange(first, np.floor((seconds - sensor.phase_s) / sensor.update_s)) * sensor.update_s + sensor.phase_s
    true = (_integral(curve, taken) - _integral(curve, taken - sensor.window_s)) / sensor.window_s
    value = np.round((sensor.gain * true + sensor.offset_w) * 1000) / 1000
    fetched = np.ceil(taken / source.period_s) * source.period_s
    read_ns = start_ns + np.round(fetched * 1e9).astype(np.int64)
    return _columns(source, read_ns, read_ns + 700_000, value, start_ns + np.round(taken * 1e6).astype(np.int64) * 1000)


def _integral(curve: Curve, at_s: Floats) -> Floats:
    """(n,) an antiderivative of the power, joules."""
    return np.asarray(np.sum([_part_integral(part, at_s) for part in curve.parts], axis=0))


def _part_integral(part: Part, at_s: Floats) -> Floats:
    at_s = np.clip(at_s, part.from_s, part.to_s) - part.phase_s
    times, powers = (np.array(column, float) for column in zip(*part.knots, strict=True))
    sums = np.concatenate(([0.0], np.cumsum(np.diff(times) * (powers[1:] + powers[:-1]) / 2)))
    periods = np.zeros(len(at_s))
    if part.period_s is not None:
        periods = np.floor(at_s / part.period_s)
        at_s = at_s - periods * part.period_s
    place = np.clip(np.searchsorted(times, at_s, side="right") - 1, 0, len(times) - 1)
    after = at_s - times[place]
    follows = np.minimum(place + 1, len(times) - 1)
    length = times[follows] - times[place]
    rise = np.divide(powers[follows] - powers[place], length, out=np.zeros(len(at_s)), where=length > 0)
    inside = sums[place] + powers[place] * after + rise * after**2 / 2
    before = at_s < times[0]
    return np.asarray(periods * sums[-1] + np.where(before, powers[0] * (at_s - times[0]), inside))
