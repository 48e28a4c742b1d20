"""What the study claimed, asked again of these runs: each claim in its own words, and what the numbers say to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from energybench.run.result import devices_of
from energybench.study.effects import BATCH, COUNT, GENERATION, Effect, Matched, effects, energy_follows_time
from energybench.study.intervals import CONFIDENCE
from energybench.study.quantities import ACCURACY, quantity
from energybench.study.report.tables import Cell, Column, Table, text_cells
from energybench.study.rows import Row
from energybench.study.words import accuracy_moved, less_or_more

_ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        statement: as the study's abstract has it.
        answers: what these runs say, a sentence each.
    """

    statement: str
    answers: tuple[str, ...]


def claims(table: Sequence[Row]) -> tuple[Claim, ...]:
    """The claims of the study, with answers from rows that may be compared with each other.

    Estimated energy answers none that is about energy: it is a constant power times the time.
    """
    newer = _NOT_ESTIMATED if _estimated(table) else _generations(table)
    return (
        Claim("Energy follows performance.", (_correlation(table),)),
        Claim("The newer generation takes less energy: Pascal gains up to 40 % over Maxwell.", newer),
        Claim("Larger batches save time and energy.", _batches(table, _energy_and_speed(table))),
        Claim("Accuracy sometimes prefers the small batch.", _batches(table, (ACCURACY,))),
        Claim("Several GPUs train one network faster.", _counts(table)),
    )


_NOT_ESTIMATED = ("Not answered: no sensor was read.",)


def _estimated(table: Sequence[Row]) -> bool:
    return any(row.group[0] == "estimated" for row in table)


def _energy_and_speed(table: Sequence[Row]) -> tuple[str, ...]:
    return ("images_per_s",) if _estimated(table) else ("energy_per_image_j", "images_per_s")


def effects_table(name: str, table: Sequence[Row]) -> Table:
    """Every effect behind the claims, one a row."""
    found = [
        *_of(table, GENERATION, _energy_and_speed(table), _oldest(table)),
        *_of(table, BATCH, (*_energy_and_speed(table), ACCURACY)),
        *_of(table, COUNT, _energy_and_speed(table)),
    ]
    heads = (
        Column("factor", "factor"),
        Column("level", "level"),
        Column("reference", "against"),
        Column("quantity", "quantity"),
        Column("matches", "matched settings", True),
        Column("change", "change", True),
        Column("interval", "95 % interval", True),
        Column("range", "least to most", True),
        Column("more", "more beyond chance", True),
        Column("less", "less beyond chance", True),
    )
    note = (
        "Matched settings are equal in all else. Change: geometric mean of the matches' ratios (of accuracy the mean "
        "difference in percentage points), with Student's t over the matches, or over the repeats of a single match. "
        "Beyond chance: matches whose own difference has p < 0.05 after Holm's correction."
    )
    return Table(name, "What each factor does, other things being equal", heads, tuple(map(_row, found)), note)


def _of(table: Sequence[Row], factor: str, metrics: Iterable[str], reference: str | None = None) -> list[Effect]:
    return [effect for metric in metrics for effect in effects(table, factor, metric, reference)]


def _row(effect: Effect) -> tuple[Cell, ...]:
    changes = [_change(match) for match in effect.matches]
    mean, low, high = _ends(effect)
    points = effect.ratio is None
    return (
        *text_cells(effect.factor, effect.level, effect.reference, quantity(effect.metric).words),
        Cell(str(len(effect.matches)), len(effect.matches)),
        Cell(_signed(mean, points), mean),
        Cell("" if low is None or high is None else f"{_signed(low, points)} to {_signed(high, points)}", low),
        Cell(
            f"{_signed(min(changes), points)} to {_signed(max(changes), points)}" if len(changes) > 1 else "",
            min(changes),
        ),
        *(Cell(str(count), count) for count in _beyond_chance(effect)),
    )


def _range(changes: Sequence[float], points: bool) -> str:
    return f"{_signed(min(changes), points)} to {_signed(max(changes), points)}" if len(changes) > 1 else ""


def _change(match: Matched) -> float:
    """Relative, or of shares absolute."""
    if match.ratio is not None:
        return match.ratio.value - 1
    return match.difference.value if match.difference is not None else 0.0


def _ends(effect: Effect) -> tuple[float, float | None, float | None]:
    """Change and the ends of its interval."""
    if effect.ratio is not None:
        low, high = (None if end is None else end - 1 for end in (effect.ratio.low, effect.ratio.high))
        return effect.ratio.value - 1, low, high
    assert effect.difference is not None
    return effect.difference.value, effect.difference.low, effect.difference.high


def _beyond_chance(effect: Effect) -> tuple[int, int]:
    """How many matches have more, and how many less, beyond chance."""
    found = [match for match in effect.matches if match.adjusted_p is not None and match.adjusted_p < _ALPHA]
    more = sum(_change(match) > 0 for match in found)
    return more, len(found) - more


def _signed(change: float, points: bool) -> str:
    """'+12.3 %', '−0.8 points'."""
    text = f"{100 * abs(change):.2f}" if points else f"{100 * abs(change):.1f}"
    sign = "−" if change < 0 else "+"
    return f"{sign}{text} {'points' if points else '%'}"


def _correlation(table: Sequence[Row]) -> str:
    found = energy_follows_time(table)
    if isinstance(found, str):
        return f"Not answered: {found}."
    ends = "" if found.low is None else f" (95 %: {found.low:.2f} to {found.high:.2f})"
    within = " within networks" if found.networks > 1 else ""
    return (
        f"Over {found.settings} settings, the logarithms of energy and time an image correlate{within} with "
        f"r = {found.r:.2f}{ends}; energy grows as time to the power {found.slope:.2f}, where 1 is a constant power."
    )


def _generations(table: Sequence[Row]) -> tuple[str, ...]:
    found = effects(table, GENERATION, "energy_per_image_j", _oldest(table))
    if not found:
        return ("Not answered: one generation, or no settings that differ in it alone.",)
    return tuple(_sentence(effect, "energy an image") for effect in found)


def _oldest(table: Sequence[Row]) -> str | None:
    """The generation of the lowest rank, as the driver orders them."""
    ranks: dict[str, int] = {}
    for row in table:
        for result in row.results:
            for board in devices_of(result.provenance):
                ranks.setdefault(str(board.get("generation")), int(board.get("rank") or 0))
    known = [row.factors.get(GENERATION, "") for row in table]
    return min((name for name in ranks if name in known), key=lambda name: ranks[name], default=None)


def _batches(table: Sequence[Row], metrics: Sequence[str]) -> tuple[str, ...]:
    words = {"energy_per_image_j": "energy an image", "images_per_s": "images a second", ACCURACY: "top-1 accuracy"}
    found = {metric: effects(table, BATCH, metric) for metric in metrics}
    answers = [_sentence(effect, words[metric]) for metric, several in found.items() for effect in several[-1:]]
    if answers:
        return tuple(answers)
    if metrics == (ACCURACY,) and not any(row.sample(ACCURACY) for row in table):
        return ("Not answered: no run has an accuracy.",)
    return ("Not answered: one batch, or no settings that differ in it alone.",)


def _counts(table: Sequence[Row]) -> tuple[str, ...]:
    metered = () if _estimated(table) else effects(table, COUNT, "energy_per_image_j")
    joules = {effect.level: effect.ratio for effect in metered if effect.ratio is not None}
    answers = []
    for effect in effects(table, COUNT, "images_per_s"):
        if effect.ratio is not None:
            said = [less_or_more(effect.ratio, "images a second")]
            said += [less_or_more(joules[effect.level], "energy an image")] if effect.level in joules else []
            answers.append(f"{_between(effect)}: {', and '.join(said)}.")
    return tuple(answers) or ("Not answered: one number of devices, or no settings that differ in it alone.",)


def _sentence(effect: Effect, words: str) -> str:
    """What one level does, how much it varies over the settings, and in how many of them it is beyond chance."""
    if effect.ratio is not None:
        said = less_or_more(effect.ratio, words)
    else:
        assert effect.difference is not None
        said = accuracy_moved(effect.difference)
    changes, points = [_change(match) for match in effect.matches], effect.ratio is None
    span = f", from {_range(changes, points)}" if len(changes) > 1 else ""
    more, less = _beyond_chance(effect)
    tested = any(match.adjusted_p is not None for match in effect.matches)
    chance = f" Beyond chance: more in {more}, less in {less} of {len(changes)}." if tested else ""
    return f"{_between(effect)}: {said}{span}.{chance}"


def _between(effect: Effect) -> str:
    """'Batch 256 against 64, 16 matched settings'."""
    count = len(effect.matches)
    levels = {
        BATCH: f"Batch {effect.level} against {effect.reference}",
        COUNT: f"{effect.level} devices against {effect.reference}",
    }
    asked = levels.get(effect.factor, f"{effect.level} against {effect.reference}")
    return f"{asked}, {count} matched setting{'s' * (count != 1)}"
