"""The networks: the study's counts, the figures of their sources, and the document that repeats them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from energybench.architecture import LRN, Architecture, BatchNorm, Conv2d, Layer, Residual
from energybench.errors import ConfigError
from energybench_plugins.architectures import caffenet, cnn2d, lenet, resnet

ROOT = Path(__file__).parents[2]
CLASSES = {"lenet": 10, "caffenet": 1000, "resnetim": 1000, "resnet50": 1000, "resnet": 155, "cnn2d": 155}
COUNTS = {"caffenet": 25, "resnetim": 94, "resnet": 167, "cnn2d": 15}
Factory = Callable[[Any, int], Architecture]


def registered() -> dict[str, tuple[Factory, type]]:
    found: dict[str, tuple[Factory, type]] = {}
    for module in (caffenet, cnn2d, lenet, resnet):
        module.energybench_register_architectures(lambda name, factory, schema: found.update({name: (factory, schema)}))
    return found


NETWORKS = registered()


def network(name: str, **options: int) -> Architecture:
    factory, schema = NETWORKS[name]
    return factory(schema(**options), CLASSES[name])


def sizes(name: str) -> list[int]:
    """Widths of the maps, input first, each once per layer that changes the resolution or computes a convolution."""
    described = network(name)
    return [described.input_shape[-1], *(row.output_shape[-1] for row in described.rows() if len(row.output_shape) > 1)]


def distinct(values: list[int]) -> list[int]:
    return [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]


def without_one(layers: tuple[Layer, ...]) -> Iterator[tuple[tuple[Layer, ...], Layer]]:
    """The tree with each layer taken away in turn, at every depth, and the layer that is gone."""
    for index, layer in enumerate(layers):
        before, after = layers[:index], layers[index + 1 :]
        yield (*before, *after), layer
        if isinstance(layer, Residual):
            for body, gone in without_one(layer.body):
                yield (*before, Residual(body, layer.shortcut), *after), gone
            for shortcut, gone in without_one(layer.shortcut):
                yield (*before, Residual(layer.body, shortcut), *after), gone


def test_all_are_registered() -> None:
    assert NETWORKS.keys() == CLASSES.keys()


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_the_study_s_counts(name: str, count: int) -> None:
    assert network(name).layer_count == count


@pytest.mark.parametrize("name", COUNTS)
def test_taking_a_layer_away_changes_the_count(name: str) -> None:
    whole = network(name)
    networks = 0
    for layers, gone in without_one(whole.layers):
        try:
            less = dataclasses.replace(whole, layers=layers)
        except ConfigError:
            continue  # What is left is no network.
        networks += 1
        uncounted = gone.kind in whole.uncounted_kinds
        assert less.layer_count == whole.layer_count if uncounted else less.layer_count < whole.layer_count, gone
    assert networks > len(whole.layers) / 2


@pytest.mark.parametrize("name", ["resnetim", "resnet"])
def test_taking_a_convolution_of_a_bottleneck_away_lowers_the_count(name: str) -> None:
    whole = network(name)
    block = next(layer for layer in whole.layers if isinstance(layer, Residual) and not layer.shortcut)
    smaller = Residual((*block.body[:3], *block.body[4:]))
    layers = tuple(smaller if layer is block else layer for layer in whole.layers)
    removed = sum(layer is block for layer in whole.layers)
    assert removed and dataclasses.replace(whole, layers=layers).layer_count == whole.layer_count - removed


def test_figures_of_the_sources() -> None:
    assert network("caffenet").parameters == 60_965_224
    assert network("cnn2d").parameters == 18_682_491
    assert network("cnn2d").macs == 783_448_832
    assert network("lenet").parameters == 431_080


def test_maps() -> None:
    assert distinct(sizes("caffenet")) == [227, 55, 27, 13, 6]
    assert distinct(sizes("resnetim")) == [224, 112, 56, 28, 14, 7, 1]
    assert distinct(sizes("resnet")) == [60, 30, 15, 8, 4, 2, 1]
    assert distinct(sizes("cnn2d")) == [60, 54, 27, 12, 6, 4, 2, 1]


@pytest.mark.parametrize(("name", "stages"), [("resnetim", [2, 2, 2, 2]), ("resnet", [3, 4, 6, 2])])
def test_stages_of_bottlenecks(name: str, stages: list[int]) -> None:
    blocks = [row for row in network(name).rows() if row.kind == "sum"]
    channels = [row.output_shape[0] for row in blocks]
    assert [channels.count(width) for width in (256, 512, 1024, 2048)] == stages
    projections = [bool(row.layer.shortcut) for row in blocks if isinstance(row.layer, Residual)]
    assert projections == [index == 0 for count in stages for index in range(count)]


@pytest.mark.parametrize("name", ["resnetim", "resnet"])
def test_the_stride_is_on_the_3x3_and_on_the_projection(name: str) -> None:
    rows = [row for row in network(name).rows() if isinstance(row.layer, Conv2d)][1:]
    strided = [row.name for row in rows if isinstance(row.layer, Conv2d) and row.layer.stride == 2]
    assert len(strided) == 6
    assert all(name.endswith(("body.3", "shortcut.0")) for name in strided)


def test_constants_of_normalisation() -> None:
    layers = [row.layer for name in COUNTS for row in network(name).rows()]
    norms = [layer for layer in layers if isinstance(layer, LRN)]
    assert len(norms) == 3
    assert set(norms) == {LRN(size=5, alpha=1e-4, beta=0.75, k=1.0)}
    assert {layer.eps for layer in layers if isinstance(layer, BatchNorm)} == {1e-5}


@pytest.mark.parametrize("name", ["resnetim", "resnet"])
def test_residual_convolutions_have_no_bias(name: str) -> None:
    assert not any(row.layer.bias for row in network(name).rows() if isinstance(row.layer, Conv2d))


@pytest.mark.parametrize(("name", "smallest"), [("lenet", 16), ("caffenet", 67), ("resnetim", 1), ("cnn2d", 60)])
def test_the_smallest_input(name: str, smallest: int) -> None:
    assert network(name, input_size=smallest).input_shape[1:] == (smallest, smallest)
    for size in (smallest - 1, 0, -5):
        with pytest.raises(
            ConfigError, match=rf"model\.input_size={size} .*{name}.* smallest that works is {smallest}$"
        ):
            network(name, input_size=size)


@pytest.mark.parametrize("name", ["lenet", "resnet", "cnn2d"])
def test_channels_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.channels=0"):
        network(name, channels=0)


@pytest.mark.parametrize("name", CLASSES)
def test_the_last_layer_tells_the_classes_apart(name: str) -> None:
    factory, schema = NETWORKS[name]
    assert factory(schema(), 7).rows()[-1].output_shape == (7,)


@pytest.mark.parametrize("name", CLASSES)
def test_the_yaml_s_options_are_the_schema_s_defaults(name: str) -> None:
    options = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml")
    assert isinstance(options, DictConfig)
    assert options.pop("name") == name
    options.pop("defaults")
    schema = NETWORKS[name][1]
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), options)) == schema()
    assert set(options) == {field.name for field in dataclasses.fields(schema)}


def document_tables() -> list[dict[str, str]]:
    """Rows of the tables of docs/networks.md by heading."""
    found: list[dict[str, str]] = []
    heading: list[str] = []
    for line in (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and heading and not cells[0].startswith("---"):
            found.append(dict(zip(heading, cells, strict=True)))
        heading = heading if cells and heading else cells
    return found


def test_the_document_says_what_the_code_says() -> None:
    rows = [row for row in document_tables() if "MACs" in row]
    assert [row["model"].strip("`") for row in rows] == list(COUNTS)
    for row in rows:
        described = network(row["model"].strip("`"))
        assert row["input (C×H×W)"] == "×".join(map(str, described.input_shape))
        assert int(row["classes"]) == described.classes
        assert int(row["layers"]) == described.layer_count
        assert row["parameters"] == f"{described.parameters:,}"
        assert row["MACs"] == f"{described.macs:,}"
        assert row["forward GFLOPs"] == f"{described.forward_flops / 1e9:.3f}"
        assert row["training GFLOPs per sample"] == f"{described.training_flops / 1e9:.3f}"
        assert row["activation MB"] == f"{described.activation_bytes / 1e6:.2f}"


def test_the_document_says_what_the_counts_include() -> None:
    rows = [row for row in document_tables() if "count" in row]
    assert [row["model"].strip("`") for row in rows] == list(COUNTS)
    for row in rows:
        described = network(row["model"].strip("`"))
        assert int(row["layers of the description"]) == len(described.rows())
        assert row["left out"] == (", ".join(described.uncounted_kinds) or "–")
        assert row["added"] == (", ".join(described.counted_nodes) or "–")
        assert int(row["count"]) == described.layer_count


@pytest.mark.parametrize("module", [caffenet, resnet, cnn2d])
def test_reconstructions_say_so(module: Any) -> None:
    assert "A reconstruction: the study's abstract gives the number" in " ".join(module.__doc__.split())
