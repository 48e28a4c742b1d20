"""A decision in plain words, as a table, and as JSON: `energybench recommend`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from energybench.study.columns import Column, Columns
from energybench.study.costs import Rates
from energybench.study.decision import FIRST_REPEATS, Decision, Repeats, Setting
from energybench.study.intervals import Ratio
from energybench.study.payback import CRITERIA, Payback, paid_back_last
from energybench.study.redraws import DRAWS
from energybench.study.rows import Row, deciding
from energybench.study.separation import MOST_REPEATS
from energybench.study.summary import heading
from energybench.study.words import (
    accuracy_moved,
    amount,
    chance,
    faster_or_slower,
    less_or_more,
    listed,
    scaled,
    with_unit,
)

LEAST = {"energy": "the least energy", "time": "the least time", "edp": "the least EDP", "ed2p": "the least ED²P"}
BASIS = {"image": "an image", "epoch": "an epoch", "run": "a run", "target-accuracy": "to the target accuracy"}


def title(decision: Decision) -> str:
    """What was compared: 'energy of the gpu (TITAN Xp), measured by nvml; data set digits; 12 settings, 36 runs'."""
    if not decision.settings:
        return f"data set {decision.dataset}; no setting has what is asked for"
    runs = [result for setting in decision.settings for result in setting.row.finished]
    return f"{heading(runs)}; data set {decision.dataset}; {len(decision.settings)} settings, {len(runs)} runs"


def lines(decision: Decision, rates: Rates) -> list[str]:
    """The answer, how sure it is, what cannot be told apart, and what to repeat: one line each."""
    said = [*_answer(decision, rates), *_sureness(decision), *_alternatives(decision), *_further(decision)]
    if decision.source == "estimated":
        said.append(
            "Estimated energy is a constant power times the time: it ranks settings of one device as their time does."
        )
    left = [f"{label} ({why})" for label, why in decision.left_out.items()]
    if left and decision.settings:
        said.append(f"Left out: {listed(left)}")
    hidden = len(decision.settings) - len(shown_settings(decision))
    return [*said, f"{hidden} more settings are not in the table; --json has all."] if hidden else said


def _answer(decision: Decision, rates: Rates) -> Iterator[str]:
    question, chosen = decision.question, decision.chosen
    if chosen is None:
        yield from _nothing(decision)
        return
    meeting = sum(not setting.unmet for setting in decision.settings)
    among = f"{meeting} settings" if meeting != 1 else "the only setting"
    that = " that meet" + "s" * (meeting == 1) + " what you ask" if _constraints(decision) else ""
    yield f"Train with {chosen.label}: {LEAST[question.criterion]} {BASIS[question.per]} of {among}{that}."
    yield f"  {_facts(chosen, decision)}"
    if decision.against is not None:
        yield f"  {_against(decision)}"
    elif question.baseline is not None:
        yield f"  Your present setting ({question.baseline}) is not among these: the two are not compared."
    if (dearest := _payback(decision)) is not None:
        yield f"  It takes {dearest[1].words(dearest[0].label)}."
    yield from (f"  {line}" for line in _cost(chosen, decision, rates))


def _facts(setting: Setting, decision: Decision) -> str:
    asked, found = decision.question.quantities, setting.estimates
    parts = [
        f"{asked[name].words} {with_unit(found[name], asked[name].unit)}"
        for name in ("energy", "time")
        if name in found
    ]
    if "accuracy" in found:
        parts.append(f"top-1 accuracy {amount(found['accuracy'], share=True)}")
    return "; ".join(parts)


def _against(decision: Decision) -> str:
    against = decision.against
    assert against is not None and decision.chosen is not None
    if against.baseline == decision.chosen.label:
        return "That is your present setting."
    parts = []
    if "energy" in against.ratios:
        parts.append(less_or_more(against.ratios["energy"], "energy"))
    if "time" in against.ratios:
        parts.append(faster_or_slower(against.ratios["time"]))
    if against.accuracy is not None:
        parts.append(accuracy_moved(against.accuracy))
    return f"Against your present setting ({against.baseline}): {'; '.join(parts)}."


def _payback(decision: Decision) -> tuple[Row, Payback] | None:
    """Of what the chosen setting prepares, against those that meet what is asked and take less for a while.

    A run's length is the user's; where a whole run is asked for, it is the run's.
    """
    chosen, criterion = decision.chosen, decision.question.criterion
    if chosen is None or criterion not in CRITERIA or decision.question.per not in ("image", "epoch"):
        return None
    return paid_back_last(chosen.row, (one.row for one in decision.settings if not one.unmet), criterion)


def _cost(setting: Setting, decision: Decision, rates: Rates) -> Iterator[str]:
    """Of a thousand runs, or a million images: what a single one costs is too small to be read."""
    if not rates.given or "energy" not in setting.estimates:
        return
    many, words = _MANY[decision.question.per]
    cost = rates.of(setting.estimates["energy"].mean * many)
    parts = [f"{cost.kwh:.4g} kWh"]
    if cost.price is not None:
        parts.append(f"{cost.price:.4g} {rates.currency}".strip())
    if cost.carbon_g is not None:
        parts.append(f"{cost.carbon_g / 1000:.4g} kg CO2e")
    given = [f"PUE {rates.pue:g}"] if rates.pue is not None else []
    if rates.price_per_kwh is not None:
        given.append(f"{rates.price_per_kwh:g} {rates.currency} a kWh".replace("  ", " "))
    if rates.carbon_g_per_kwh is not None:
        given.append(f"{rates.carbon_g_per_kwh:g} g CO2e a kWh")
    yield f"{words}: {', '.join(parts)} (with your {', '.join(given)})"


_MANY = {
    "image": (1_000_000, "A million images"),
    "epoch": (1, "An epoch"),
    "run": (1, "A run"),
    "target-accuracy": (1, "Training to the target accuracy"),
}


def _constraints(decision: Decision) -> list[str]:
    question = decision.question
    found = []
    if question.min_accuracy is not None:
        found.append(f"top-1 accuracy of at least {question.min_accuracy:.4g}")
    if question.max_slowdown is not None:
        found.append(f"at most {question.max_slowdown * 100:g} % slower than the fastest of them")
    if question.max_energy_j is not None:
        found.append(f"at most {question.max_energy_j:g} J {BASIS[question.per]}")
    return found


def _nothing(decision: Decision) -> Iterator[str]:
    if not decision.settings:
        yield f"No setting can be recommended: {listed(list(dict.fromkeys(decision.left_out.values())))}."
        return
    yield f"No setting meets what you ask: {'; '.join(_constraints(decision)) or 'every run reaches the target'}."
    near = decision.nearest
    if near is not None:
        yield f"The nearest is {near.label}: {'; '.join(near.unmet.values())}."
        yield f"  {_facts(near, decision)}"


def _sureness(decision: Decision) -> Iterator[str]:
    chosen = decision.chosen
    if chosen is None:
        return
    meeting = sum(not setting.unmet for setting in decision.settings)
    if meeting < 2:
        yield "How sure: there is no other setting to compare it with."
    elif chosen.probability is None:
        once = [setting.label for setting in decision.settings if not setting.unmet and _once(setting, decision)]
        yield f"How sure: not known. A single run tells no scatter, and nothing can be told from it: {listed(once, 4)}."
    else:
        others = len(decision.tied)
        apart = f"not told apart from {others} other{'s' * (others > 1)}" if others else "told apart from every other"
        sure = chance(chosen.probability)
        yield f"How sure: it is the best with a probability of {sure} ({DRAWS:,} redraws of the repeats); {apart}."
    yield from (f"  Not surely what you ask: its {words}." for words in chosen.doubtful.values())
    flags = [flag for result in chosen.row.finished if (flag := result.tags.get("quality", "ok")) != "ok"]
    if flags:
        yield f"  Something speaks against its numbers: {listed(list(dict.fromkeys(flags)))} (docs/quality.md)."


def _once(setting: Setting, decision: Decision) -> bool:
    return setting.estimates[decision.question.criterion].repeats < 2


def _alternatives(decision: Decision) -> Iterator[str]:
    if not decision.tied:
        return
    yield "Cannot be told apart from it:"
    found = {repeat.setting: repeat for repeat in decision.repeats}
    for setting in decision.tied[:MOST]:
        repeat = found[setting.label]
        yield f"  {setting.label}: {_ratio(setting, repeat.ratio, decision)}; {_advice(repeat)}"
    if len(decision.tied) > MOST:
        yield f"  and {len(decision.tied) - MOST} more"


MOST = 8
"""Alternatives that are spelt out."""


def _ratio(setting: Setting, ratio: Ratio, decision: Decision) -> str:
    """How a setting that is not told apart compares with the chosen one, and why it is not where the ratio says so."""
    criterion = decision.question.criterion
    if criterion == "time":
        said = faster_or_slower(ratio)
    else:
        said = less_or_more(ratio, {"energy": "energy", "edp": "EDP", "ed2p": "ED²P"}[criterion])
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return said
    assert decision.chosen is not None
    mine, best = setting.estimates[criterion], decision.chosen.estimates[criterion]
    overlap = abs(mine.mean - best.mean) <= (mine.half_width or 0.0) + (best.half_width or 0.0)
    return f"{said}, yet {'their intervals overlap' if overlap else 'not certain among so many settings'}"


def _advice(repeat: Repeats) -> str:
    if repeat.why == "boards":
        return (
            "no repeats will tell: the gains of their boards are not known so well; run both on one board, or calibrate"
        )
    if repeat.why == "edges":
        return "no repeats will tell: of phases so short the meter sees too little; train longer between validations"
    if repeat.why == "alike":
        return f"more than {MOST_REPEATS} runs of each would be needed: take either"
    return (
        f"{repeat.runs} runs of each would tell, if they scatter as they do"
        if repeat.runs != FIRST_REPEATS
        else (f"{repeat.runs} runs of each, to begin with")
    )


def _further(decision: Decision) -> Iterator[str]:
    """Commands that add the runs that are missing."""
    wanted = more_runs(decision)
    if wanted:
        yield "To become surer:"
        for row, runs in wanted[:MOST]:
            yield f"  energybench {command(row, runs)}"


def more_runs(decision: Decision) -> list[tuple[Row, int]]:
    """The settings to repeat, the chosen one first, with the number of runs that each still lacks."""
    numbers = {repeat.setting: repeat.runs for repeat in decision.repeats if repeat.runs is not None}
    if not numbers or decision.chosen is None:
        return []
    rows = [decision.chosen.row, *(setting.row for setting in decision.tied)]
    wanted = {**numbers, decision.chosen.label: max(numbers.values())}
    lacking = [(row, wanted.get(row.label, 0) - len(row.finished)) for row in rows]
    return [(row, count) for row, count in lacking if count > 0]


def command(row: Row, runs: int) -> str:
    """What to type behind `energybench` for so many more runs of a setting: what makes it, and seeds it has not had."""
    had = [int(seed) for result in row.results if str(seed := result.config.get("seed", 0)).lstrip("-").isdigit()]
    first = max(had, default=-1) + 1
    seeds = ",".join(str(first + index) for index in range(runs)) if runs <= SPELT else f"range({first},{first + runs})"
    return shlex.join([*deciding(row.results[0]).values(), f"seed={seeds}", "-m"])


SPELT = 8
"""Seeds that are spelt out in a command; of more, Hydra's range is shorter."""


def table(decision: Decision) -> Columns:
    """Every setting: energy, time, accuracy, EDP, ED²P; the Pareto front marked, and what is not met said."""
    from rich.text import Text

    shown = shown_settings(decision)
    columns = [Column("setting", [Text(_marked(setting, decision)) for setting in shown], number=False)]
    columns += _numbers(decision, shown)
    columns.append(Column("front", [Text("yes" * setting.on_front) for setting in shown], spare=SPARE["front"]))
    if any(setting.probability is not None for setting in shown):
        chances = [Text(_chance(setting.probability)) for setting in shown]
        columns.append(Column("best in", chances, spare=SPARE["best in"]))
    runs = [Text(str(len(setting.row.finished))) for setting in shown]
    columns.append(Column("runs", runs, spare=SPARE["runs"]))
    if any(setting.unmet for setting in shown):
        columns.append(Column("not met", [Text("; ".join(setting.unmet)) for setting in shown], number=False))
    strong = frozenset(index for index, setting in enumerate(shown) if setting is decision.chosen)
    return Columns(title(decision), tuple(columns), strong)


SPARE = {"ed2p": 6, "edp": 5, "front": 4, "best in": 3, "runs": 2, "time": 1}
"""Columns that a narrow terminal does without, unless it is what was asked; see `Column.spare`."""


def _marked(setting: Setting, decision: Decision) -> str:
    return f"{setting.label} *" if setting is decision.chosen else setting.label


def _numbers(decision: Decision, shown: Sequence[Setting]) -> Iterator[Column]:
    """EDP and ED²P have no interval of their own unless one of them is the criterion."""
    from rich.text import Text

    for name, metric in decision.question.quantities.items():
        found = [setting.estimates.get(name) for setting in shown]
        known = [estimate.mean for estimate in found if estimate is not None]
        if not known:
            continue
        factor, unit = (100.0, "%") if metric.share else scaled(known, metric.unit)
        if name in ("edp", "ed2p") and name != decision.question.criterion:
            found = [None if estimate is None else replace(estimate, half_width=None) for estimate in found]
        words = "top-1" if metric.share else metric.words
        spare = 0 if name == decision.question.criterion else SPARE.get(name, 0)
        yield Column(f"{words}\n({unit})", [Text(amount(estimate, factor)) for estimate in found], spare=spare)


def _chance(probability: float | None) -> str:
    if probability is None:
        return "-"
    return chance(probability).replace("more than ", ">").replace("less than ", "<")


SHOWN = 40
"""Settings in the table, the best first; what is chosen or on the Pareto front is there in any case."""


def shown_settings(decision: Decision) -> list[Setting]:
    """The rows of the table."""
    named = {setting.label for setting in (*decision.front, *filter(None, (decision.chosen, decision.nearest)))}
    return [setting for index, setting in enumerate(decision.settings) if index < SHOWN or setting.label in named]


def to_json(decisions: Sequence[Decision], rates: Rates) -> str:
    """Everything the words say, for programs."""
    return json.dumps([_json(decision, rates) for decision in decisions], indent=2, ensure_ascii=False)


def _json(decision: Decision, rates: Rates) -> dict[str, Any]:
    question = {key: value for key, value in asdict(decision.question).items() if value is not None}
    names = {name: metric.name for name, metric in decision.question.quantities.items()}
    dearest = _payback(decision)
    return {
        "question": question,
        "energy_source": decision.source,
        "energy_scope": decision.scope,
        "dataset": decision.dataset,
        "metrics": names,
        "chosen": None if decision.chosen is None else decision.chosen.label,
        "sure": decision.sure,
        "tied": [setting.label for setting in decision.tied],
        "nearest": None if decision.nearest is None else decision.nearest.label,
        "front": [setting.label for setting in decision.front],
        "settings": [_setting(setting, rates) for setting in decision.settings],
        "repeats": [_repeat(repeat) for repeat in decision.repeats],
        "commands": [f"energybench {command(row, runs)}" for row, runs in more_runs(decision)],
        "against": None if decision.against is None else asdict(decision.against),
        "payback": None if dearest is None else {"setting": dearest[0].label, **dearest[1].to_json()},
        "left_out": dict(decision.left_out),
        "words": [line.strip() for line in lines(decision, rates)],
    }


def _setting(setting: Setting, rates: Rates) -> dict[str, Any]:
    found: dict[str, Any] = {
        "setting": setting.label,
        "overrides": list(setting.row.results[0].overrides),
        "runs": [result.run_id for result in setting.row.finished],
        "estimates": {name: asdict(estimate) for name, estimate in setting.estimates.items()},
        "unmet": dict(setting.unmet),
        "on_front": setting.on_front,
        "probability": setting.probability,
    }
    if rates.given and "energy" in setting.estimates:
        found["cost"] = {
            key: value for key, value in asdict(rates.of(setting.estimates["energy"].mean)).items() if value is not None
        }
    return found


def _repeat(repeat: Repeats) -> dict[str, Any]:
    return {"setting": repeat.setting, "runs": repeat.runs, "why": repeat.why, "ratio": asdict(repeat.ratio)}
