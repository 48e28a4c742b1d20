"""Whether plain JSON values are what a dataclass says of its fields, before one is made of them."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check(value: object, kind: Any, name: str) -> None:
    """Raises TypeError, naming the field, where `value` is not of `kind`: a type as an annotation gives it.

    A float may be written as an integer, and both are finite; a tuple is a list; a dataclass is a mapping of its
    fields, of which those with a default may be missing. Keys of mappings are words.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if dataclasses.is_dataclass(kind):
        _check_fields(value, kind, name)
    elif origin in (Union, types.UnionType):
        _check_union(value, arguments, name)
    elif origin is Literal:
        _require(value in arguments, value, name, f"one of {', '.join(map(str, arguments))}")
    elif origin in (list, tuple):
        _require(isinstance(value, list | tuple), value, name, "a list")
        for one in value:  # type: ignore[attr-defined]
            check(one, arguments[0], name)
    elif kind is dict or origin is dict:
        _require(isinstance(value, dict) and all(isinstance(key, str) for key in value), value, name, "a mapping")
        for key, one in value.items() if arguments else ():  # type: ignore[attr-defined]
            check(one, arguments[1], f"{name}.{key}")
    elif kind in (int, float):
        wanted = int if kind is int else int | float
        _require(isinstance(value, wanted) and not isinstance(value, bool), value, name, "a number")
        _require(_is_finite(value), value, name, "a number that is finite")
    else:
        _require(isinstance(value, kind), value, name, kind.__name__)


def _check_union(value: object, kinds: tuple[Any, ...], name: str) -> None:
    if value is None and types.NoneType in kinds:
        return
    [kind] = [kind for kind in kinds if kind is not types.NoneType]
    check(value, kind, name)


def _check_fields(value: object, kind: Any, name: str) -> None:
    _require(isinstance(value, Mapping), value, name, "a mapping")
    assert isinstance(value, Mapping)
    hints = _hints(kind)
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        _require(field.name in value or has_default, "missing", f"{name}.{field.name}", "given")
    for key, one in value.items():
        _require(key in hints, one, f"{name}.{key}", "known to this release")
        check(one, hints[key], f"{name}.{key}")


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _require(condition: bool, value: object, name: str, wanted: str) -> None:
    if not condition:
        raise TypeError(f"{name} is {value!r:.60}, not {wanted}")
