"""Which cards a process that uses CUDA sees, by what its environment says, and which of them a caller means.

CUDA's rules are those of its Programming Guide ("CUDA Environment Variables") and, where that is silent, of what a
driver 580 was seen to do. CUDA's devices are those whose UUID begins with "GPU-"; other vendors' pass through
untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from energybench.devices import CPU, Device, inventory, unique
from energybench.errors import ConfigError, DeviceError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
BY_PCI = "PCI_BUS_ID"
CARD, INSTANCE = "GPU-", "MIG-"
"""What the names of a card and of a part of a divided card begin with."""

UUID_DIGITS = 32
AUTO = "auto"
NONE = "none"

_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f])", re.IGNORECASE)


def visible(devices: Sequence[Device], environment: Mapping[str, str]) -> list[Device]:
    """The GPUs that a process with this environment sees, in CUDA's order; those that CUDA does not know follow.

    CUDA_VISIBLE_DEVICES as CUDA reads it: unset, all; empty, none; else what each entry names, up to the first entry
    that names nothing (a number below 0 or beyond the last card, an unknown UUID, a prefix of several). The first entry
    decides of which kind all are: indices, UUIDs of cards, or names of MIG instances. A card twice: CUDA fails: none.
    Where a card is divided, a process sees one instance and nothing else (MIG User Guide, "CUDA Device Enumeration").

    Args:
        devices: GPUs in the driver's order, which is that of PCI addresses.
        environment: variables of the process.

    Raises:
        DeviceError: indices, and cards of several models that are not in the order of their PCI addresses for CUDA.
    """
    cards = [device for device in devices if device.uuid.startswith(CARD)]
    others = [device for device in devices if not device.uuid.startswith(CARD)]
    names = environment.get(VISIBLE)
    if names is None:
        return [*_one_instance([_first_instance(card) for card in cards]), *others]
    return [*_one_instance(_named(names, cards, environment)), *others]


def selected(gpus: object, devices: Sequence[Device], environment: Mapping[str, str]) -> list[Device]:
    """The GPUs that a caller means.

    Args:
        gpus: "auto": those that the process sees. Else one or several (a sequence, or words with commas between) of: an
            index as the process's framework numbers them, a UUID, a unique beginning of one, a PCI address, the name of
            a MIG instance. None, an empty sequence or "none": no GPU.
        devices: GPUs in the driver's order.
        environment: variables of the process.

    Raises:
        ConfigError: of no known form, or a card twice.
        DeviceError: no such card, or indices whose order is not known.
    """
    if gpus == AUTO:
        return unique(visible(devices, environment))
    chosen = [_one(word, devices, environment) for word in _words(gpus)]
    if len(unique(chosen)) < len(chosen):
        raise ConfigError(f"gpus={gpus}: names a card twice; give each once")
    return chosen


def environment_of(devices: Iterable[Device]) -> dict[str, str]:
    """The variables by which a process sees exactly these devices, in this order; of CPUs alone, no card."""
    names = [device.instance or device.uuid for device in devices if device.kind != CPU]
    return {ORDER: BY_PCI, VISIBLE: ",".join(names)}


def hidden_by(environment: Mapping[str, str]) -> str:
    """What hides a card from a process, for messages."""
    return f"{VISIBLE}={environment[VISIBLE]}" if VISIBLE in environment else "an instance of a divided card"


def _named(names: str, cards: Sequence[Device], environment: Mapping[str, str]) -> list[Device]:
    entries = names.split(",")
    if entries[0].startswith(CARD):
        found = _until_none(entries, lambda entry: _by_uuid(entry, cards))
    elif entries[0].startswith(INSTANCE):
        found = _until_none(entries, lambda entry: _by_instance(entry, cards))
    else:
        found = _until_none(entries, lambda entry: _by_index(entry, cards))
        if found:
            _refuse_unknown_order(cards, environment)
    names_of = [device.instance or device.uuid for device in found]
    return found if len(set(names_of)) == len(names_of) else []


def _until_none(entries: Iterable[str], find: Callable[[str], Device | None]) -> list[Device]:
    found = []
    for entry in entries:
        device = find(entry)
        if device is None:
            break
        found.append(device)
    return found


def _by_index(entry: str, cards: Sequence[Device]) -> Device | None:
    """As C's strtol reads a number: leading blanks, a sign, and nothing minded behind it."""
    number = re.match(r"\s*[+-]?\d+", entry)
    index = int(number[0]) if number else -1
    return _first_instance(cards[index]) if 0 <= index < len(cards) else None


def _by_uuid(entry: str, cards: Sequence[Device]) -> Device | None:
    """By a whole UUID, or a beginning that no other card shares."""
    digits = _digits(entry, CARD)
    found = [card for card in cards if digits and _digits(card.uuid, CARD).startswith(digits)]
    return _first_instance(found[0]) if len(found) == 1 else None


def _by_instance(entry: str, cards: Sequence[Device]) -> Device | None:
    """By an instance's own UUID, or by its card's with the numbers of GPU and compute instance (drivers before 470)."""
    if entry.startswith(INSTANCE + CARD):
        uuid, _, numbers = entry.removeprefix(INSTANCE).partition("/")
        owner = _by_uuid(uuid, [card for card in cards if card.instances])
        return replace(owner, instance=entry) if owner and re.fullmatch(r"\d+/\d+", numbers) else None
    digits = _digits(entry, INSTANCE)
    named = [(card, own) for card in cards for own in card.instances]
    found = [(card, own) for card, own in named if digits and _digits(own, INSTANCE).startswith(digits)]
    return replace(found[0][0], instance=found[0][1]) if len(found) == 1 else None


def _digits(name: str, kind: str) -> str:
    """The hexadecimal digits of a UUID or of its beginning; empty where `name` is neither.

    Hyphens may be left out, the digits are of either case, and what follows the last of them is not minded.
    """
    if not name.startswith(kind):
        return ""
    compact = name.removeprefix(kind).replace("-", "").lower()[:UUID_DIGITS]
    return compact if re.fullmatch(r"[0-9a-f]+", compact) else ""


def _first_instance(card: Device) -> Device:
    return replace(card, instance=card.instances[0]) if card.instances else card


def _one_instance(found: list[Device]) -> list[Device]:
    """All of them; where one is an instance of a divided card, the first such alone."""
    instances = [device for device in found if device.instance]
    return instances[:1] or found


def _refuse_unknown_order(cards: Sequence[Device], environment: Mapping[str, str]) -> None:
    """Unless told otherwise CUDA puts the fastest first, by a rule of its own: among equals that is the PCI order."""
    if environment.get(ORDER) == BY_PCI or len({(card.name, card.memory_bytes) for card in cards}) < 2:
        return
    raise DeviceError(
        f"an index names no card for sure among {inventory(cards)}: CUDA numbers the fastest first; set "
        f"{ORDER}={BY_PCI} before the program starts, or give UUIDs"
    )


def _words(gpus: object) -> list[str | int]:
    if gpus is None or gpus == NONE:
        return []
    if isinstance(gpus, str):
        return [word.strip() for word in gpus.split(",")]
    listed = [gpus] if isinstance(gpus, int) else gpus
    if not isinstance(listed, Iterable):
        raise ConfigError(f"gpus={gpus!r}: give auto, none, indices, UUIDs or PCI addresses")
    words: list[str | int] = []
    for word in listed:
        if isinstance(word, bool) or not isinstance(word, str | int):
            raise ConfigError(f"gpus={gpus!r}: {word!r} is no index, UUID or PCI address")
        words.append(word)
    return words


def _one(word: str | int, devices: Sequence[Device], environment: Mapping[str, str]) -> Device:
    if isinstance(word, int) or word.isdecimal():
        return _at(int(word), devices, environment)
    cards = [device for device in devices if device.uuid.startswith(CARD)]
    found = _at_address(word, devices) if _PCI.fullmatch(word) else _by_name(word, devices, cards)
    if found is None:
        raise DeviceError(f"gpus={word}: no such card; there is: {', '.join(_known(devices)) or 'none'}")
    return found


def _by_name(word: str, devices: Sequence[Device], cards: Sequence[Device]) -> Device | None:
    if word.startswith(INSTANCE):
        return _by_instance(word, cards)
    return _by_uuid(word, cards) or next((device for device in devices if device.uuid == word), None)


def _at(index: int, devices: Sequence[Device], environment: Mapping[str, str]) -> Device:
    seen = visible(devices, environment)
    if not 0 <= index < len(seen):
        raise DeviceError(f"gpus={index}: this process sees {len(seen)} GPUs; indices begin at 0")
    if VISIBLE not in environment:
        _refuse_unknown_order(seen, environment)
    return seen[index]


def _at_address(address: str, devices: Sequence[Device]) -> Device | None:
    wanted = _address(address)
    return next((device for device in devices if device.pci_bus_id and _address(device.pci_bus_id) == wanted), None)


def _address(text: str) -> tuple[int, ...] | None:
    """Domain, bus, device and function; NVML writes the domain with 8 digits, the kernel with 4, lspci with none."""
    parts = _PCI.fullmatch(text)
    return tuple(int(part or "0", 16) for part in parts.groups()) if parts else None


def _known(devices: Sequence[Device]) -> list[str]:
    return [f"{device.uuid} ({device.name}, {device.pci_bus_id})" for device in devices]
