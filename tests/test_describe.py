"""What `describe` shows is what the description says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

from energybench.architecture import Architecture, Conv2d, Dense, Dropout, GlobalAvgPool, Layer, ReLU, Residual
from energybench.describe import describe_count, describe_json, describe_table

LAYERS = (Residual((Conv2d(4, 3, padding=1, groups=2),)), ReLU(), Dropout(0.4), GlobalAvgPool(), Dense(3))
NETWORK = Architecture("small", (4, 6, 6), 3, LAYERS, counted_nodes=("softmax",), uncounted_kinds=("dropout",))


class Swish(Layer):
    """A layer that the core does not know."""


def printed(network: Architecture, batch: int | None = None) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(describe_table(network, batch))
    return capture.get()


def test_the_table_shows_every_layer_and_the_totals() -> None:
    lines = [line.split() for line in printed(NETWORK).splitlines()]
    convolution = next(words for words in lines if "0.body.0" in words)
    assert convolution == ["0.body.0", "conv2d", "3×3/1", "pad", "1", "groups", "2", "4×6×6", "76", "0.01", "576"]
    total = next(words for words in lines if words[:1] == ["total"])
    assert total == ["total", f"{NETWORK.parameters}", "0.01", f"{NETWORK.activation_bytes:,}"]
    assert {row.name for row in NETWORK.rows()} <= {words[0] for words in lines if words}


def test_a_block_s_layers_are_indented() -> None:
    lines = printed(NETWORK).splitlines()
    body, closing = (next(line for line in lines if name in line) for name in ("0.body.0", " sum "))
    assert body.index("0") == closing.index("0") + 2


def test_the_count_says_what_it_includes() -> None:
    assert describe_count(NETWORK) == "6 layers: 5 of the description (without dropout), plus softmax"
    assert describe_count(NETWORK) in printed(NETWORK)


def test_a_batch_adds_the_cost_of_a_step() -> None:
    assert "a step of 1000: 0.0 GFLOPs, 2.3 MB of activations" in printed(NETWORK, batch=1000)
    assert "a step" not in printed(NETWORK)


def test_unknown_layers_are_shown_by_name() -> None:
    assert "swish" in printed(Architecture("other", (3, 2, 2), 2, (Swish(), Dense(2))))


def test_json_holds_the_same_numbers() -> None:
    described = describe_json(NETWORK)
    assert json.loads(json.dumps(described)) == described
    assert [layer["name"] for layer in described["layers"]] == [row.name for row in NETWORK.rows()]
    for key in ("parameters", "macs", "activation_bytes"):
        assert described[key] == sum(layer[key] for layer in described["layers"]) == getattr(NETWORK, key)
    assert (described["layer_count"], described["training_flops"]) == (6, NETWORK.training_flops)
    assert described["layers"][0]["options"]["groups"] == 2


@pytest.mark.parametrize("module", ["rich", "numpy"])
def test_importing_it_is_cheap(module: str) -> None:
    code = f"import sys, energybench.describe; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
