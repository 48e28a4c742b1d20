import threading
import time
from typing import ClassVar

import pytest

from energybench.errors import MeterError
from energybench.power.meter import Channel, Sample, Source
from energybench.power.sampler import Sampler, next_due_ns

FAST_S, NEVER_S = 0.002, 3600.0
PATIENCE_S = 60.0


class FakeSession:
    """A session whose sources answer from functions; notes who called it."""

    def __init__(self, channels, answers, period_s=NEVER_S):
        self.channels = channels
        self.sources = list(answers)
        self.answers = {(source.channel, source.name): answer for source, answer in answers.items()}
        self.threads = set()
        self.reads = 0
        self.closed = 0
        self.enough = threading.Event()
        self.enough_reads = None

    def read(self, source):
        self.threads.add(threading.current_thread())
        self.reads += 1
        if self.reads == self.enough_reads:
            self.enough.set()
        answer = self.answers[source.channel, source.name]()
        return answer if isinstance(answer, list) else [Sample(answer)]

    def close(self):
        self.threads.add(threading.current_thread())
        self.closed += 1


def gpu(number=0):
    return Channel(f"gpu.{number}", "gpu", f"GPU-{number}")


def power(channel="gpu.0", name="instant", period_s=NEVER_S):
    return Source(channel, name, "power_w", period_s)


def counter(channel="gpu.0", period_s=NEVER_S):
    return Source(channel, "counter", "energy_j", period_s)


def raising(error):
    def answer():
        raise error

    return answer


def answers_of(*values):
    remaining = iter(values)

    def answer():
        value = next(remaining)
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def test_every_source_is_read_before_start_returns_and_again_in_stop():
    session = FakeSession([gpu()], {power(): lambda: 200.0, counter(): lambda: 5.0})
    sampler = Sampler(session)
    sampler.start()
    start_ns = time.monotonic_ns()
    assert len(sampler.readings()) == 2
    end_ns = time.monotonic_ns()
    sampler.stop()
    for name in ("instant", "counter"):
        first, last = (reading for reading in sampler.readings() if reading.source == name)
        assert first.read_start_ns <= first.read_end_ns <= start_ns
        assert end_ns <= last.read_start_ns <= last.read_end_ns


def test_one_other_thread_makes_every_call_and_closes_the_session():
    session = FakeSession([gpu()], {power(): lambda: 200.0})
    with Sampler(session) as sampler:
        pass
    assert len(session.threads) == 1 and threading.current_thread() not in session.threads
    assert session.closed == 1
    sampler.stop()
    assert session.closed == 1


def test_each_source_is_read_at_its_own_period():
    fast, slow = power(period_s=FAST_S), power("gpu.0", "average", NEVER_S)
    session = FakeSession([gpu()], {fast: lambda: 200.0, slow: lambda: 100.0})
    session.enough_reads = 12
    with Sampler(session) as sampler:
        assert session.enough.wait(PATIENCE_S)
    names = [reading.source for reading in sampler.readings()]
    assert names.count("average") == 2 and names.count("instant") >= 10


@pytest.mark.parametrize(
    ("due_ns", "now_ns", "expected_ns"),
    [(100, 100, 110), (100, 109, 110), (100, 110, 120), (100, 157, 160), (100, 95, 100)],
)
def test_the_next_beat_keeps_the_phase_and_skips_what_was_missed(due_ns, now_ns, expected_ns):
    assert next_due_ns(due_ns, 10, now_ns) == expected_ns


def test_a_meter_error_is_a_reading_without_value_and_never_zero():
    session = FakeSession([gpu()], {power(): answers_of(MeterError("GPU is lost"), 210.0)})
    with Sampler(session) as sampler:
        pass
    assert [(reading.value, reading.status) for reading in sampler.readings()] == [(None, "GPU is lost"), (210.0, "ok")]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (raising(KeyError("power")), "KeyError: 'power'"),
        (raising(MeterError()), "MeterError"),
        (lambda: ["not a sample"], "AttributeError: 'str' object has no attribute 'value'"),
        (lambda: float("nan"), "the sensor gave nan"),
    ],
)
def test_any_other_failure_is_named_and_the_thread_lives_on(answer, status):
    session = FakeSession([gpu()], {power(): answer, counter(): lambda: 5.0})
    with Sampler(session) as sampler:
        pass
    readings = sampler.readings()
    assert [(reading.value, reading.status) for reading in readings if reading.source == "instant"] == [
        (None, status)
    ] * 2
    assert [reading.value for reading in readings if reading.source == "counter"] == [5.0, 5.0]


def test_a_buffer_gives_many_samples_with_their_own_times_or_none():
    batch = [Sample(100.0, 7), Sample(110.0, 9)]
    session = FakeSession([gpu()], {power(name="buffer"): answers_of(batch, [])})
    with Sampler(session) as sampler:
        pass
    assert [(reading.value, reading.sensor_ns, reading.time_ns) for reading in sampler.readings()] == [
        (100.0, 7, 7),
        (110.0, 9, 9),
    ]


def test_readings_come_in_the_order_of_reading_and_by_channel():
    session = FakeSession([gpu(0), gpu(1)], {power("gpu.1"): lambda: 1.0, power("gpu.0"): lambda: 2.0})
    with Sampler(session) as sampler:
        pass
    starts = [reading.read_start_ns for reading in sampler.readings()]
    assert starts == sorted(starts) and len(starts) == 4
    assert [reading.value for reading in sampler.readings("gpu.0")] == [2.0, 2.0]
    assert list(sampler.iter_readings("gpu.2")) == []


def test_a_snapshot_stays_as_it_was_while_reading_goes_on():
    session = FakeSession([gpu()], {power(period_s=FAST_S): lambda: 200.0})
    session.enough_reads = 10
    with Sampler(session) as sampler:
        snapshot = sampler.readings()
        length = len(snapshot)
        assert session.enough.wait(PATIENCE_S)
        assert len(snapshot) == length < len(sampler.readings())


def test_a_session_without_sources_is_no_trouble():
    with Sampler(FakeSession([], {})) as sampler:
        assert sampler.latest_power_w("gpu") is None
    assert sampler.readings() == []


def test_latest_power_sums_the_channels_of_a_kind():
    channels = [gpu(0), gpu(1), Channel("cpu.0", "cpu", "package-0")]
    session = FakeSession(
        channels, {power("gpu.0"): lambda: 200.0, power("gpu.1"): lambda: 150.0, power("cpu.0"): lambda: 50.0}
    )
    with Sampler(session) as sampler:
        assert sampler.latest_power_w("gpu") == 350.0
        assert sampler.latest_power_w("cpu") == 50.0
        assert sampler.latest_power_w("wall") is None


def test_latest_power_of_a_counter_is_its_last_step():
    values = answers_of([Sample(100.0, 1_000_000_000)], [Sample(130.0, 1_500_000_000)])
    sampler = Sampler(FakeSession([gpu()], {counter(): values}))
    sampler.start()
    assert sampler.latest_power_w("gpu") is None
    sampler.stop()
    assert sampler.latest_power_w("gpu") == pytest.approx(60.0)


@pytest.mark.parametrize("second", [[Sample(100.0, 1_000_000_000)], [Sample(1.0, 2_000_000_000)], MeterError("lost")])
def test_latest_power_of_a_counter_is_unknown_across_a_reset_a_repeat_or_a_failure(second):
    session = FakeSession([gpu()], {counter(): answers_of([Sample(100.0, 1_000_000_000)], second)})
    with Sampler(session) as sampler:
        pass
    assert sampler.latest_power_w("gpu") is None


def test_latest_power_prefers_a_power_source_and_falls_back_when_it_fails():
    answers = {
        counter(): answers_of([Sample(0.0, 1_000_000_000)], [Sample(10.0, 2_000_000_000)]),
        power(): answers_of(300.0, MeterError("lost")),
    }
    with Sampler(FakeSession([gpu()], answers)) as sampler:
        assert sampler.latest_power_w("gpu") == 300.0
    assert sampler.latest_power_w("gpu") == 10.0


def test_part_of_a_sum_is_no_sum():
    session = FakeSession([gpu(0), gpu(1)], {power("gpu.0"): lambda: 200.0, power("gpu.1"): raising(MeterError("x"))})
    with Sampler(session) as sampler:
        assert sampler.latest_power_w("gpu") is None


def test_stop_without_start_does_nothing():
    session = FakeSession([gpu()], {power(): lambda: 200.0})
    Sampler(session).stop()
    assert session.reads == 0


def test_a_hanging_first_read_is_an_error():
    release = threading.Event()
    sampler = Sampler(FakeSession([gpu()], {power(): lambda: release.wait(PATIENCE_S)}))
    with pytest.raises(MeterError, match="first read did not return"):
        sampler.start(timeout_s=0.01)
    release.set()
    sampler.stop()


def test_a_read_that_hangs_is_left_behind_with_a_warning(caplog):
    release = threading.Event()
    session = FakeSession([gpu()], {power(): answers_of(1.0, 2.0)})
    sampler = Sampler(session)
    sampler.start()
    session.answers["gpu.0", "instant"] = lambda: release.wait(PATIENCE_S)
    sampler.stop(timeout_s=0.01)
    assert "did not return" in caplog.text and len(sampler.readings()) == 1
    release.set()
    sampler.stop()


def test_a_session_that_fails_to_close_is_warned_about(caplog):
    session = FakeSession([gpu()], {power(): lambda: 200.0})
    session.close = raising(OSError("driver gone"))
    with Sampler(session):
        pass
    assert "could not be closed" in caplog.text


def test_a_meter_that_is_too_slow_for_its_periods_starves_no_source_and_stops():
    class Slow:
        channels: ClassVar = [Channel("gpu.0", "gpu", "GPU-0")]
        sources: ClassVar = [
            Source("gpu.0", name, "power_w", period_s, update_s=0.02)
            for name, period_s in (("fast", 0.001), ("faster", 0.001), ("slow", 0.05))
        ]

        def read(self, source):
            time.sleep(0.004)
            return [Sample(1.0)]

        def close(self):
            pass

    with Sampler(Slow()) as sampler:
        time.sleep(0.6)
    assert not sampler._thread.is_alive()
    assert all(len(one) > 4 for one in sampler.columns().values())
