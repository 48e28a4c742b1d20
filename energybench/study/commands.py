"""`energybench recommend`, `compare` and `report`: from what a user types to what is printed or written."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from energybench.errors import EXIT_CONDITION, EXIT_DONE, ConfigError
from energybench.run.result import Result
from energybench.study.collect import Collected, collect

if TYPE_CHECKING:
    from energybench.study.compare import Comparison
    from energybench.study.condition import Verdict

JOULES = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3600.0, "kWh": 3.6e6}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*([A-Za-z%]*)\s*")


def recommend(given: argparse.Namespace) -> int:
    """Says which setting to train with."""
    from energybench.study import recommendation
    from energybench.study.costs import Rates
    from energybench.study.decision import Question, decide

    question = Question(
        per=given.per,
        criterion=given.criterion,
        min_accuracy=_share("min-accuracy", given.min_accuracy, most=1.0),
        max_slowdown=_share("max-slowdown", given.max_slowdown),
        max_energy_j=_joules(given.max_energy),
        baseline=given.baseline,
    )
    rates = Rates(
        _number("price-per-kwh", given.price_per_kwh),
        given.currency or "",
        _number("pue", given.pue),
        _number("carbon-g-per-kwh", given.carbon_g_per_kwh),
    )
    decisions = decide(_results(given.sources, given.uri), question)
    if not decisions:
        raise ConfigError(f"{' '.join(given.sources)}: no run in it came to its end")
    if given.json:
        print(recommendation.to_json(decisions, rates))
        return EXIT_DONE
    from energybench.console import console

    out = console()
    for index, decision in enumerate(decisions):
        if index:
            out.print()
        if decision.settings:
            out.print(recommendation.table(decision))
        else:
            out.print(recommendation.title(decision), markup=False, soft_wrap=True)
        for line in recommendation.lines(decision, rates):
            out.print(line, markup=False, soft_wrap=True)
    if len(decisions) > 1:
        out.print("\nThe parts above are not compared: other data, measured and estimated energies, or other scopes.")
    return EXIT_DONE


def compare(given: argparse.Namespace) -> int:
    """Compares sources with the first; 3 where a condition of `--fail-if` is met."""
    from energybench.study import comparison_text
    from energybench.study.compare import compare as compared
    from energybench.study.condition import judge, parse

    if len(given.sources) < 2:
        raise ConfigError("compare: name two sources or more; the first is what the others are compared with")
    conditions = [parse(text) for text in given.fail_if]
    names = _short(given.sources)
    sources = [(name, _results([source], given.uri)) for name, source in zip(names, given.sources, strict=True)]
    comparisons = compared(sources, [condition.metric for condition in conditions])
    verdicts = judge(conditions, comparisons)
    failed = any(verdict.state == "met" and (verdict.sure or not given.sure) for verdict in verdicts)
    if given.json:
        print(comparison_text.to_json(comparisons, verdicts, failed))
    else:
        _show(comparisons, verdicts, given)
    if failed:
        return EXIT_CONDITION
    unknown = [verdict.words for verdict in verdicts if verdict.state == "unknown"]
    if unknown or (conditions and any(not comparison.pairs for comparison in comparisons)):
        raise ConfigError(f"compare --fail-if cannot be judged: {unknown[0] if unknown else 'no setting matches'}")
    return EXIT_DONE


def report(given: argparse.Namespace) -> int:
    """Writes the report of the sources into a folder."""
    from energybench.study.report import require, write_report

    require()
    found = _collected(given.sources, given.uri)
    print(write_report(found, Path(given.out), given.title))
    return EXIT_DONE


def _show(comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], given: argparse.Namespace) -> None:
    from energybench.console import console
    from energybench.study import comparison_text

    out = console()
    metrics = [verdict.condition.metric for verdict in verdicts]
    for comparison in comparisons:
        for grid in comparison_text.grids(comparison, metrics):
            if given.markdown:
                print(f"{grid.markdown()}\n")
            else:
                out.print(grid.drawn())
        said = comparison_text.lines(comparison)
        if any(change.told_apart for pair in comparison.pairs for change in pair.changes.values()):
            said = [comparison_text.LEGEND, *said]
        for line in said:
            print(f"- {line.replace('*', chr(92) + '*')}" if given.markdown else line)
    for verdict in verdicts:
        line = comparison_text.verdict_line(verdict, sure_only=given.sure)
        print(f"- {line}" if given.markdown else line)


def _results(sources: list[str], uri: str | None) -> tuple[Result, ...]:
    return _collected(sources, uri).results


def _collected(sources: list[str], uri: str | None) -> Collected:
    """What the sources hold; what of it cannot be read is said on standard error."""
    found = collect(sources, uri=uri)
    for problem in found.problems:
        print(f"energybench: warning: {problem}; left out", file=sys.stderr)
    return found


def _short(sources: list[str]) -> list[str]:
    """The sources' names for the heads of columns: of paths, the parts that tell them apart."""
    parts = [Path(source).parts if Path(source).exists() else (source,) for source in sources]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(sources)):
            break
    return [name.removesuffix("/result.json") or name for name in names]


def _share(name: str, text: str | None, most: float = math.inf) -> float | None:
    """'97%' or '0.97'."""
    if text is None:
        return None
    wanted = "a percentage such as 10%, or a share such as 0.1"
    value, unit = _amount(name, text, wanted)
    if unit not in ("", "%") or (not unit and value > 1):
        raise ConfigError(f"--{name} {text}: write {wanted}")
    share = value / 100 if unit else value
    if share > most:
        raise ConfigError(f"--{name} {text}: write no more than {most:.0%}")
    return share


def _joules(text: str | None) -> float | None:
    """'12.5' or '12.5J', '0.2kWh'."""
    if text is None:
        return None
    wanted = f"joules, or one of {', '.join(JOULES)} behind the number"
    value, unit = _amount("max-energy", text, wanted)
    if unit and unit not in JOULES:
        raise ConfigError(f"--max-energy {text}: write {wanted}")
    return value * JOULES.get(unit, 1.0)


def _number(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    value, unit = _amount(name, text, "a number")
    if unit:
        raise ConfigError(f"--{name} {text}: write a number")
    return value


def _amount(name: str, text: str, wanted: str) -> tuple[float, str]:
    found = _AMOUNT.fullmatch(text)
    if not found or not math.isfinite(float(found[1])):
        raise ConfigError(f"--{name} {text}: write {wanted}")
    return float(found[1]), found[2]
