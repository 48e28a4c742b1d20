"""NVML: the energy counters and power sensors of NVIDIA cards, read through the driver's own library.

`nvml_driver` is the door to the library, `nvml_buffer` places the driver's own samples in time, `nvml_generations` says
what each generation's sensors tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from energybench.availability import Availability
from energybench.devices import GPU, Device
from energybench.errors import ConfigError, MeterError
from energybench.hookspecs import Register
from energybench.power.conditions import Condition
from energybench.power.meter import Channel, Sample, Source
from energybench_plugins.meters.nvml_buffer import Buffer, Raw
from energybench_plugins.meters.nvml_conditions import condition
from energybench_plugins.meters.nvml_driver import (
    FUNCTION_NOT_FOUND,
    GONE,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    Driver,
    meter_error,
)
from energybench_plugins.meters.nvml_generations import (
    GENERATIONS,
    board_notes,
    check_gain,
    gain_of,
    generation_of,
    sensors_of,
)

COUNTER_UPDATE_S = 0.1
SAMPLE_UPDATE_S = 0.02
SAMPLE_JITTER_S, SAMPLE_SCATTER = 0.004, 0.01
"""Of the buffer's samples, each by itself, as two H100 told beside their counters (docs/results/h100_meter.md). It is
assumed of all others: where there is no counter nothing could tell."""

POWER_READS = 0.485
"""Period of reading power, as a share of its update: an odd one, so that the reads wander over the beat."""

ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NO_PERMISSION, NOT_FOUND)
"""Codes that mean that a card will not give a field, as against one that fails now."""


@dataclass(frozen=True)
class NvmlOptions:
    """Options of `meter=nvml`.

    Attributes:
        counter_period_s: how often the energy counter is read, seconds: a little faster than it changes, so that the
            reads wander over the beat of its updates and show it; no faster, as a read takes 3 to 16 ms.
        buffer_period_s: how often the driver's buffer of power samples is fetched, seconds.
        power_period_s: how often power is read, seconds; None: a little more than twice as often as the generation
            renews it, which a read of microseconds allows and which shows when it is renewed.
        gain_uncertainty: relative standard uncertainty (k = 1) common to all runs on one board; None: by generation.
            Boards were found within 5 % of an external meter, Ampere within 6 %, Turing within 13 % (SC'24); of Volta,
            Hopper and newer none was compared, and 5 % is assumed. Nothing says where a board lies within these limits,
            so they are those of a rectangular distribution, whose standard deviation is limit / sqrt(3) (GUM 4.3.7):
            0.029, 0.035, 0.075.
    """

    counter_period_s: float = 0.097
    buffer_period_s: float = 0.5
    power_period_s: float | None = None
    gain_uncertainty: float | None = None

    def __post_init__(self) -> None:
        for name in ("counter_period_s", "buffer_period_s", "power_period_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"meter.{name}={value}: give seconds above 0")
        check_gain(self.gain_uncertainty)


class NvmlMeter:
    """Finds NVIDIA's cards and reads them; each is a channel "gpu.N", numbered in the order in which they are given."""

    def __init__(self, options: NvmlOptions) -> None:
        self._options = options

    def check(self) -> Availability:
        """Whether there is a driver with cards."""
        try:
            with Driver() as driver:
                found, versions = _devices(driver), _versions(driver)
        except MeterError as error:
            detail, _, remedy = str(error).partition("; ")
            return Availability(False, detail, remedy or "choose another meter")
        if not found:
            return Availability(False, f"{versions}: no card that answers", "see `nvidia-smi -L` and `dmesg`")
        return Availability(True, f"{versions}: " + ", ".join(device.name for device in found))

    def devices(self) -> Sequence[Device]:
        """The cards in the driver's order; none where there is no driver. A card that is lost is left out."""
        try:
            with Driver() as driver:
                return _devices(driver)
        except MeterError:
            return []

    def covers(self, device: Device) -> bool:
        """A GPU whose UUID the driver knows."""
        return device.kind == GPU and any(found.uuid == device.uuid for found in self.devices())

    def open(self, devices: Sequence[Device]) -> NvmlSession:
        """Opens the cards, bound by UUID; raises MeterError where one of them is unknown or tells no power."""
        strangers = [device.name for device in devices if device.kind != GPU]
        if strangers:
            raise MeterError(f"meter 'nvml': reads NVIDIA's GPUs, not {', '.join(strangers)}; choose meter=auto")
        driver = Driver()
        try:
            return NvmlSession(driver, devices, self._options)
        except BaseException:
            driver.close()
            raise


class NvmlSession:
    """Opened cards. What can be read of each was found out by trying; a reading that fails later is a MeterError."""

    def __init__(self, driver: Driver, devices: Sequence[Device], options: NvmlOptions) -> None:
        self.channels: list[Channel] = []
        self.sources: list[Source] = []
        self._driver = driver
        self._readers: dict[tuple[str, str], Callable[[], Sequence[Sample]]] = {}
        versions = _versions(driver)
        for number, device in enumerate(devices):
            card = _Card(driver, device, f"gpu.{number}", options)
            self.channels.append(card.open(versions))
            self.sources += card.sources
            self._readers |= {(source.channel, source.name): card.readers[source.name] for source in card.sources}

    def read(self, source: Source) -> Sequence[Sample]:
        """The samples of `source` since the last call; raises MeterError where the driver does not give them."""
        return self._readers[source.channel, source.name]()

    def conditions(self) -> Sequence[Condition]:
        """The state of every card, now; see energybench.power.conditions."""
        return [condition(self._driver.nvml, channel.device_id, channel.name) for channel in self.channels]

    def close(self) -> None:
        """Closes the driver; a second call does nothing."""
        self._driver.close()


class _Card:
    """One card's sources, best first: counter, buffer, then those that see all of the time before the instant one."""

    def __init__(self, driver: Driver, device: Device, channel: str, options: NvmlOptions) -> None:
        self._driver = driver
        self._device = device
        self._channel = channel
        self._options = options
        self._sensors = sensors_of(device, _driver_major(driver))
        self._left_out: list[str] = []
        self._clock = ""
        self.sources: list[Source] = []
        self.readers: dict[str, Callable[[], Sequence[Sample]]] = {}

    def open(self, versions: str) -> Channel:
        """Finds the sources; raises MeterError where there is none, or the card cannot be found."""
        nvml, sensors = self._driver.nvml, self._sensors
        if code := self._driver.code(self._device.uuid, lambda handle: handle):
            raise meter_error(code, f"card {self._device.uuid} ({self._device.name})")
        self._add("counter", nvml.nvmlDeviceGetTotalEnergyConsumption, None)
        self._add_buffer()
        self._add("usage", nvml.nvmlDeviceGetPowerUsage, sensors.usage_averaging_s, sensors.lag_s)
        self._add("average", self._field(nvml.NVML_FI_DEV_POWER_AVERAGE), 1.0)
        self._add("instant", self._field(nvml.NVML_FI_DEV_POWER_INSTANT), sensors.instant_averaging_s)
        if not self.sources:
            raise MeterError(
                f"meter 'nvml': {self._device.name} tells neither energy nor power ({'; '.join(self._left_out)}); "
                "choose another meter, such as one at the wall"
            )
        return self._described(versions)

    def _add(
        self, name: str, read: Callable[[Any], int], averaging_s: float | None, lag_s: float | None = None
    ) -> None:
        """Adds a source of milliwatts or millijoules, unless the card has none."""
        code = self._driver.code(self._device.uuid, read)
        if code in GONE:
            raise meter_error(code, f"{name} of {self._device.name}")
        if code in ABSENT:
            self._left_out.append(f"{name}: {_short(meter_error(code, name))}")
            return
        what = f"{name} of {self._device.name}"
        self.sources.append(self._source(name, averaging_s, lag_s))
        self.readers[name] = lambda: [Sample(self._driver.read(self._device.uuid, what, read) / 1000)]

    def _add_buffer(self) -> None:
        try:
            buffer = Buffer(self._samples)
        except MeterError as error:
            self._left_out.append(f"buffer: {_short(error)}")
            return
        self._clock = f"the buffer's stamps follow the {buffer.clock} clock"
        self.sources.append(self._source("buffer", SAMPLE_UPDATE_S))
        self.readers["buffer"] = buffer.read

    def _source(self, name: str, averaging_s: float | None, lag_s: float | None = None) -> Source:
        """A source's rhythm: the sensor's own, unless the options say otherwise."""
        options, update_s = self._options, self._sensors.update_s
        rhythms = {
            "counter": (options.counter_period_s, COUNTER_UPDATE_S),
            "buffer": (options.buffer_period_s, SAMPLE_UPDATE_S),
        }
        period_s, update_s = rhythms.get(name, (options.power_period_s or POWER_READS * update_s, update_s))
        return Source(
            channel=self._channel,
            name=name,
            quantity="energy_j" if name == "counter" else "power_w",
            period_s=period_s,
            resolution=1e-3,
            update_s=update_s,
            averaging_s=averaging_s,
            lag_s=lag_s,
            time_uncertainty_s=self._sensors.late_s,
            jitter_s=SAMPLE_JITTER_S if name == "buffer" else 0.0,
            scatter=SAMPLE_SCATTER if name == "buffer" else 0.0,
        )

    def _field(self, number: int) -> Callable[[Any], int]:
        """Reads one of the driver's numbered fields."""
        nvml = self._driver.nvml

        def read(handle: Any) -> int:
            field = nvml.nvmlDeviceGetFieldValues(handle, [number])[0]
            if field.nvmlReturn:
                raise nvml.NVMLError(field.nvmlReturn)
            return int(_number(field.valueType, field.value))

        return read

    def _samples(self) -> list[Raw]:
        """Everything that the buffer holds. By its last stamp one could ask for less, but that trusts the clock."""
        nvml = self._driver.nvml

        def fetch(handle: Any) -> list[Raw]:
            try:
                kind, samples = nvml.nvmlDeviceGetSamples(handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)
            except nvml.NVMLError_NotFound:
                return []
            return [(sample.timeStamp * 1000, _number(kind, sample.sampleValue) / 1000) for sample in samples]

        samples = self._driver.read(self._device.uuid, f"power samples of {self._device.name}", fetch)
        return [sample for sample in samples if sample[0]]

    def _described(self, versions: str) -> Channel:
        gain, reason = gain_of(self._sensors, self._options.gain_uncertainty)
        names = ", ".join(source.name for source in self.sources)
        notes = [f"{versions}: {names}", self._clock, *(f"without {words}" for words in self._left_out)]
        notes += [*board_notes(self._device.name, self._is_divided()), f"gain uncertainty {gain:.3g} (k = 1): {reason}"]
        return Channel(
            name=self._channel,
            kind=GPU,
            device_id=self._device.uuid,
            pci_bus_id=self._device.pci_bus_id,
            gain_uncertainty=gain,
            origin="; ".join(note for note in notes if note),
        )

    def _is_divided(self) -> bool:
        try:
            modes = self._driver.read(self._device.uuid, "multi-instance mode", self._driver.nvml.nvmlDeviceGetMigMode)
        except MeterError:
            return False
        return bool(modes[0])


def _short(error: MeterError) -> str:
    """NVML's name for it where there is one."""
    return str(error).rpartition("NVML_ERROR_")[2].partition(";")[0]


def _devices(driver: Driver) -> list[Device]:
    nvml = driver.nvml
    found = []
    for index in range(driver.ask("number of cards", nvml.nvmlDeviceGetCount)):
        try:
            found.append(_device(nvml, nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError:
            continue  # lost: its neighbours are not
    return found


def _device(nvml: Any, handle: Any) -> Device:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        kind=GPU,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        generation=_generation(nvml, handle, major, minor),
        rank=10 * major + minor,
        pci_bus_id=_text(nvml.nvmlDeviceGetPciInfo(handle).busId),
        memory_bytes=_memory_bytes(nvml, handle),
        instances=_instances(nvml, handle),
    )


def _instances(nvml: Any, handle: Any) -> tuple[str, ...]:
    """UUIDs of the parts of a card in multi-instance mode; none where it is whole, or the driver knows no such."""
    try:
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return ()
    found = []
    for index in range(count):
        with suppress(nvml.NVMLError):  # NOT_FOUND: fewer than there could be
            found.append(_text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))))
    return tuple(found)


def _memory_bytes(nvml: Any, handle: Any) -> int | None:
    """None where the card shares the system's memory."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError_NotSupported:
        return None


def _generation(nvml: Any, handle: Any, major: int, minor: int) -> str:
    """By the driver's own word, else, of drivers before 450, by compute capability (CUDA C++ Programming Guide)."""
    try:
        known = GENERATIONS.get(nvml.nvmlDeviceGetArchitecture(handle))
    except nvml.NVMLError:
        known = None
    return known or generation_of(major, minor)


def _versions(driver: Driver) -> str:
    nvml = driver.nvml
    library = _text(driver.ask("version", nvml.nvmlSystemGetNVMLVersion))
    return f"NVML {library}, driver {_text(driver.ask('driver version', nvml.nvmlSystemGetDriverVersion))}"


def _driver_major(driver: Driver) -> int:
    version = _text(driver.ask("driver version", driver.nvml.nvmlSystemGetDriverVersion))
    major = version.partition(".")[0]
    return int(major) if major.isdigit() else 0


def _number(kind: int, value: Any) -> float:
    """The member of NVML's union that holds the value; nvmlValueType_t."""
    members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    return float(getattr(value, members[kind]))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def energybench_register_meters(register: Register) -> None:
    """Registers `nvml`."""
    register("nvml", NvmlMeter, NvmlOptions)
