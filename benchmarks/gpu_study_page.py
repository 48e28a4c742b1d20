"""The page of the study on a GPU: tables, figures and the raw numbers of the runs that gpu_study.py made.

    python benchmarks/gpu_study_page.py study --out docs/results/h100_study.md

What was written by hand between its two marks stays when the page is made again.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_study import PLAN, said

from energybench.run.result import Result
from energybench.study.collect import collect
from energybench.study.report.contents import Contents, Group, contents
from energybench.study.report.numbers import Scale
from energybench.study.report.tables import Table, as_markdown
from energybench.study.rows import natural, rows

KEPT = (
    *("images_per_s", "power_mean_w", "energy_per_image_j", "energy_j", "time_s", "images", "accuracy_top1"),
    *("accuracy_sequence_top1", "energy_uncertainty_j", "energy_independent_uncertainty_j"),
    *("energy_edges_uncertainty_j", "gflops_per_w"),
    *("power_idle_w", "validate.energy_j", "capture.energy_j", "load.energy_j", "input_wait_fraction"),
)

BY_HAND = ("<!-- written by hand -->", "<!-- until here -->")


def row(cell: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """What raw data keep of a run."""
    curve = [one["accuracy_top1"] for one in result.epochs if "accuracy_top1" in one]
    boards = [board.get("uuid") for board in result.provenance.get("devices", [])]
    return {
        **cell, "status": result.status, "at": result.started_at, "boards": boards, "accuracy_by_epoch": curve,
        "metrics": {name: result.metrics[name] for name in KEPT if name in result.metrics}, "tags": result.tags,
    }  # fmt: skip


def raw(results: Sequence[Result]) -> dict[str, Any]:
    first = results[0].provenance
    found = [
        row(
            {
                "model": result.config["model"]["name"],
                "batch": result.config["batch"],
                "precision": result.config["precision"],
                "seed": result.config["seed"],
                "epochs": result.config["budget"]["epochs"],
            },
            result,
        )
        for result in results
    ]
    keys = ("model", "precision", "batch", "seed")
    found.sort(key=lambda one: [one[key] for key in keys])
    return {"engine": first.get("engine", {}), "python": first.get("python"), "cells": found}


def page(given: argparse.Namespace) -> None:
    """Markdown, its figures beside it, and the numbers of every run."""
    found = collect(given.folders)
    made, out = contents(found, given.title), Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = f"{BY_HAND[0]}\n{BY_HAND[1]}"
    if out.exists():  # what was said of the numbers stays
        old = out.read_text(encoding="utf-8")
        start, end = (old.find(mark) for mark in BY_HAND)
        kept = old[start : end + len(BY_HAND[1])] if 0 <= start < end else kept
    finished = [result for result in found.results if result.status == "finished"]
    with gzip.GzipFile(out.with_suffix(".json.gz"), "w", mtime=0) as file:
        file.write((json.dumps(raw(finished), indent=1) + "\n").encode())
    pictures = []
    for picture in (one for group in made.groups for one in group.pictures):
        name = f"{out.stem}-{picture.name}.png"
        (out.parent / name).write_bytes(picture.png)
        pictures.append(f"![{picture.title}]({name})\n\n{picture.caption}")
    parts = [f"# {made.title}", "", facts(made, finished), "", kept, ""]
    for group in made.groups:
        parts += of_group(group, several=len(made.groups) > 1)
    parts += of_sequences(finished)
    parts += ["## Figures", "", "\n\n".join(pictures), ""] if pictures else []
    parts += ["## Quality", "", markdown(made.flags), ""] if made.flags.rows else []
    parts += ["## Runs that did not finish", "", markdown(made.failures), ""] if made.failures.rows else []
    name = f"{out.stem}.json.gz"
    parts += [f"Raw data: [{name}]({name}); made by", "", "```sh"]
    plans = [json.loads(path.read_text()) for folder in given.folders if (path := Path(folder, PLAN)).exists()]
    commands = [words for plan in plans for words in plan.get("commands", [])]
    parts += [f"python benchmarks/gpu_study.py {words}" for words in commands]
    parts += [f"python benchmarks/gpu_study_page.py {said([*given.folders, given.out])}"]
    out.write_text("\n".join([*parts, "```", ""]), encoding="utf-8")
    print(f"{len(found.results)} runs on {out}")


def facts(made: Contents, finished: Sequence[Result]) -> str:
    """What was run on what."""
    boards = {board.get("uuid") for result in finished for board in result.provenance.get("devices", [])}
    epochs = {result.config["model"]["name"]: result.config["budget"]["epochs"] for result in finished}
    seen: dict[str, set[int]] = {name: set() for name in epochs}
    for result in finished:
        seen[result.config["model"]["name"]] |= {int(one["images"]) for one in result.epochs[:1]}
    lines = [f"- {what}: {answer}" for what, answer in made.facts if answer]
    trained = ", ".join(f"{name} {count} x {spread(seen[name])}" for name, count in epochs.items())
    return "\n".join([*lines, f"- Boards: {len(boards)}", f"- Epochs x training samples in whole batches: {trained}"])


def spread(counts: set[int]) -> str:
    """One number, or the least and the most."""
    return " to ".join(f"{count:,}" for count in sorted({min(counts, default=0), max(counts, default=0)}))


def of_group(group: Group, *, several: bool) -> list[str]:
    parts = [f"## {group.title}", ""] if several else []
    parts += ["## The study's claims, asked again", "", group.how, "", group.warning, ""]
    for claim in group.claims:
        parts += [f"**{claim.statement}**", "", *(f"- {answer}" for answer in claim.answers), ""]
    parts += ["## What to choose", ""]
    for item in group.advice:
        parts += [f"**{item.network}**: {item.sentence}", ""]
        parts += [f"- {one.question}: {one.answer}, {one.number}. {one.detail}" for one in item.findings]
        parts.append("")
    for table in group.results:
        parts += [f"## {table.title}", "", markdown(table), ""]
    return parts


def of_sequences(finished: Sequence[Result]) -> list[str]:
    """Whole walks, which are decided on by the sum over their samples."""
    found = [(row, row.estimate("accuracy_sequence_top1")) for row in rows(finished)]
    lines = [
        f"| {row.label} | {Scale('%', 0.01).text(one.mean, one.half_width)} | {one.repeats} |"
        for row, one in sorted(found, key=lambda item: natural(item[0].label))
        if one is not None
    ]
    head = ["## Whole walks", "", "| setting | walks that are right (%) | runs |", "| --- | ---: | ---: |"]
    return [*head, *lines, ""] if lines else []


def markdown(table: Table) -> str:
    """Without the title, which stands above it."""
    return as_markdown(table).removeprefix(table.title).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="of gpu_study.py --out")
    parser.add_argument("--out", required=True, help="Markdown; figures and numbers are put beside it")
    parser.add_argument("--title", default="The study on a GPU")
    page(parser.parse_args())


if __name__ == "__main__":
    main()
