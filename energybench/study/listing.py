"""The cells of a sweep as a table for a terminal: what a dry run shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from energybench.console import duration
from energybench.run.preflight import Plan
from energybench.study.forecast import Forecaster
from energybench.study.progress import Task, joules

if TYPE_CHECKING:
    from rich.table import Table

GIB = 1024**3


def cells_table(cells: Sequence[tuple[str, Task]], forecaster: Forecaster) -> Table:
    """One row a cell: its name, its devices, the memory and the time it is expected to take, and how it stands.

    Args:
        cells: name and task of each.
        forecaster: tells time and energy, where earlier runs do.
    """
    from rich.table import Table

    drawn = Table()
    drawn.add_column("setting", overflow="fold")
    drawn.add_column("devices", overflow="fold")
    drawn.add_column("memory: needs / has", justify="right", no_wrap=True)
    drawn.add_column("time", justify="right", no_wrap=True)
    drawn.add_column("energy", justify="right", no_wrap=True)
    drawn.add_column("state", overflow="fold")
    for name, task in cells:
        told = forecaster.of(task.plan) if task.to_run else None
        drawn.add_row(
            name,
            _devices(task.plan),
            memory(task.plan),
            "-" if told is None else duration(told.time_s),
            "-" if told is None or told.energy_j is None else joules(told.energy_j),
            f"{task.state} ({task.why})" if task.why else task.state,
        )
    return drawn


def _devices(plan: Plan) -> str:
    return f"{len(plan.devices)} x {plan.devices[0].name}"


def memory(plan: Plan) -> str:
    """'2.1 / 12.0 GiB' of each board; what does not fit says so, and '-' stands for what nothing tells."""
    needs, has = plan.memory_bytes, plan.boards[0].memory_bytes
    if needs is None:
        return "-"
    if has is None:
        return f"{needs / GIB:,.1f} GiB"
    return f"{needs / GIB:,.1f} / {has / GIB:,.1f} GiB" + (", too much" if needs > has else "")
