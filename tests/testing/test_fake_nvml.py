"""The fake driver through the real pynvml: what each sensor tells is what its declaration makes of the true power."""

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pynvml
import pytest

from energybench.errors import DeviceError
from energybench.testing import (
    PRESETS,
    Card,
    CounterSensor,
    Failure,
    PowerSensor,
    SampleBuffer,
    Server,
    constant,
    driver,
    hopper,
    idle_load_idle,
    linear,
    pascal,
    square,
    step,
    training,
)
from energybench.testing.fixtures import fake_nvml  # noqa: F401

BUSY = constant(40) + square(0, 200, 0.13, duty=0.3) + training(5, 10, 60, epochs=3, epoch_s=0.7).shifted(8.7)


@pytest.fixture
def opened(fake_nvml):  # noqa: F811
    """Starts a server and opens NVML on it."""
    count = 0

    def start(*cards, age_s=10.0, **server):
        nonlocal count
        running = fake_nvml(Server(cards, **server), age_s)
        pynvml.nvmlInit()
        count += 1
        return running

    yield start
    for _ in range(count):
        pynvml.nvmlShutdown()


def handle(index=0):
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def seen_w(curve, sensor, time_s):
    """A sensor's value after the update at `time_s`: an independent way to the same number."""
    if sensor.window_s:
        power_w = curve.energy_j(time_s - sensor.window_s, time_s) / sensor.window_s
    elif sensor.lag_s:
        edges = np.linspace(time_s - 30 * sensor.lag_s, time_s, 3001)
        energy_j = np.array([curve.energy_j(a, b) for a, b in pairwise(edges)])
        middles = (edges[:-1] + edges[1:]) / 2
        power_w = float(np.sum(energy_j * np.exp(-(time_s - middles) / sensor.lag_s)) / sensor.lag_s)
    else:
        power_w = curve.power_w(time_s)
    return sensor.gain * power_w + sensor.offset_w


def tick(time_s, sensor):
    """The last update before `time_s`."""
    return math.floor((time_s - sensor.latency_s - sensor.phase_s) / sensor.update_s) * sensor.update_s + sensor.phase_s


def bracketed(running, read):
    """The value and the seconds before and after it was read."""
    before_ns = time.monotonic_ns()
    value = read()
    after_ns = time.monotonic_ns()
    return value, (before_ns - running.start_ns) / 1e9, (after_ns - running.start_ns) / 1e9


def field(number):
    entry = pynvml.nvmlDeviceGetFieldValues(handle(), [number])[0]
    if entry.nvmlReturn:
        raise pynvml.NVMLError(entry.nvmlReturn)
    assert entry.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    return entry.value.uiVal


SENSORS = {
    "window": PowerSensor(0.1, 0.1),
    "part of the time": PowerSensor(0.1, 0.025, gain=0.94, offset_w=3),
    "long window": PowerSensor(0.1, 1.0, latency_s=0.03),
    "lag": PowerSensor(0.1, lag_s=0.157, gain=1.02),
    "bare": PowerSensor(0.05),
}


@pytest.mark.parametrize("name", SENSORS)
@pytest.mark.parametrize("way", ["usage", "instant", "average"])
def test_a_power_reading_is_what_its_sensor_makes_of_the_truth(opened, name, way):
    sensor = SENSORS[name]
    running = opened(Card(curve=BUSY, **{way: sensor}))
    reads = {
        "usage": lambda: pynvml.nvmlDeviceGetPowerUsage(handle()),
        "instant": lambda: field(pynvml.NVML_FI_DEV_POWER_INSTANT),
        "average": lambda: field(pynvml.NVML_FI_DEV_POWER_AVERAGE),
    }
    for _ in range(3):
        mw, before_s, after_s = bracketed(running, reads[way])
        updates = {tick(before_s, sensor), tick(after_s, sensor)}
        expected = [seen_w(BUSY, sensor, update_s) for update_s in updates]
        tolerance = 0.05 if sensor.lag_s else 0.001
        assert any(mw / 1000 == pytest.approx(power_w, abs=tolerance) for power_w in expected)
        time.sleep(0.017)
    for other in set(reads) - {way}:
        with pytest.raises(pynvml.NVMLError_NotSupported):
            reads[other]()


def test_the_counter_is_the_integral_at_its_last_tick(opened):
    counter = CounterSensor(gain=1.1, offset_w=2, read_s=0, worst_every=0)
    running = opened(Card(curve=BUSY, counter=counter))
    for _ in range(5):
        mj, before_s, after_s = bracketed(running, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle()))
        expected = [
            counter.start_j + 1.1 * BUSY.energy_j(0, tick(t, counter)) + 2 * tick(t, counter)
            for t in (before_s, after_s)
        ]
        assert any(mj / 1000 == pytest.approx(energy_j, abs=0.0011) for energy_j in expected)
        time.sleep(0.043)


def test_the_counter_changes_every_tick_and_its_reads_take_time(opened):
    opened(Card(counter=CounterSensor(update_s=0.05, read_s=0.003, worst_read_s=0.016, worst_every=4)))
    device, values, lengths = handle(), [], []
    end = time.monotonic() + 0.45
    while time.monotonic() < end:
        start = time.monotonic()
        values.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(device))
        lengths.append(time.monotonic() - start)
    assert values == sorted(values)
    assert set(np.diff(sorted(set(values)))) <= {5000, 4999, 5001}
    assert 0.003 <= min(lengths) < 0.012
    assert max(lengths) >= 0.016


def test_a_reset_begins_again_at_zero(opened):
    counter = CounterSensor(read_s=0, worst_every=0, resets_s=(-5, 8.0))
    opened(Card(curve=constant(100), counter=counter), age_s=10)
    assert 150_000 <= pynvml.nvmlDeviceGetTotalEnergyConsumption(handle()) <= 250_000


def samples():
    kind, found = pynvml.nvmlDeviceGetSamples(handle(), pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    assert kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    return found


@pytest.mark.parametrize("clock", ["realtime", "monotonic"])
def test_the_buffer_holds_the_last_samples_with_their_times(opened, clock):
    buffer = SampleBuffer(clock=clock)
    running = opened(Card(curve=BUSY, buffer=buffer))
    found, _, after_s = bracketed(running, samples)
    offset_ns = time.time_ns() - time.monotonic_ns() if clock == "realtime" else 0
    times_s = np.array([(sample.timeStamp * 1000 - offset_ns - running.start_ns) / 1e9 for sample in found])
    assert len(found) == 119
    assert np.diff(times_s) == pytest.approx(0.02, abs=2e-6)
    assert after_s - 0.05 < times_s[-1] < after_s
    for sample, time_s in zip(found, times_s, strict=True):
        exact_s = round((time_s - buffer.phase_s) / 0.02) * 0.02 + buffer.phase_s
        assert time_s == pytest.approx(exact_s, abs=1e-3)
        expected_w = BUSY.energy_j(exact_s - 0.02, exact_s) / 0.02
        assert sample.sampleValue.uiVal / 1000 == pytest.approx(expected_w, abs=0.001)


def test_the_buffer_gives_what_is_later_than_the_last_seen(opened):
    opened(Card(buffer=SampleBuffer(clock="monotonic")))
    device = handle()
    middle = samples()[60].timeStamp
    _, later = pynvml.nvmlDeviceGetSamples(device, pynvml.NVML_TOTAL_POWER_SAMPLES, middle)
    assert later[0].timeStamp > middle
    assert 58 <= len(later) <= 65
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetSamples(device, pynvml.NVML_TOTAL_POWER_SAMPLES, later[-1].timeStamp + 10**6)


def test_a_monotonic_buffer_s_clock_may_be_off_and_drift(opened):
    opened(Card(buffer=SampleBuffer(clock="monotonic", clock_offset_s=100, clock_drift=0.01)), age_s=10)
    ahead_s = samples()[-1].timeStamp / 1e6 - time.monotonic()
    assert ahead_s == pytest.approx(100.1, abs=0.05)


PRINT = """
import sys, time, pynvml
pynvml.nvmlInit()
device = pynvml.nvmlDeviceGetHandleByIndex(0)
time.sleep(max(0, (int(sys.argv[1]) - time.monotonic_ns()) / 1e9))
print(pynvml.nvmlDeviceGetTotalEnergyConsumption(device), pynvml.nvmlDeviceGetPowerUsage(device))
"""


def test_two_processes_see_the_same_card(tmp_path):
    """Both read in the middle of one long tick."""
    sensors = {"counter": CounterSensor(5.0, read_s=0, worst_every=0), "usage": PowerSensor(5.0, 1.0)}
    running = Server((Card(curve=BUSY, **sensors),)).start(tmp_path)
    when_ns = time.monotonic_ns() + 700_000_000
    age_s = (when_ns - running.start_ns) / 1e9
    phase_s = age_s % 5.0 - 2.5  # so that `when` lies in the middle of a tick
    sensors = {name: replace(sensor, phase_s=phase_s) for name, sensor in sensors.items()}
    running.path.write_text(Server((Card(curve=BUSY, **sensors),)).scenario(running.start_ns))
    command = [sys.executable, "-c", PRINT, str(when_ns)]
    environment = {**os.environ, **running.environment()}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=30)[0] for process in both)
    assert first == second
    expected_j = 123_456.789 + BUSY.energy_j(0, age_s - 2.5)
    assert int(first.split()[0]) / 1000 == pytest.approx(expected_j, abs=0.002)


def test_a_function_fails_for_a_while(opened):
    failures = (
        Failure("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_TIMEOUT, 9, 1e9),
        Failure("nvmlDeviceGetTotalEnergyConsumption", pynvml.NVML_ERROR_UNKNOWN, 0, 9),
    )
    opened(Card(usage=PowerSensor(), counter=CounterSensor(), failures=failures), age_s=10)
    with pytest.raises(pynvml.NVMLError_Timeout):
        pynvml.nvmlDeviceGetPowerUsage(handle())
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle()) > 0


def test_a_card_falls_off_the_bus_and_its_neighbour_does_not(opened):
    opened(Card(usage=PowerSensor(), lost=((10.05, math.inf),)), Card(usage=PowerSensor()), age_s=10)
    first, second = handle(0), handle(1)
    assert pynvml.nvmlDeviceGetPowerUsage(first) == 100_000
    time.sleep(0.06)
    for call in (pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetName):
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            call(first)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        handle(0)
    assert pynvml.nvmlDeviceGetPowerUsage(second) == 100_000


def test_after_a_reload_the_driver_must_be_opened_anew(opened):
    opened(Card(usage=PowerSensor()), reloads=((10.05, 10.1),), age_s=10)
    device = handle()
    time.sleep(0.06)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetPowerUsage(device)
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()
    time.sleep(0.06)
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetPowerUsage(handle()) == 100_000


def test_without_a_scenario_there_is_no_driver(opened, monkeypatch):
    driver.load()
    monkeypatch.delenv("ENERGYBENCH_FAKE_NVML", raising=False)
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


def test_a_card_says_what_it_is(opened):
    card = pascal(
        constant(80),
        uuid="GPU-0af1",
        pci_bus_id="00000000:3B:00.0",
        used_bytes=1024,
        processes=((4711, 1024), (4712, 0)),
        event_reasons=4,
        temperature_c=61,
        utilization=97,
        performance_state=2,
        mig=True,
    )
    opened(hopper(constant(80)), card, driver="470.1", cuda=11040)
    device = pynvml.nvmlDeviceGetHandleByUUID("GPU-0af1")
    assert pynvml.nvmlDeviceGetIndex(device) == 1
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId("0000:3b:00.0")) == 1
    assert pynvml.nvmlDeviceGetPciInfo(device).busId == "00000000:3B:00.0"
    assert pynvml.nvmlDeviceGetName(device) == "NVIDIA TITAN X (Pascal)"
    assert pynvml.nvmlDeviceGetCudaComputeCapability(device) == (6, 1)
    assert pynvml.nvmlDeviceGetArchitecture(device) == pynvml.NVML_DEVICE_ARCH_PASCAL
    assert pynvml.nvmlDeviceGetMemoryInfo(device).used == 1024
    assert pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2).total == 12 * 1024**3
    assert [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device)] == [4711, 4712]
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(device) == pynvml.nvmlClocksEventReasonSwPowerCap
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(device) == pynvml.nvmlClocksEventReasonSwPowerCap
    assert pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU) == 61
    assert pynvml.nvmlDeviceGetTemperatureV(device, pynvml.NVML_TEMPERATURE_GPU) == 61
    assert pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM) == 1400
    assert pynvml.nvmlDeviceGetMaxClockInfo(device, pynvml.NVML_CLOCK_MEM) == 5000
    assert pynvml.nvmlDeviceGetUtilizationRates(device).gpu == 97
    assert pynvml.nvmlDeviceGetPerformanceState(device) == 2
    assert pynvml.nvmlDeviceGetPersistenceMode(device) == 1
    assert pynvml.nvmlDeviceGetMigMode(device) == [1, 1]
    assert pynvml.nvmlDeviceGetPowerManagementLimit(device) == 250_000
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(device) == 250_000
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(device) == 250_000
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(device) == [125_000, 300_000]
    assert pynvml.nvmlSystemGetDriverVersion() == "470.1"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 11040
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID("GPU-0af")
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        handle(2)


def test_what_a_card_says_of_itself_changes_in_time(opened):
    changes = (
        (9.0, {"temperature_c": 71, "processes": ((4711, 1024),), "event_reasons": 4}),
        (9.5, {"sm_mhz": 1200, "utilization": 100, "used_bytes": 2048, "limit_w": 200.0, "performance_state": 1}),
        (10.6, {"temperature_c": 83, "event_reasons": 0x40, "processes": (), "graphics_processes": ((5, 6),)}),
    )
    running = opened(pascal(constant(80), changes=changes), age_s=10)
    device = handle()

    def seen():
        return (
            pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU),
            pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            pynvml.nvmlDeviceGetCurrentClocksEventReasons(device),
            pynvml.nvmlDeviceGetUtilizationRates(device).gpu,
            pynvml.nvmlDeviceGetMemoryInfo(device).used,
            pynvml.nvmlDeviceGetEnforcedPowerLimit(device),
            pynvml.nvmlDeviceGetPerformanceState(device),
            [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device)],
            [process.pid for process in pynvml.nvmlDeviceGetGraphicsRunningProcesses(device)],
        )

    before, _, after_s = bracketed(running, seen)
    if after_s < 10.6:
        assert before == (71, 1200, 4, 100, 2048, 200_000, 1, [4711], [])
    time.sleep(max(0, running.at_ns(10.61) - time.monotonic_ns()) / 1e9)
    assert seen() == (83, 1200, 0x40, 100, 2048, 200_000, 1, [], [5])


def test_a_change_of_what_cannot_change_or_out_of_order_is_refused():
    with pytest.raises(ValueError, match="changes of curve, name: what may change is limit_w, temperature_c"):
        Card(changes=((1.0, {"name": "x", "temperature_c": 3, "curve": None}),))
    with pytest.raises(ValueError, match=r"changes at \[2.0, 1.0\] s: give them in the order of time"):
        Card(changes=((2.0, {}), (1.0, {})))


SET = """
import sys, pynvml
pynvml.nvmlInit()
device = pynvml.nvmlDeviceGetHandleByIndex(0)
print(pynvml.nvmlDeviceGetPowerManagementLimit(device), pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
      pynvml.nvmlDeviceGetPersistenceMode(device))
pynvml.nvmlDeviceSetPowerManagementLimit(device, 200_000)
pynvml.nvmlDeviceSetGpuLockedClocks(device, 900, 1000)
pynvml.nvmlDeviceSetPersistenceMode(device, 0)
"""


def test_what_one_process_sets_all_see_until_it_is_set_back(opened):
    opened(Card(curve=constant(300), usage=PowerSensor()), Card())
    done = subprocess.run([sys.executable, "-c", SET], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["250000", "1400", "1"]
    device = handle()

    def seen():
        return (
            pynvml.nvmlDeviceGetPowerManagementLimit(device),
            pynvml.nvmlDeviceGetEnforcedPowerLimit(device),
            pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM),
            pynvml.nvmlDeviceGetPersistenceMode(device),
        )

    assert seen() == (200_000, 200_000, 1000, 0)
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(device) == 250_000
    assert pynvml.nvmlDeviceGetPowerUsage(device) == 300_000, "the declared power is the truth, whatever was set"
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle(1)) == 250_000
    pynvml.nvmlDeviceSetPowerManagementLimit(device, 250_000)
    pynvml.nvmlDeviceResetGpuLockedClocks(device)
    pynvml.nvmlDeviceSetPersistenceMode(device, 1)
    done = subprocess.run([sys.executable, "-c", SET], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["250000", "1400", "1"]


def test_what_may_not_be_set_is_refused(opened):
    opened(Card(may_set=False), Card(), pascal(constant(80)))
    setters = {
        "limit": lambda device: pynvml.nvmlDeviceSetPowerManagementLimit(device, 200_000),
        "clocks": lambda device: pynvml.nvmlDeviceSetGpuLockedClocks(device, 900, 1000),
        "mode": lambda device: pynvml.nvmlDeviceSetPersistenceMode(device, 1),
    }
    for setter in setters.values():
        with pytest.raises(pynvml.NVMLError_NoPermission):
            setter(handle(0))
    for watts in (124, 301):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceSetPowerManagementLimit(handle(1), watts * 1000)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetGpuLockedClocks(handle(1), 1000, 2000)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        setters["clocks"](handle(2))
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle(1)) == 250_000


def instant_mean_w(phase_s, period_s=0.1):
    """Mean of the H100's instant field over 3 s of 50 % duty, by its sensor's own arithmetic."""
    sensor = hopper(constant(0)).instant
    curve = square(120, 700, period_s, phase_s=phase_s)
    return float(np.mean([seen_w(curve, sensor, 10 + i * sensor.update_s) for i in range(30)]))


def test_hopper_s_instant_field_aliases():
    means = [instant_mean_w(phase_s) for phase_s in np.arange(0, 0.1, 0.01)]
    assert min(means) < 150
    assert max(means) > 650
    assert instant_mean_w(0.0, period_s=0.097) == pytest.approx(410, rel=0.1)


def test_hopper_s_average_misses_a_burst_of_a_second():
    """705 W for 1 s read as 408 W on the card."""
    sensor = hopper(constant(0)).usage
    curve = idle_load_idle(105, 705, 10, 11)
    read = [seen_w(curve, sensor, 10 + 0.1 * i) for i in range(11)]
    assert float(np.mean(read)) == pytest.approx(408, abs=15)


def test_maxwell_rises_in_345_ms():
    sensor = PRESETS["maxwell"](constant(0), gain=1.0).usage
    times_s = np.linspace(0.001, 1.0, 80)
    shares = np.array([seen_w(linear([(0, 0), (0, 1)]), sensor, float(t)) for t in times_s])
    rise_s = times_s[np.searchsorted(shares, 0.9)] - times_s[np.searchsorted(shares, 0.1)]
    assert rise_s == pytest.approx(0.345, abs=0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_generation_s_fields(opened, name):
    opened(PRESETS[name](step(5, 100, 200)), age_s=10)
    gain = 0.94 if name == "ampere_a100" else PRESETS[name](constant(0)).usage.gain
    assert pynvml.nvmlDeviceGetPowerUsage(handle()) == pytest.approx(200_000 * gain, abs=1)
    if name in ("maxwell", "pascal"):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle())
    else:
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle()) > 123_456_789
    if name == "hopper":
        assert len(samples()) == 119


def test_the_kit_needs_no_pytest_and_no_driver():
    code = "import sys, energybench.testing; print({'pytest', 'pynvml', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_the_documentation_s_first_example_runs():
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_compiler_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"no C compiler \(no-such-compiler\).*install one"):
        driver.library()


def test_below_a_real_driver_it_is_refused(tmp_path):
    """Once the machine's own library is loaded, the loader gives no other."""
    real = tmp_path / "libnvidia-ml.so.1"
    (tmp_path / "real.c").write_text("int nvmlInit_v2(void) { return 0; }")
    command = ["cc", "-shared", f"-Wl,-soname,{real.name}", "-o", str(real), str(tmp_path / "real.c")]
    subprocess.run(command, check=True)
    code = f"import ctypes; ctypes.CDLL({str(real)!r}); from energybench.testing import driver; driver.load()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "DeviceError: fake NVML: this process has already loaded the machine's own" in done.stderr


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match="failed: out of order"):
        driver.library()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_the_library_compiles_without_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(driver, "FLAGS", (*driver.FLAGS, "-Werror"))
    library, program = driver.library(), driver.program()
    assert (library.name, program.name) == ("libnvidia-ml.so.1", "nvidia-smi")
    assert {entry for entry in tmp_path.rglob("*") if entry.is_file()} == {library, program}


def test_a_scenario_that_cannot_be_read_is_no_driver(opened, tmp_path, monkeypatch, capfd):
    driver.load()
    scenario = tmp_path / "scenario.txt"
    scenario.write_text("start_ns 0\nnonsense 1\n")
    monkeypatch.setenv("ENERGYBENCH_FAKE_NVML", str(scenario))
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()
    assert "unknown line 'nonsense'" in capfd.readouterr().err
