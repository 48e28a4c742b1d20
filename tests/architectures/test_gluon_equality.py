"""The networks built in Gluon are the networks described. Needs MXNet."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest

from energybench.architecture import (
    LRN,
    Architecture,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    GlobalAvgPool,
    Layer,
    MaxPool,
    ReLU,
    Residual,
)
from energybench.errors import PluginError
from energybench_plugins.architectures.caffenet import CaffenetOptions, caffenet
from energybench_plugins.architectures.cnn2d import Cnn2dOptions, cnn2d
from energybench_plugins.architectures.resnet import ResnetImOptions, ResnetOptions, resnet, resnetim

if importlib.util.find_spec("mxnet") is None:
    pytest.skip("needs MXNet: pip install 'energybench[gluon]'", allow_module_level=True)

from energybench_plugins.engines.gluon_blocks import build, mx, named_parameters

pytestmark = pytest.mark.gluon

NETWORKS = [
    caffenet(CaffenetOptions(), 1000),
    resnetim(ResnetImOptions(), 1000),
    resnet(ResnetOptions(), 155),
    cnn2d(Cnn2dOptions(), 155),
]
EVERY_LAYER = Architecture(
    "every",
    (4, 17, 17),
    3,
    (
        *(Conv2d(8, 3, stride=2, padding=1, groups=2), ReLU(), LRN(size=5, alpha=0.5, beta=0.75, k=1.0)),
        *(MaxPool(2, 2), Residual((Conv2d(6, 1, bias=False), BatchNorm()), (Conv2d(6, 1, bias=False),)), ReLU()),
        *(Residual((BatchNorm(),)), GlobalAvgPool(), Dropout(0.5), Dense(5, bias=False), Dense(3)),
    ),
)


class Swish(Layer):
    """A layer that Gluon is not told of."""


def images(architecture: Architecture, count: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(0)
    return random.normal(size=(count, *architecture.input_shape)).astype(np.float32)


def output_shapes(net: Any, batch: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each block's output without the batch axis, by the block's prefix."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(block: Any, _: Any, output: Any) -> None:
        shapes[block.prefix] = output.shape[1:]

    net.apply(lambda block: block.register_forward_hook(note))
    net(batch).wait_to_read()
    return shapes


def single(layer: Layer, batch: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """What one layer alone makes of (N, C, H, W)."""
    shape = batch.shape[1:]
    classes = 2
    net = build(Architecture("single", shape, classes, (layer, Dense(classes))))
    net.initialize()
    return net[0](mx.nd.array(batch)).asnumpy()


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda architecture: architecture.name)
def test_every_layer_s_output_and_parameters(architecture: Architecture) -> None:
    net = build(architecture)
    parameters = named_parameters(net)
    net.initialize(mx.init.Zero())
    shapes = output_shapes(net, mx.nd.array(images(architecture, 1)))
    owners = [name.rsplit(".", 1) for name in parameters]
    for row in architecture.rows():
        assert shapes[f"{row.name}."] == row.output_shape, row.name
        trained = [kind for owner, kind in owners if owner == row.name and not kind.startswith("running_")]
        assert sum(math.prod(parameters[f"{row.name}.{kind}"].shape) for kind in trained) == row.parameters, row.name


def test_parameters_are_named_after_the_rows() -> None:
    net = build(EVERY_LAYER)
    assert list(named_parameters(net)) == [
        *("0.weight", "0.bias", "4.body.0.weight"),
        *("4.body.1.gamma", "4.body.1.beta", "4.body.1.running_mean", "4.body.1.running_var", "4.shortcut.0.weight"),
        *("6.body.0.gamma", "6.body.0.beta", "6.body.0.running_mean", "6.body.0.running_var"),
        *("9.weight", "10.weight", "10.bias"),
    ]
    assert named_parameters(net).keys() == net._collect_params_with_prefix().keys()


def test_parameters_have_their_shapes_and_no_values_before_initialisation() -> None:
    parameters = named_parameters(build(EVERY_LAYER))
    assert parameters["0.weight"].shape == (8, 2, 3, 3)
    assert parameters["9.weight"].shape == (5, 6)
    assert {str(np.dtype(parameter.dtype)) for parameter in parameters.values()} == {"float32"}
    with pytest.raises(RuntimeError, match="not been initialized"):
        parameters["0.weight"].data()


def test_weights_can_be_copied_by_name_between_two_builds() -> None:
    first, second = build(EVERY_LAYER), build(EVERY_LAYER)
    batch = mx.nd.array(images(EVERY_LAYER))
    for net in (first, second):
        net.initialize(mx.init.Normal(0.5))
    assert not np.allclose(first(batch).asnumpy(), second(batch).asnumpy())
    for name, parameter in named_parameters(second).items():
        parameter.set_data(named_parameters(first)[name].data())
    np.testing.assert_array_equal(first(batch).asnumpy(), second(batch).asnumpy())


def test_hybridized_it_gives_the_same_and_trains() -> None:
    net = build(EVERY_LAYER)
    net.initialize(mx.init.Xavier())
    batch = mx.nd.array(images(EVERY_LAYER))
    plain = net(batch).asnumpy()
    net.hybridize(static_alloc=True, static_shape=True)
    np.testing.assert_allclose(net(batch).asnumpy(), plain, rtol=1e-5, atol=1e-6)
    with mx.autograd.record():
        loss = (net(batch) ** 2).sum()
    loss.backward()
    trained = [parameter for parameter in named_parameters(net).values() if parameter.grad_req != "null"]
    assert all(np.isfinite(parameter.grad().asnumpy()).all() for parameter in trained)
    assert any(parameter.grad().asnumpy().any() for parameter in trained)


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_lrn_is_the_described_formula(k: float) -> None:
    layer = LRN(size=5, alpha=0.3, beta=0.75, k=k)
    batch = images(Architecture("maps", (9, 4, 4), 2, (Dense(2),)))
    squares = np.square(batch.astype(np.float64))
    sums = np.stack([squares[:, max(0, c - 2) : c + 3].sum(axis=1) for c in range(batch.shape[1])], axis=1)
    expected = batch / (layer.k + layer.alpha / layer.size * sums) ** layer.beta
    np.testing.assert_allclose(single(layer, batch), expected, rtol=1e-5)


def test_max_pool_drops_the_last_window_and_never_takes_the_padding() -> None:
    batch = -np.abs(images(Architecture("maps", (3, 6, 6), 2, (Dense(2),)))) - 1
    padded = np.pad(batch, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    steps = range(0, 8 - 3 + 1, 2)
    expected = np.array([[padded[:, :, y : y + 3, x : x + 3].max(axis=(2, 3)) for x in steps] for y in steps])
    np.testing.assert_array_equal(single(MaxPool(3, 2, padding=1), batch), expected.transpose(2, 3, 0, 1))


def test_residual_adds_the_input_where_there_is_no_shortcut() -> None:
    batch = images(Architecture("maps", (3, 6, 6), 2, (Dense(2),)))
    np.testing.assert_allclose(single(Residual((ReLU(),)), batch), np.maximum(batch, 0) + batch, rtol=1e-6)


def test_batch_norm_takes_eps_and_momentum() -> None:
    net = build(Architecture("norm", (2, 3, 3), 2, (BatchNorm(eps=0.5, momentum=0.75), Dense(2))))
    net.initialize()
    batch = images(Architecture("maps", (2, 3, 3), 2, (Dense(2),)), 8)
    np.testing.assert_allclose(net[0](mx.nd.array(batch)).asnumpy(), batch / np.sqrt(1.5), rtol=1e-4)
    with mx.autograd.record():
        output = net[0](mx.nd.array(batch))
    output.backward()  # MXNet updates the running statistics on the way back.
    mean = named_parameters(net)["0.running_mean"].data().asnumpy()
    np.testing.assert_allclose(mean, 0.25 * batch.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-6)


def test_a_layer_without_a_block_is_refused() -> None:
    with pytest.raises(PluginError, match="no block for a layer of kind 'swish'"):
        build(Architecture("other", (3, 2, 2), 2, (Swish(), Dense(2))))
