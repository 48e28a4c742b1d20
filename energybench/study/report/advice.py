"""Which setting to choose, network by network: short answers for those who read nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from energybench.study.decision import FIRST_REPEATS
from energybench.study.intervals import Ratio, ratio_of
from energybench.study.payback import paid_back_last
from energybench.study.quantities import Quantity, per, quantity
from energybench.study.report.numbers import scale
from energybench.study.report.settings import Entry, alone
from energybench.study.separation import in_question, repeats_needed
from energybench.study.words import less_or_more

MOST_NAMED = 3
MOST_REPEATS = 50
"""Nobody repeats a training more often than this to tell two settings apart that are so alike."""

_QUESTIONS = (
    ("Least energy an image", "energy_per_image_j"),
    ("Most images a second", "images_per_s"),
    ("Least energy × time (EDP)", "edp_per_image_js"),
    ("Highest top-1 accuracy", "accuracy_top1"),
)
_DERIVED = {one.name: one for one in per("image").values()}


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: "Least energy an image".
        answer: the setting with the best mean.
        number: its value with interval and unit.
        detail: how sure that is, and what would make it surer.
        sure: whether it is told apart from every other.
    """

    question: str
    answer: str
    number: str
    detail: str
    sure: bool


@dataclass(frozen=True)
class Advice:
    """What to choose for one network.

    Attributes:
        network: its name, and its data where it was trained on several.
        sentence: the recommendation in plain words.
        findings: answers to single questions.
    """

    network: str
    sentence: str
    findings: tuple[Finding, ...]


def advice(chosen: Sequence[Entry]) -> tuple[Advice, ...]:
    """One for each network and data set, in order.

    Args:
        chosen: settings that may be compared with each other.
    """
    made = []
    for network, members in by_network(chosen).items():
        found = [_finding(words, _DERIVED.get(name) or quantity(name), members) for words, name in _QUESTIONS]
        made.append(Advice(network, _sentence(network, members), tuple(one for one in found if one is not None)))
    return tuple(made)


def by_network(chosen: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The settings by network, and by data where one network was trained on several; labelled by what differs there."""
    members = list(chosen)
    datasets: dict[str, set[str]] = {}
    for one in members:
        datasets.setdefault(one.network, set()).add(one.dataset)
    found: dict[str, list[Entry]] = {}
    for one in members:
        name = one.network if len(datasets[one.network]) == 1 else f"{one.network} on {one.dataset}"
        found.setdefault(name, []).append(one)
    return {name: alone(of_one) for name, of_one in found.items()}


def _best(members: Sequence[Entry], metric: Quantity) -> list[Entry]:
    """The best mean, and all that cannot be told apart from it."""
    entries = {one.label: one for one in members}
    least = metric.smaller_is_better is not False
    return [entries[row.label] for row in in_question([one.row for one in members], metric, least)]


def _having(members: Sequence[Entry], metric: Quantity) -> int:
    return sum(one.row.sample(metric) is not None for one in members)


def _finding(question: str, metric: Quantity, members: Sequence[Entry]) -> Finding | None:
    best, of = _best(members, metric), _having(members, metric)
    if not best:
        return None
    shown = best[0].shown(metric)
    assert shown is not None
    number = scale(metric.unit, [shown[0]], share=metric.share).with_unit(*shown)
    detail = "the only setting" if of == 1 else _others(of - 1) if len(best) == 1 else _doubt(best, of, metric)
    return Finding(question, best[0].among_its_network, number, detail, len(best) == 1)


def _others(count: int) -> str:
    return "told apart from the other" if count == 1 else f"told apart from the {count:,} others"


def _doubt(best: Sequence[Entry], of: int, metric: Quantity) -> str:
    named = ", ".join(one.among_its_network for one in best[1 : 1 + MOST_NAMED])
    more = len(best) - 1 - MOST_NAMED
    listed = named + (f" and {more:,} more" if more > 0 else "")
    return f"best mean, not told apart from {listed}. {_to_repeat(best, of - 1, metric)}".strip()


def _to_repeat(best: Sequence[Entry], comparisons: int, metric: Quantity) -> str:
    """How many runs would tell the two best apart; nothing where no number of them would."""
    first, second = best[0].row.sample(metric), best[1].row.sample(metric)
    assert first is not None and second is not None
    if len(first.values) < 2 or len(second.values) < 2:
        return f"Single runs tell no scatter: repeat each {FIRST_REPEATS} times (seed=0,1,2)."
    runs = repeats_needed(first, second, comparisons, most=MOST_REPEATS)
    return f"About {runs:,} runs of each of the two best would tell them apart." if runs else ""


def _sentence(network: str, members: Sequence[Entry]) -> str:
    """The recommendation: what takes the least energy, how sure that is, and what the fastest gains and costs."""
    energy, speed = quantity("energy_per_image_j"), quantity("images_per_s")
    best, fast = _best(members, energy), _best(members, speed)
    if not best:
        return "No finished run has an energy that covers its training."
    thrifty, fastest = best[0], fast[0]
    shown = thrifty.shown(energy)
    assert shown is not None
    number = scale("J", [shown[0]]).with_unit(*shown)
    if _having(members, energy) == 1:
        return f"{thrifty.among_its_network}: {number} an image; there is no other setting to compare it with."
    verb = "takes" if len(best) == 1 else "has the lowest mean of energy, though others may be as good:"
    least = "the least energy, " if len(best) == 1 else ""
    told = f"{thrifty.among_its_network} {verb} {least}{number} an image."
    return " ".join(filter(None, [told, _trade(thrifty, fastest), _payback(thrifty, members)]))


def _trade(thrifty: Entry, fastest: Entry) -> str:
    """What the fastest setting costs; nothing where it is the thriftiest."""
    if fastest.label == thrifty.label:
        return "It is the fastest too."
    energy = _ratio(thrifty, fastest, quantity("energy_per_image_j"))
    speed = _ratio(thrifty, fastest, quantity("images_per_s"))
    if energy is None or speed is None:
        return ""
    moved = f"{less_or_more(speed, 'images a second')} and {less_or_more(energy, 'energy an image')}"
    return f"The fastest, {fastest.among_its_network}: {moved}."


def _payback(thrifty: Entry, members: Sequence[Entry]) -> str:
    """What the thriftiest setting takes before it trains, where its own runs were too short to earn it back."""
    found, trained = paid_back_last(thrifty.row, (one.row for one in members)), thrifty.row.estimate("images")
    if found is None or trained is None or found[1].images <= trained.mean:
        return ""
    [name] = [one.among_its_network for one in members if one.row is found[0]]
    return f"It takes {found[1].words(name)}."


def _ratio(before: Entry, after: Entry, metric: Quantity) -> Ratio | None:
    return ratio_of(before.row.sample(metric), after.row.sample(metric))
