"""What of a result can be compared: contract metrics, and what follows from them; their units and what is better."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from energybench.run.metrics import OF_EVERY_ENGINE, WARMUP
from energybench.run.result import Result
from energybench.tracking.record import EPOCH_IMAGES_TAG

BASES = ("image", "epoch", "run", "target-accuracy")
"""What energy and time may be counted for."""

CRITERIA = ("energy", "time", "edp", "ed2p")
"""What may be made least: energy, time, energy x time, energy x time squared."""

ACCURACY = "accuracy_top1"


@dataclass(frozen=True)
class Quantity:
    """One number of a run.

    Attributes:
        name: as metrics are named: unit last.
        words: for a sentence or a table's head.
        unit: of the value; "" for a plain number.
        smaller_is_better: None where neither is.
        energy_power: by which power of energy_j it is proportional to: 1, -1, or 0. Its relative uncertainty follows.
        share: True of what lies from 0 to 1 and is compared by difference in percentage points, not by ratio.
        derive: how it follows from the result; None for a metric that the result has itself.
    """

    name: str
    words: str
    unit: str
    smaller_is_better: bool | None
    energy_power: int = 0
    share: bool = False
    derive: Callable[[Result], float | None] | None = None

    def of(self, result: Result) -> float | None:
        """The value; None where the run has none."""
        return result.metrics.get(self.name) if self.derive is None else self.derive(result)

    def uncertainties(self, result: Result) -> Uncertainties:
        """Standard uncertainties, 0 for what no meter reads."""
        value = self.of(result) if self.energy_power else None
        if value is None:
            return Uncertainties(0.0, 0.0, 0.0)
        factor = abs(value) * abs(self.energy_power)
        return Uncertainties(*(factor * part for part in _energy_uncertainty(result, self.name)))


class Uncertainties(NamedTuple):
    """Parts of a standard uncertainty, by where it is the same.

    Attributes:
        independent: other in every run.
        edges: the same in every run of one setting, whose phases begin and end alike.
        common: the same in every run on one board.
    """

    independent: float
    edges: float
    common: float


def _energy_uncertainty(result: Result, name: str) -> Uncertainties:
    """Of the energy behind a metric, as a share of it; 0 where there is none."""
    found = result.metrics
    phase = name.rpartition(".")[0] + "."
    prefix = phase if f"{phase}energy_j" in found else ""
    energy = found.get(f"{prefix}energy_j")
    if not energy:
        return Uncertainties(0.0, 0.0, 0.0)
    names = ("energy_uncertainty_j", "energy_independent_uncertainty_j", "energy_edges_uncertainty_j")
    whole, without_gain, edges = (found.get(f"{prefix}{one}", 0.0) / energy / 2 for one in names)
    return Uncertainties(_less(without_gain, edges), edges, _less(whole, without_gain))


def _less(whole: float, part: float) -> float:
    """What is left in quadrature."""
    return math.sqrt(max(whole * whole - part * part, 0.0))


def preparations(result: Result) -> tuple[str, ...]:
    """Phases that its engine has of its own before it warms up, such as compile and capture."""
    names = [name.removesuffix(".time_s") for name in result.metrics if name.endswith(".time_s")]
    return tuple(name for name in names if name not in OF_EVERY_ENGINE)


def _before(metric: str, *more: str) -> Callable[[Result], float | None]:
    """Of what an engine prepares, and of `more` phases; None where one of them has no such number."""

    def value(result: Result) -> float | None:
        phases = [*preparations(result), *(phase for phase in more if f"{phase}.time_s" in result.metrics)]
        found = [result.metrics.get(f"{phase}.{metric}") for phase in phases]
        return None if None in found else math.fsum(filter(None, found))

    return value


BEFORE = {
    "energy": Quantity("before_training_j", "energy before training", "J", True, 1, derive=_before("energy_j", WARMUP)),
    "time": Quantity("before_training_s", "time before training", "s", True, derive=_before("time_s", WARMUP)),
}
"""What an engine's own phases take, and warming up, where one without them searches for its algorithms."""


def epoch_images(result: Result) -> float | None:
    """Images of one training epoch; None where no epoch came to its end."""
    if result.epochs:
        return result.epochs[0].get("images")
    told = result.tags.get(EPOCH_IMAGES_TAG)
    return float(told) if told else None


def _image_s(result: Result) -> float | None:
    rate = result.metrics.get("images_per_s")
    return 1 / rate if rate else None


def _an_epoch(an_image: Callable[[Result], float | None]) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        images, one = epoch_images(result), an_image(result)
        return images * one if images is not None and one is not None else None

    return value


def _image_j(result: Result) -> float | None:
    return result.metrics.get("energy_per_image_j")


def _whole_j(result: Result) -> float | None:
    """Joules of the training; None where readings cover only a part of it, as for energy_per_image_j."""
    return result.metrics.get("energy_j") if "edp_js" in result.metrics else None


def _product(
    energy: Callable[[Result], float | None], time: Callable[[Result], float | None], power: int
) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        joules, seconds = energy(result), time(result)
        return joules * seconds**power if joules is not None and seconds is not None else None

    return value


def _metric(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.metrics.get(name)


_SOURCES: dict[str, tuple[Callable[[Result], float | None], Callable[[Result], float | None]]] = {
    "image": (_image_j, _image_s),
    "epoch": (_an_epoch(_image_j), _an_epoch(_image_s)),
    "run": (_whole_j, _metric("time_s")),
    "target-accuracy": (_metric("energy_to_accuracy_j"), _metric("time_to_accuracy_s")),
}
_WORDS = {"image": "an image", "epoch": "an epoch", "run": "a run", "target-accuracy": "to the target accuracy"}
_STEMS = {"image": "per_image", "epoch": "per_epoch", "run": "per_run", "target-accuracy": "to_accuracy"}


def per(basis: str) -> dict[str, Quantity]:
    """The four criteria counted for a basis: 'energy', 'time', 'edp', 'ed2p' -> quantity."""
    energy, time = _SOURCES[basis]
    words, stem = _WORDS[basis], _STEMS[basis]
    return {
        "energy": Quantity(f"energy_{stem}_j", f"energy {words}", "J", True, 1, derive=energy),
        "time": Quantity(f"time_{stem}_s", f"time {words}", "s", True, derive=time),
        "edp": Quantity(f"edp_{stem}_js", f"EDP {words}", "J s", True, 1, derive=_product(energy, time, 1)),
        "ed2p": Quantity(f"ed2p_{stem}_js2", f"ED²P {words}", "J s²", True, 1, derive=_product(energy, time, 2)),
    }


KNOWN: tuple[Quantity, ...] = (
    Quantity("energy_j", "energy", "J", True, 1),
    Quantity("energy_above_idle_j", "energy above idle", "J", True, 1),
    Quantity("energy_per_image_j", "energy an image", "J", True, 1),
    Quantity("time_s", "time", "s", True),
    Quantity("images_per_s", "throughput", "images/s", False),
    Quantity("power_mean_w", "mean power", "W", None, 1),
    Quantity("power_peak_w", "peak power", "W", None),
    Quantity("gflops_per_s", "achieved", "GFLOPS", False),
    Quantity("gflops_per_w", "efficiency", "GFLOPS/W", False, -1),
    Quantity("edp_js", "EDP", "J s", True, 1),
    Quantity("ed2p_js2", "ED²P", "J s²", True, 1, derive=_product(_whole_j, _metric("time_s"), 2)),
    Quantity(ACCURACY, "top-1 accuracy", "", False, share=True),
    Quantity("accuracy_top5", "top-5 accuracy", "", False, share=True),
    Quantity("time_to_accuracy_s", "time to accuracy", "s", True),
    Quantity("energy_to_accuracy_j", "energy to accuracy", "J", True, 1),
)
_BY_NAME = {quantity.name: quantity for quantity in KNOWN}
_UNITS = {"_j": "J", "_s": "s", "_w": "W", "_c": "°C", "_bytes": "bytes"}


def quantity(name: str) -> Quantity:
    """A metric by its name; one that is not in `KNOWN` has the unit that its name ends with and no better or worse."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    known = _BY_NAME.get(name.rpartition(".")[2])  # of a phase: compile.energy_j
    if known is not None and known.derive is None:
        return Quantity(name, name, known.unit, known.smaller_is_better, known.energy_power, known.share)
    unit = next((unit for ending, unit in _UNITS.items() if name.partition(".")[0].endswith(ending)), "")
    if name.endswith("images_per_s"):
        unit = "images/s"
    return Quantity(name, name, unit, None, 1 if name.startswith("energy_j.") else 0)
