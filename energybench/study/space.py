"""What a search chooses from: Hydra's way of writing a sweep, as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from energybench.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """What varies and what does not.

    Attributes:
        fixed: overrides of every trial.
        swept: key -> the override that says what it is chosen from.
    """

    fixed: tuple[str, ...]
    swept: Mapping[str, Override]

    @classmethod
    def read(cls, params: Mapping[str, str], overrides: Sequence[str]) -> Space:
        """From the sweeper's own parameters, and the command line, which goes before them."""
        texts = [f"{key}={value}" for key, value in params.items()] + list(overrides)
        last = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(texts)}
        fixed = [f"{key}={one.get_value_element_as_str()}" for key, one in last.items() if not one.is_sweep_override()]
        swept = {key: one for key, one in last.items() if one.is_sweep_override()}
        for one in swept.values():
            _check(one)
        return cls(tuple(fixed), swept)

    def example(self) -> list[str]:
        """The overrides of one trial that there might be."""
        return self.overrides({key: _first(one) for key, one in self.swept.items()})

    def overrides(self, chosen: Mapping[str, Any]) -> list[str]:
        """The overrides of the trial for which `chosen` was chosen."""
        return [*self.fixed, *(f"{key}={chosen[key]}" for key in self.swept)]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Key -> what Optuna draws from; imports Optuna."""
        return {key: _distribution(one) for key, one in self.swept.items()}


def _check(override: Override) -> None:
    value = override.value()
    if isinstance(value, Glob):
        raise ConfigError(f"{override.input_line}: a search takes no glob; write the choices out")
    if isinstance(value, IntervalSweep) and not float(value.start or 0) < float(value.end or 0):
        raise ConfigError(f"{override.input_line}: give an interval that rises")
    if "log" in getattr(value, "tags", ()) and not (isinstance(value, IntervalSweep) and float(value.start or 0) > 0):
        raise ConfigError(f"{override.input_line}: the tag log goes with an interval above 0")


def _first(override: Override) -> Any:
    """One value that might be chosen."""
    value = override.value()
    return value.start if isinstance(value, IntervalSweep) else next(override.sweep_string_iterator())


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, RangeSweep):
        numbers = [float(text) for text in override.sweep_string_iterator()]
        if all(number.is_integer() for number in numbers) and float(value.step).is_integer():
            return IntDistribution(int(min(numbers)), int(max(numbers)), step=abs(int(value.step)))
        return FloatDistribution(min(numbers), max(numbers), step=abs(float(value.step)))
    assert isinstance(value, IntervalSweep) and value.start is not None and value.end is not None
    log = "log" in value.tags
    if isinstance(value.start, int) and isinstance(value.end, int):
        return IntDistribution(value.start, value.end, log=log)
    return FloatDistribution(float(value.start), float(value.end), log=log)
