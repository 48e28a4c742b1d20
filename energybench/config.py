"""From Hydra's composed configuration to a validated, frozen Experiment.

Hydra takes a misspelt key in a file, `+model.typo=1` and `batch=abc` without a word. So every section is merged with
the dataclass of the part that owns it, and what does not fit becomes one line that names the key and lists the valid
ones.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from energybench.architecture import Network
from energybench.errors import ConfigError, reason
from energybench.experiment import (
    AUTO,
    AUTOMATIC,
    METER,
    NUMBERS,
    SECTIONS,
    TOP_LEVEL,
    Experiment,
    MeterPart,
    Numbers,
    Part,
    Tracking,
)
from energybench.power.calibration import Calibration
from energybench.registry import KINDS, Registry

RESOLVING = "raised while resolving interpolation: "
"""What OmegaConf puts, behind the kind of the error, before what a resolver of ours says."""

_WANTED: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
}
"""Type of a value -> what to give."""

LONGEST_BITS = 63


def resolve(config: DictConfig, registry: Registry) -> Experiment:
    """Validates a composed configuration.

    Raises:
        ConfigError: an unknown key or name, a value of the wrong type or out of range; one line.
        PluginError: the part that was asked for is broken or claimed twice.
    """
    plain = _plain(config)
    for key in plain:
        if key not in TOP_LEVEL:
            raise unknown_key(str(key), registry)
    parts: dict[str, Any] = {kind: _part(kind, plain.get(kind), registry) for kind in KINDS if kind != METER}
    parts[METER] = _meter(METER, plain.get(METER), registry)
    sections: dict[str, Any] = {
        name: fit(name, schema, _section(name, plain), name) for name, schema in SECTIONS.items()
    }
    numbers = fit("", Numbers, {key: plain[key] for key in NUMBERS if key in plain}, "energybench")
    if sections["nodes"].number:
        sections["tracking"] = Tracking("none")  # the first node records for all
    return Experiment(**parts, **sections, **asdict(numbers))


def _plain(config: DictConfig) -> dict[str, Any]:
    """Everything but Hydra's own node, interpolations resolved."""
    try:
        plain = {str(key): _value(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise ConfigError(reason(error).removeprefix(f"{ConfigError.__name__} {RESOLVING}")) from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply, or an interpolation leads to itself") from error
    _refuse_huge("", plain)
    return plain


def _value(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node


def _section(name: str, plain: dict[str, Any]) -> dict[str, Any]:
    value = plain.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={value}: {name} is a section; valid: {', '.join(_keys(SECTIONS[name], name))}")
    return value


def meter(node: Any, registry: Registry) -> MeterPart:
    """The meter of a plain mapping of "name", its options and the core's keys; raises ConfigError."""
    return _meter(METER, node, registry)


def _meter(section: str, node: Any, registry: Registry) -> MeterPart:
    """A meter's own options and, apart from them, the keys that are the core's."""
    if not isinstance(node, dict):
        return MeterPart(**vars(_part(METER, node, registry)))
    core = _core_keys(section)
    part = _part(METER, {key: value for key, value in node.items() if key not in core}, registry, section)
    corrections = _mapping(f"{section}.calibration", node.get("calibration"), "UUID").items()
    calibration = {device: _calibration(f"{section}.calibration.{device}", values) for device, values in corrections}
    further = _mapping(f"{section}.also", node.get("also"), "label").items() if "also" in core else ()
    also = {label: _meter(f"{section}.also.{label}", {"name": label, **values}, registry) for label, values in further}
    return MeterPart(part.name, part.options, calibration, also)


def _calibration(key: str, values: dict[str, Any]) -> Calibration:
    try:
        calibration: Calibration = fit(key, Calibration, values, "a calibration")
    except ConfigError as error:
        raise error if key in str(error) else ConfigError(f"{key}: {error}") from error
    return calibration


def _mapping(key: str, node: Any, of: str) -> dict[str, dict[str, Any]]:
    values = {} if node is None else node
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise ConfigError(f"{key}={node}: give a mapping, {of}: {{key: value}}")
    return {str(name): {str(key): value for key, value in options.items()} for name, options in values.items()}


def _core_keys(section: str) -> tuple[str, ...]:
    """Keys of a meter's section that are the core's and not the meter's."""
    if section == METER:
        return ("calibration", "also")
    return ("calibration",) if re.fullmatch(rf"{METER}\.also\.[^.]*", section) else ()


def _part(kind: str, node: Any, registry: Registry, section: str = "") -> Part:
    section = section or kind
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise ConfigError(f"{section}={node}: choose one of {', '.join(registry.names(kind))}")
    options = {key: value for key, value in node.items() if key != "name"}
    name = node["name"]
    schema = AUTOMATIC[kind] if name == AUTO and section in AUTOMATIC else registry.get(kind, name).schema
    known = {field.name for field in dataclasses.fields(schema)}
    strange = [key for key in options if key not in known]
    if strange and section == kind:  # as +meter.tdp_w=65, which Hydra lets through
        raise unknown_key(f"{kind}.{strange[0]}", registry, name)
    fitted = fit(section, schema, options, f"{kind} {name!r}")
    return Part(name, asdict(fitted))


def fit(section: str, schema: Any, values: dict[str, Any], owner: str) -> Any:
    """An instance of dataclass `schema` from plain `values`.

    Raises:
        ConfigError: names the key (prefixed by `section`), the value and what `owner` takes.
    """
    try:
        base = OmegaConf.structured(schema)
        _make_writable(base)
        fitted: Any = OmegaConf.to_object(OmegaConf.merge(base, values))
    except ConfigKeyError as error:
        raise _misspelt(error, section, schema, owner) from error
    except OmegaConfBaseException as error:
        key = ".".join(filter(None, (section, error.full_key)))
        raise _wrong_type(error, key) from error
    _refuse_non_finite(section, asdict(fitted))
    _refuse_huge(section, asdict(fitted))
    return fitted


def _wrong_type(error: OmegaConfBaseException, key: str) -> ConfigError:
    """What is given, and what to give; in OmegaConf's words where it does not tell the type that it wants."""
    node, value = error.child_node, error.value
    kind = None if node is None else node._metadata.ref_type
    wanted = _WANTED.get(get_origin(kind) or kind)
    if wanted is None:
        return ConfigError(f"{key}: {reason(error)}")
    if OmegaConf.is_list(value) and len(value) > 1:
        wanted = f"{wanted.replace('a ', 'one ', 1)}, or sweep with {key}={','.join(map(str, value))} -m"
    elif node is not None and node._is_optional():
        wanted = f"{wanted}, or null"
    return ConfigError(f"{key}={'null' if value is None else value}: give {wanted}")


def _misspelt(error: ConfigKeyError, section: str, schema: Any, owner: str) -> ConfigError:
    """The keys that would do are those of the dataclass it stands in, which may be one within `schema`."""
    key = error.full_key or str(error.key)
    within = ".".join(filter(None, (section, key.rpartition(".")[0])))
    inner = error.object_type if dataclasses.is_dataclass(error.object_type) else schema
    return _unknown(f"{section}.{key}" if section else key, _keys(inner, within), owner)


def _make_writable(node: Any) -> None:
    """Lets values be merged into nodes of frozen dataclasses, those within others too."""
    OmegaConf.set_readonly(node, False)
    for key in node:
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            _make_writable(node[key])


def _keys(schema: Any, section: str) -> list[str]:
    names = [f.name for f in dataclasses.fields(schema)]
    return [f"{section}.{name}" if section else name for name in (*names, *_core_keys(section))]


def _unknown(key: str, valid: Iterable[str], owner: str, add: str = "") -> ConfigError:
    """`add` is what would make it known, if that is another choice of its section."""
    valid = list(valid)
    options = {name.rpartition(".")[2]: name for name in valid}
    close = [] if add else difflib.get_close_matches(key.rpartition(".")[2], options, n=1)
    guess = f"; did you mean {options[close[0]]!r}?" if close else ""
    return ConfigError(f"unknown key {key!r}{guess}; {owner} takes: {', '.join(valid) or 'no options'}{add}")


def unknown_key(key: str, registry: Registry, chosen: str | None = None) -> ConfigError:
    """The error for a key that no section knows.

    Args:
        key: as written.
        registry: where parts are found.
        chosen: name of the part of its section, whose keys are listed; None: not known.
    """
    section, _, option = key.partition(".")
    if not option or section not in (*KINDS, *SECTIONS):
        return _unknown(key, TOP_LEVEL, "energybench")
    if section in SECTIONS:
        return _unknown(key, _keys(SECTIONS[section], section), section)
    name = option.split(".")[0]
    schemas = {entry.name: entry.schema for entry in registry.registered(section)}
    fields = {part: {f.name: f for f in dataclasses.fields(schema)} for part, schema in schemas.items()}
    takers = [part for part in fields if name in fields[part]]
    if name in _core_keys(section) or (chosen in takers and fields[chosen][name].default_factory is dict):
        return ConfigError(
            f"{key}: entries of it are new keys, so on the command line it begins with +, as in +{key}=..."
        )
    add = f"; add {' or '.join(f'{section}={taker}' for taker in takers)}" if takers else ""
    schema = AUTOMATIC.get(section) if chosen == AUTO else schemas.get(chosen or "")
    if schema is None:
        return ConfigError(f"unknown key {key!r}{add}")
    return _unknown(key, _keys(schema, section), f"{section} {chosen!r}", add)


def make(registry: Registry, kind: str, part: Part) -> Any:
    """The part itself: its factory called with its options. A model also wants classes: see `make_architecture`."""
    entry = registry.get(kind, part.name)
    return entry.factory(fit(kind, entry.schema, part.options, f"{kind} {part.name!r}"))


def make_architecture(registry: Registry, part: Part, classes: int) -> Network:
    """The network of `part` for `classes` classes."""
    entry = registry.get("model", part.name)
    network: Network = entry.factory(fit("model", entry.schema, part.options, f"model {part.name!r}"), classes)
    return network


def _refuse_non_finite(section: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{section}.{key}={value}: give a finite number")


def _refuse_huge(key: str, value: Any) -> None:
    """Whole numbers that no array, counter or file of ours can hold; Python's own have no end."""
    if isinstance(value, int) and value.bit_length() > LONGEST_BITS:
        raise ConfigError(f"{key}: a whole number of {value.bit_length():,} bits; give one of {LONGEST_BITS} at most")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        _refuse_huge(f"{key}.{name}" if key else str(name), inner)
