"""A network as a table or as JSON: what each layer gives, weighs, computes and stores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from energybench.architecture import (
    LRN,
    Architecture,
    Conv2d,
    Dropout,
    Layer,
    MaxPool,
    Network,
    Residual,
    Row,
    Shape,
)

if TYPE_CHECKING:
    from rich.table import Table


UNKNOWN = "a model zoo's network: its layers are not described; the engine that builds it counts its FLOPs"


def describe_table(network: Network, batch: int | None = None) -> Table:
    """The layers of a network that is described; of another its name, its input and its classes.

    Args:
        network: the network.
        batch: see `layer_table`.
    """
    if isinstance(network, Architecture):
        return layer_table(network, batch)
    from rich import box
    from rich.table import Table

    table = Table(title=_title(network), caption=UNKNOWN, caption_justify="left", box=box.SIMPLE)
    table.add_column("name")
    table.add_column("input")
    table.add_column("output")
    table.add_row(network.name, _dimensions(network.input_shape), str(network.classes))
    return table


def layer_table(architecture: Architecture, batch: int | None = None) -> Table:
    """A table with one row a layer, the totals, and what the layer count includes.

    A residual block's layers stand indented above its sum. FLOPs are of the forward pass, 2 per multiply-accumulate of
    convolutions and dense layers; activations are the layers' outputs in float32; both are of one sample.

    Args:
        architecture: the network described.
        batch: samples a step, to add FLOPs and activations of one training step.
    """
    from rich import box
    from rich.table import Table

    notes = "\n".join(_notes(architecture, batch))
    table = Table(title=_title(architecture), caption=notes, caption_justify="left", show_footer=True, box=box.SIMPLE)
    table.add_column("name", "total", no_wrap=True)
    table.add_column("layer")
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", f"{architecture.parameters:,}", justify="right")
    table.add_column("MFLOPs", f"{architecture.forward_flops / 1e6:,.2f}", justify="right")
    table.add_column("activation\nbytes", f"{architecture.activation_bytes:,}", justify="right")
    for row in architecture.rows():
        table.add_row(*_cells(row))
    return table


def _title(network: Network) -> str:
    return f"{network.name}: {_dimensions(network.input_shape)} to {network.classes} classes"


def describe_json(network: Network) -> dict[str, Any]:
    """The same as plain values: FLOPs and bytes of one sample, shapes as lists of (C, H, W) or (units,).

    What is not known of a network that is not described is absent.
    """
    known = {"name": network.name, "input_shape": list(network.input_shape), "classes": network.classes}
    return {**known, **_layers_json(network)} if isinstance(network, Architecture) else known


def _layers_json(architecture: Architecture) -> dict[str, Any]:
    return {
        "layers": [_layer_json(row) for row in architecture.rows()],
        "parameters": architecture.parameters,
        "macs": architecture.macs,
        "forward_flops": architecture.forward_flops,
        "training_flops": architecture.training_flops,
        "activation_bytes": architecture.activation_bytes,
        "layer_count": architecture.layer_count,
        "counted_layers": architecture.counted_layers,
        "counted_nodes": list(architecture.counted_nodes),
        "uncounted_kinds": list(architecture.uncounted_kinds),
    }


def describe_count(architecture: Architecture) -> str:
    """The layer count in words: how many of the description's layers are in it, what is added and what left out."""
    text = f"{architecture.layer_count} layers: {architecture.counted_layers} of the description"
    if architecture.uncounted_kinds:
        text += f" (without {', '.join(architecture.uncounted_kinds)})"
    if architecture.counted_nodes:
        text += f", plus {', '.join(architecture.counted_nodes)}"
    return text


def _layer_json(row: Row) -> dict[str, Any]:
    # A residual block's body and shortcut have rows of their own.
    options = {} if isinstance(row.layer, Residual) else dataclasses.asdict(row.layer)
    return {
        "name": row.name,
        "kind": row.kind,
        "options": options,
        "input_shape": list(row.input_shape),
        "output_shape": list(row.output_shape),
        "parameters": row.parameters,
        "macs": row.macs,
        "flops": row.flops,
        "activation_bytes": row.activation_bytes,
    }


def _cells(row: Row) -> tuple[str, ...]:
    depth = sum(part in ("body", "shortcut") for part in row.name.split("."))
    return (
        "  " * depth + row.name,
        f"{row.kind} {_settings(row.layer)}".rstrip(),
        _dimensions(row.output_shape),
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.flops / 1e6:,.2f}" if row.flops else "",
        f"{row.activation_bytes:,}",
    )


def _settings(layer: Layer) -> str:
    """What the other columns do not tell: windows and rates. Empty for layers that have none or are unknown here."""
    match layer:
        case Conv2d(_, kernel, stride, padding, groups):
            return _window(kernel, stride, padding) + (f" groups {groups}" if groups > 1 else "")
        case MaxPool(kernel, stride, padding):
            return _window(kernel, stride, padding)
        case LRN(size, alpha, beta, k):
            return f"{size} k {k:g} alpha {alpha:g}/{size} beta {beta:g}"
        case Dropout(rate):
            return f"{rate:g}"
    return ""


def _window(kernel: int, stride: int, padding: int) -> str:
    return f"{kernel}×{kernel}/{stride}" + (f" pad {padding}" if padding else "")


def _dimensions(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _notes(architecture: Architecture, batch: int | None) -> list[str]:
    notes = [
        describe_count(architecture),
        f"training: {architecture.training_flops / 1e9:,.3f} GFLOPs a sample, 3 times the forward pass",
    ]
    if batch is not None:
        flops, size = batch * architecture.training_flops, batch * architecture.activation_bytes
        notes.append(f"a step of {batch}: {flops / 1e9:,.1f} GFLOPs, {size / 1e6:,.1f} MB of activations")
    return notes
