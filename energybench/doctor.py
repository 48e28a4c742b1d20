"""What works on this machine and what does not, with what can be done about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from energybench import tracking
from energybench.availability import Availability
from energybench.console import console
from energybench.errors import EnergybenchError
from energybench.power import identity
from energybench.registry import Registry
from energybench.run.preflight import Machine, default

Finding = tuple[str, str, Availability]
"""Kind, name, and what was found."""


def findings(registry: Registry) -> Iterator[Finding]:
    """Everything that a run may need, one finding each."""
    yield from _devices(Machine(registry))
    for name in registry.names("meter"):
        yield "meter", name, _state(registry, "meter", name, "check")
    for name in registry.names("engine"):
        yield "engine", name, _state(registry, "engine", name, "probe")
    for name in registry.names("dataset"):
        yield "dataset", name, _state(registry, "dataset", name, "check")
    yield "tracking", "mlflow", tracking.available()
    for broken in registry.broken:
        yield "plugin", broken.plugin, Availability(False, broken.reason, "mend or uninstall it")


def _devices(machine: Machine) -> Iterator[Finding]:
    """Every card, those that this environment hides marked so: no run measures or uses them."""
    usable = {device.uuid: device for device in machine.all}
    for device in [*machine.installed, machine.cpu]:
        found = f"{device.name} ({device.uuid})"
        if device.uuid not in usable:
            hidden = f"{found}, hidden by {identity.hidden_by(os.environ)}"
            yield "device", device.generation, Availability(False, hidden, f"name it in {identity.VISIBLE} to use it")
        else:
            instance = usable[device.uuid].instance
            whole = f", of which instance {instance} is used; power is the whole card's" if instance else ""
            yield "device", device.generation, Availability(True, found + whole)


def _state(registry: Registry, kind: str, name: str, method: str) -> Availability:
    try:
        ask: Callable[[], Availability] = getattr(default(registry, kind, name), method)
        return ask()
    except EnergybenchError as error:
        return Availability(False, str(error))
    except Exception as error:  # a third party's bug is a finding too, and must not hide the others
        return Availability(False, f"{type(error).__name__}: {error}", "report it to the plugin's author")


def report(registry: Registry) -> bool:
    """Prints every finding; True if a run is possible: some engine and some meter work."""
    from rich.table import Table

    drawn = Table(show_edge=False, pad_edge=False)
    for title in ("", "part", "name", "what was found"):
        drawn.add_column(title)
    works: set[str] = set()
    for kind, name, state in findings(registry):
        mark = "[green]ok[/green]" if state.ok else "[red]no[/red]"
        remedy = f"\n[dim]-> {_plain(state.remedy)}[/dim]" if state.remedy else ""
        drawn.add_row(mark, kind, name, _plain(state.detail) + remedy)
        if state.ok:
            works.add(kind)
    console().print(drawn)
    return {"engine", "meter"} <= works


def _plain(text: str) -> str:
    """Text whose brackets are not rich's markup: 'energybench[gluon]'."""
    from rich.markup import escape

    return escape(text)
