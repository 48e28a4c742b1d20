"""Numbers and changes as people read them: 58.3 ± 1.2 mJ, 31 % less energy (28 to 34 %), same accuracy within ±0.3."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from energybench.study.intervals import ROUNDING, Difference, Estimate, Ratio

_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}


def scaled(values: Iterable[float], unit: str) -> tuple[float, str]:
    """(factor, unit) that bring the smallest of the values to 1 to 1000: [0.0583] J -> (1000, "mJ")."""
    sizes = [abs(value) for value in values if value]
    if not sizes or not unit.startswith(("J", "s", "W")):
        return 1.0, unit
    step = max(min(math.floor(math.log10(min(sizes)) / 3), 4), -4)
    if unit.startswith("s"):
        step = min(step, 0)  # kiloseconds are nobody's
    return 10.0 ** (-3 * step), f"{_PREFIXES[step]}{unit}"


def plus_minus(mean: float, half_width: float, *, percent: bool = False) -> str:
    """'70.9 ± 3.0': the half width with two significant digits, and the mean as far (GUM 7.2.6)."""
    scale, unit = (100.0, " %") if percent else (1.0, "")
    decimals = max(0, 1 - math.floor(math.log10(half_width * scale)))
    return f"{mean * scale:,.{decimals}f} ± {half_width * scale:,.{decimals}f}{unit}"


def real(half_width: float | None, mean: float) -> float | None:
    """The half width of an interval; None where there is none, or no more than arithmetic makes it."""
    return half_width if half_width is not None and half_width > ROUNDING * abs(mean) else None


def amount(found: Estimate | None, factor: float = 1.0, *, share: bool = False) -> str:
    """'58.3 ± 1.2', or '58.31' of a single run, or '-'."""
    if found is None:
        return "-"
    if half_width := real(found.half_width, found.mean):
        return plus_minus(found.mean * factor, half_width * factor, percent=share)
    return f"{found.mean:.2%}".replace("%", " %") if share else digits(found.mean * factor)


def digits(value: float, count: int = 4) -> str:
    """With `count` significant digits and no exponent where it can be helped: 12,340, 1.234, 0.01234."""
    if value == 0 or not 1e-6 <= abs(value) < 1e15:
        return f"{value:.{count}g}"
    decimals = max(0, count - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def sized(value: float, unit: str, count: int = 4) -> str:
    """'58.31 mJ'."""
    factor, shown = scaled([value], unit)
    return f"{digits(value * factor, count)} {shown}"


def rounded(value: float, count: int = 3) -> str:
    """A whole number with no more than `count` significant digits: '251,000'."""
    return f"{float(f'{value:.{count}g}'):,.0f}"


def with_unit(found: Estimate | None, unit: str) -> str:
    """'58.3 ± 1.2 mJ'."""
    if found is None:
        return "not known"
    factor, shown = scaled([found.mean], unit)
    return f"{amount(found, factor)} {shown}"


def percent(share: float) -> str:
    """'31', '4.2', '0.31': of a share, without its sign; two significant digits below ten."""
    value = abs(share) * 100 if abs(share) > ROUNDING else 0.0
    if value >= 9.95:
        return f"{value:.0f}"
    return f"{value:#.2g}" if value >= 0.1 else f"{value:.1g}"


def less_or_more(ratio: Ratio, what: str) -> str:
    """'31 % less energy (28 to 34 %)', or '1.2 % less energy, not told apart (-3.0 to +0.6 %)'."""
    return _moved(ratio, f"less {what}", f"more {what}")


def faster_or_slower(ratio: Ratio) -> str:
    """Of times: '4.1 % slower (3.2 to 5.0 %)', '31 % less time (28 to 34 %)', or '..., not told apart (...)'."""
    return _moved(ratio, "less time", "slower")


def _moved(ratio: Ratio, fewer: str, more: str) -> str:
    move = ratio.value - 1
    said = f"{percent(move)} % {fewer if move < 0 else more}"
    if ratio.low is None or ratio.high is None:
        return f"{said} (single runs: no interval)"
    ends = (ratio.low - 1, ratio.high - 1)
    if ends[0] <= 0 <= ends[1]:
        return f"{said}, not told apart ({signed(ends[0])} to {signed(ends[1])} %)"
    first, second = sorted(abs(end) for end in ends)
    return f"{said} ({percent(first)} to {percent(second)} %)"


def signed(share: float) -> str:
    """'-31', '+0.5', '0'."""
    return "0" if abs(share) <= ROUNDING else f"{'-' if share < 0 else '+'}{percent(share)}"


def accuracy_moved(difference: Difference) -> str:
    """'the same accuracy within ±0.3 percentage points', or '0.8 percentage points less accurate (0.5 to 1.1)'."""
    value = difference.value * 100
    said = f"{_points(value)} percentage points {'more' if value > 0 else 'less'} accurate"
    if difference.low is None or difference.high is None:
        return f"{said} (single runs: no interval)" if value else "the same accuracy (single runs: no interval)"
    low, high = difference.low * 100, difference.high * 100
    if low <= 0 <= high:
        widest = max(abs(low), abs(high))
        return (
            f"the same accuracy within ±{_points(widest)} percentage points"
            if widest > ROUNDING
            else "the same accuracy"
        )
    first, second = sorted((abs(low), abs(high)))
    return f"{said} ({_points(first)} to {_points(second)})"


def _points(value: float) -> str:
    """Two significant digits, and never an exponent."""
    return percent(value / 100)


def chance(probability: float) -> str:
    """'97 %', 'more than 99.9 %': of a share of redraws."""
    if probability > 0.999:
        return "more than 99.9 %"
    if probability < 0.001:
        return "less than 0.1 %"
    return f"{probability:.0%}".replace("%", " %") if 0.01 <= probability <= 0.99 else f"{probability * 100:.1f} %"


def listed(words: Sequence[str], most: int = 6) -> str:
    """'a; b; c' of a few, '...; and 12 more' of many."""
    kept = "; ".join(words[:most])
    return kept if len(words) <= most else f"{kept}; and {len(words) - most} more"
