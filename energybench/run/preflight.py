"""Before the first joule: can this experiment run here? Decides what was left to `auto` and checks everything."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from energybench import devices as _devices
from energybench.architecture import Network
from energybench.config import fit, make, make_architecture
from energybench.dataset import DatasetInfo, DatasetPlugin, MadeOnFirstUse
from energybench.devices import CPU, Device
from energybench.errors import ConfigError, DataError, DeviceError, MeterError
from energybench.experiment import AUTO, Experiment, Gpu, MeterPart, Part
from energybench.power import identity
from energybench.power.calibration import Calibration, calibrated
from energybench.power.meter import Channel, Meter, Session
from energybench.registry import Entry, Registry
from energybench.run.code import code_of
from energybench.run.engine import Engine, Spanning
from energybench.run.memory import OPTIMIZER_SLOTS

CPU_NAMES = (CPU, "none")


class Machine:
    """What this machine has, asked of the drivers once for all cells of a sweep.

    Attributes:
        registry: of parts.
        here: whether runs take place on it: else meters and data are looked at where they do.
    """

    here = True

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @property
    def host(self) -> str:
        """Its name."""
        return platform.node()

    @cached_property
    def gpus(self) -> list[Device]:
        """The GPUs that CUDA_VISIBLE_DEVICES leaves this process: a job that holds one card of eight has one.

        Indices are taken in the order of PCI addresses, as nvidia-smi and schedulers count, and as workers are bound.
        """
        return identity.visible(self.installed, {**os.environ, identity.ORDER: identity.BY_PCI})

    @cached_property
    def installed(self) -> list[Device]:
        """Every GPU that a registered meter reports, as the drivers order them."""
        found: list[Device] = []
        for name in self.registry.names("meter"):
            try:
                found.extend(default(self.registry, "meter", name).devices())
            except Exception:
                continue  # what a meter cannot tell, a stranger's bug too, `doctor` explains; here it reports nothing
        return _devices.unique(found)

    @cached_property
    def cpu(self) -> Device:
        """The CPU."""
        return _devices.cpu_device()

    @property
    def all(self) -> list[Device]:
        """The GPUs that may be used, and the CPU."""
        return [*self.gpus, self.cpu]

    def take(self, gpu: Gpu) -> list[Device]:
        """GPUs of one generation, as many as are asked for; raises DeviceError where there are fewer."""
        return _devices.take([d for d in self.gpus if d.generation == gpu.name], gpu.name, gpu.count, self.all)


def default(registry: Registry, kind: str, name: str) -> Any:
    """A registered part with its default options."""
    return make(registry, kind, Part(name))


@dataclass(frozen=True)
class NamedMeter:
    """A meter and the name it was chosen by.

    Attributes:
        name: as it is registered.
        meter: the meter.
        calibration: device id -> correction.
        beside: whether it was asked for beside the one that reads the devices that train.
    """

    name: str
    meter: Meter
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    beside: bool = False

    def open(self, boards: Sequence[Device]) -> Session:
        """Opens it on those of `boards` that it covers, beside them on the CPU too; raises MeterError."""
        asked = _devices.unique([*boards, _devices.cpu_device()]) if self.beside else boards
        session = self.meter.open([board for board in asked if self.meter.covers(board)])
        return calibrated(session, self.calibration)


@dataclass(frozen=True)
class Plan:
    """An experiment with every choice made.

    Attributes:
        experiment: with `engine` resolved to a registered name; the rest as configured.
        architecture: the network.
        dataset: what is known of the data.
        devices: one a context or process; the CPU may stand there several times.
        engine: the light side of the engine.
        meters: the first covers the devices that train; the others read what stands beside them; none where the run
            takes place elsewhere.
        entries: the registered parts it is made of.
        here: whether it can be run in this process; else its devices are what it asks for.
    """

    experiment: Experiment
    architecture: Network
    dataset: DatasetInfo
    devices: tuple[Device, ...]
    engine: Engine
    meters: tuple[NamedMeter, ...]
    entries: tuple[Entry, ...] = ()
    here: bool = True

    @cached_property
    def code(self) -> dict[str, str]:
        """What identifies the code that a run of it is made by; see `energybench.run.code`."""
        return code_of(self.entries, self.engine.check().detail)

    @property
    def scope(self) -> str:
        """The kind of the devices that train: what energy_j adds up."""
        return self.devices[0].kind

    @property
    def memory_bytes(self) -> int | None:
        """Memory that training is predicted to take on each board in float32; None where nothing tells.

        The contexts of a CPU share its memory.
        """
        training, count = self.experiment.training, len(self.devices)
        if self.experiment.precision not in ("fp32", "tf32"):
            return None
        samples = self.experiment.batch // (count * self.experiment.nodes.count * training.accumulate)
        each = self.architecture.training_bytes(samples, OPTIMIZER_SLOTS[training.optimizer])
        return each if each is None or self.scope != CPU else each * count

    @property
    def boards(self) -> list[Device]:
        """The devices, each once."""
        return _devices.unique(self.devices)


def prepare(experiment: Experiment, machine: Machine) -> Plan:
    """Decides and checks everything that can be known before a worker is started.

    Raises:
        EnergybenchError: the first thing that is in the way, in one line.
    """
    registry = machine.registry
    info = _data(experiment, machine)
    architecture = make_architecture(registry, experiment.model, info.classes)
    engine, devices = _place(experiment, machine, architecture)
    _check_batch(experiment, info, devices)
    meters = choose_meters(experiment.meter, devices, registry) if machine.here else []
    _check_resume(experiment)
    _check_target(experiment, info)
    light: Engine = make(registry, "engine", engine)
    light.validate(experiment, devices)
    return Plan(
        replace(experiment, engine=engine), architecture, info, tuple(devices), light, tuple(meters),
        _entries(experiment, engine, meters, registry), machine.here,
    )  # fmt: skip


UNSEEN = DatasetInfo(classes=1000, labelled=True, train_images=2**31, validation_images=2**31)
"""Stands for data that only the nodes of a cluster have: forecasts go by it, and nothing that is kept."""


def _data(experiment: Experiment, machine: Machine) -> DatasetInfo:
    plugin: DatasetPlugin = make(machine.registry, "dataset", experiment.dataset)
    state = plugin.check()
    if not state.ok and not machine.here:
        return UNSEEN
    if not state.ok:
        raise DataError(f"dataset {experiment.dataset.name!r}: {state}")
    if isinstance(plugin, MadeOnFirstUse) and not experiment.sweep.dry_run:
        plugin.make()
    return plugin.info()


def _entries(
    experiment: Experiment, engine: Part, meters: Sequence[NamedMeter], registry: Registry
) -> tuple[Entry, ...]:
    names = {"model": experiment.model.name, "dataset": experiment.dataset.name, "engine": engine.name}
    if meters or experiment.meter.name != AUTO:
        names["meter"] = meters[0].name if meters else experiment.meter.name
    return tuple(registry.get(kind, name) for kind, name in names.items())


def _check_batch(experiment: Experiment, info: DatasetInfo, devices: Sequence[Device]) -> None:
    nodes = experiment.nodes.count
    batch, count = experiment.batch, len(devices) * nodes * experiment.training.accumulate
    if batch % count:
        near = f"{batch // count * count or count} or {(batch // count + 1) * count}"
        parts = f" x training.accumulate={experiment.training.accumulate}" if experiment.training.accumulate > 1 else ""
        raise DeviceError(
            f"batch={batch} does not divide over {len(devices) * nodes} devices{parts}; "
            f"use {near}, or another gpu.count"
        )
    if batch > info.train_images:
        name = experiment.dataset.name
        raise ConfigError(
            f"batch={batch}: dataset {name!r} has {info.train_images} training images; use a smaller batch"
        )


def _check_resume(experiment: Experiment) -> None:
    resume = experiment.checkpoint.resume
    if resume is not None and resume != AUTO and not Path(resume).is_file():
        raise DataError(f"checkpoint.resume={resume}: no such file; give a checkpoint.npz, auto, or null to start anew")


def _check_target(experiment: Experiment, info: DatasetInfo) -> None:
    target = experiment.budget.target_accuracy
    if target is None:
        return
    if not info.labelled:
        name = experiment.dataset.name
        raise ConfigError(
            f"budget.target_accuracy={target}: on dataset {name!r} accuracy means nothing; choose another"
        )
    if not (experiment.measure.validate and info.validation_images):
        raise ConfigError(f"budget.target_accuracy={target}: without validation it is never reached; turn it on")


Candidate = tuple[Part, Engine]


def _place(experiment: Experiment, machine: Machine, network: Network) -> tuple[Part, list[Device]]:
    """The engine and the devices: they depend on each other where both are `auto`."""
    gpu = experiment.gpu
    usable, reasons = _engines(experiment.engine, machine.registry, network)
    if experiment.nodes.count > 1:
        usable = _spanning(experiment, usable)
    if gpu.name in CPU_NAMES:
        return _on_cpu(usable, reasons, gpu.count, machine)
    if gpu.name != AUTO:
        devices = machine.take(gpu)
        return _engine_for(devices, usable, reasons), devices
    for generation in _newest_first(machine.gpus):
        members = [d for d in machine.gpus if d.generation == generation]
        for part, engine in usable:
            if engine.refuses(members[0]) is None:
                return part, _devices.take(members, generation, gpu.count, machine.all)
    return _on_cpu(usable, reasons, gpu.count, machine)


def _spanning(experiment: Experiment, usable: Sequence[Candidate]) -> list[Candidate]:
    """Those engines that train over several nodes."""
    able: list[Candidate] = [(part, engine) for part, engine in usable if isinstance(engine, Spanning)]
    if not able:
        names, count = ", ".join(part.name for part, _ in usable), experiment.nodes.count
        raise ConfigError(
            f"nodes.count={count}: engine {names} trains on one machine only; use engine=torch, or nodes.count=1"
        )
    return able


def _newest_first(gpus: Sequence[Device]) -> list[str]:
    ranks = {device.generation: device.rank for device in gpus}
    return sorted(ranks, key=lambda generation: -ranks[generation])


def _on_cpu(
    usable: Sequence[Candidate], reasons: Sequence[str], count: int | str, machine: Machine
) -> tuple[Part, list[Device]]:
    if count == "all":
        raise ConfigError("gpu.count=all: the CPU is one device; give a number of contexts instead")
    devices = [machine.cpu] * int(count)
    return _engine_for(devices, usable, reasons), devices


def _engine_for(devices: Sequence[Device], usable: Sequence[Candidate], reasons: Sequence[str]) -> Part:
    refusals = list(reasons)
    for part, engine in usable:
        refusal = next((words for device in devices if (words := engine.refuses(device))), None)
        if refusal is None:
            return part
        refusals.append(f"{part.name}: {refusal}")
    raise DeviceError(f"no engine can train on {devices[0].name} ({devices[0].generation}): {'; '.join(refusals)}")


def _engines(part: Part, registry: Registry, network: Network) -> tuple[list[Candidate], list[str]]:
    """Engines that are installed and can build the network, in order of preference, and why the others cannot."""
    if part.name != AUTO:
        candidates = [part]
    else:
        known = registry.names("engine")
        candidates = [_defaults(registry, "engine", name) for name in part.options["order"] if name in known]
    usable: list[Candidate] = []
    unable = [(candidate, words) for candidate in candidates if (words := network.refuses(candidate.name))]
    reasons = [f"{candidate.name}: {words}" for candidate, words in unable]
    candidates = [candidate for candidate in candidates if network.refuses(candidate.name) is None]
    if unable and not candidates:
        raise ConfigError(f"engine={part.name}: {'; '.join(reasons)}")
    for candidate in candidates:
        engine: Engine = make(registry, "engine", candidate)
        state = engine.check()
        if state.ok:
            usable.append((candidate, engine))
        else:
            reasons.append(f"{candidate.name}: {state}")
    if not usable:
        raise DeviceError(
            f"no engine is installed: {'; '.join(reasons) or 'none of ' + str(part.options.get('order'))}"
        )
    return usable, reasons


def _defaults(registry: Registry, kind: str, name: str) -> Part:
    return Part(name, asdict(fit(kind, registry.get(kind, name).schema, {}, name)))


def choose_meters(part: MeterPart, devices: Sequence[Device], registry: Registry) -> list[NamedMeter]:
    """The meter of the devices that train first, then, those of what stands beside them.

    Args:
        part: the meter's name and options, `auto` included.
        devices: those that train.
        registry: where meters are found.

    Raises:
        MeterError: none reads all of the devices, or the one that was named does not.
    """
    boards = _devices.unique(devices)
    chosen = [replace(meter, calibration=part.calibration) for meter in _chosen(part, boards, registry)]
    return [*chosen, *_further(part, boards, chosen, registry)]


def _chosen(part: MeterPart, boards: Sequence[Device], registry: Registry) -> list[NamedMeter]:
    """The meter that was asked for; with `auto`, the measuring ones of what stands beside the devices too."""
    if part.name != AUTO:
        return [NamedMeter(part.name, _opened(part.name, make(registry, "meter", part), boards))]
    order: dict[str, list[str]] = part.options["order"]
    chosen = [_first_meter(order.get(boards[0].kind, []), boards, registry)]
    if boards[0].kind != CPU:
        chosen.extend(_beside(order.get(CPU, []), registry))
    return chosen


def _further(
    part: MeterPart, boards: Sequence[Device], chosen: Sequence[NamedMeter], registry: Registry
) -> list[NamedMeter]:
    """The meters of `meter.also`, shown to work; none may count what energy_j counts, or take a channel's name."""
    further: list[NamedMeter] = []
    taken = {channel.name for named in chosen for channel in _channels(named, boards)} if part.also else set()
    for label, options in part.also.items():
        key, meter = f"meter.also.{label}", make(registry, "meter", options)
        state = meter.check()
        if not state.ok:
            raise MeterError(f"{key}: {state}")
        named = NamedMeter(options.name, meter, options.calibration, beside=True)
        for channel in _channels(named, boards):
            if channel.kind == boards[0].kind:
                raise MeterError(
                    f"{key}: its channel {channel.name!r} is of kind {channel.kind!r}, which energy_j adds up and "
                    f"another meter reads; give it another kind, or choose meter={options.name}"
                )
            if channel.name in taken:
                raise MeterError(f"{key}: another meter has a channel {channel.name!r}; give it another name")
            taken.add(channel.name)
        further.append(named)
    return further


def _channels(named: NamedMeter, boards: Sequence[Device]) -> list[Channel]:
    session = named.open(boards)
    try:
        return list(session.channels)
    finally:
        session.close()


def _first_meter(names: Sequence[str], boards: Sequence[Device], registry: Registry) -> NamedMeter:
    reasons = []
    for name in names:
        if name not in registry.names("meter"):
            reasons.append(f"{name}: not registered")
            continue
        try:
            return NamedMeter(name, _opened(name, default(registry, "meter", name), boards))
        except MeterError as error:
            reasons.append(str(error))
    raise MeterError(
        f"no meter reads {boards[0].name} ({boards[0].kind}): {'; '.join(reasons) or 'none is registered'}"
    )


def _beside(names: Sequence[str], registry: Registry) -> list[NamedMeter]:
    """A measuring CPU meter beside GPUs: more to know, never in the way, and never an estimate."""
    cpu = _devices.cpu_device()
    try:
        found = _first_meter(names, [cpu], registry)
        return [] if _reads(found.meter, [cpu], lambda channel: channel.estimated) else [found]
    except MeterError:
        return []


def _reads(meter: Meter, boards: Sequence[Device], condition: Callable[[Any], bool]) -> bool:
    session = meter.open(boards)
    try:
        return any(condition(channel) for channel in session.channels)
    finally:
        session.close()


def _opened(name: str, meter: Meter, boards: Sequence[Device]) -> Meter:
    """The meter, once it has been shown to read every board."""
    state = meter.check()
    if not state.ok:
        raise MeterError(f"meter {name!r}: {state}")
    for board in boards:
        if not meter.covers(board):
            raise MeterError(
                f"meter {name!r} does not read the {board.kind} that trains ({board.name}); try meter=auto"
            )
    _reads(meter, boards, lambda channel: False)
    return meter
