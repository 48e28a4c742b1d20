"""PyTorch and Gluon build and train the same network: the same weights give the same numbers. Needs both."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest

if missing := [name for name in ("mxnet", "torch") if importlib.util.find_spec(name) is None]:
    pytest.skip(f"needs {' and '.join(missing)}: pip install 'energybench[gluon,torch]'", allow_module_level=True)

import gluon_runs
import torch
import torch_runs

from energybench.architecture import Architecture, Dropout
from energybench_plugins.architectures.caffenet import CaffenetOptions, caffenet
from energybench_plugins.architectures.cnn2d import Cnn2dOptions, cnn2d
from energybench_plugins.architectures.lenet import LenetOptions, lenet
from energybench_plugins.architectures.resnet import ResnetImOptions, ResnetOptions, resnet, resnetim
from energybench_plugins.engines import gluon_blocks, torch_blocks
from energybench_plugins.engines.torch_flops import training_flops

pytestmark = [pytest.mark.gluon, pytest.mark.torch]
mx = gluon_blocks.mx

STUDY = [
    caffenet(CaffenetOptions(), 1000),
    resnetim(ResnetImOptions(), 1000),
    resnet(ResnetOptions(), 155),
    cnn2d(Cnn2dOptions(), 155),
    lenet(LenetOptions(), 10),
]
SMALL = [
    caffenet(CaffenetOptions(input_size=67), 10),
    resnetim(ResnetImOptions(input_size=64), 10),
    *STUDY[2:],
]


BETA = 3.0
"""Shift of normalised maps, away from the kink of a ReLU: there rounding alone decides whether a gradient passes, and
of a hundred layers each doubles the difference."""


def pair(network: Architecture):
    """The network in both engines, with the same weights."""
    mx.random.seed(3)
    ours, theirs = torch_blocks.build(network), gluon_blocks.build(network)
    theirs.initialize(mx.init.Xavier())
    named = torch_blocks.named_tensors(ours)
    parameters = gluon_blocks.named_parameters(theirs)
    with torch.no_grad():
        for name, tensor in named.items():
            if name.endswith(".beta"):
                parameters[name].set_data(mx.nd.full(tensor.shape, BETA))
            tensor.copy_(torch.from_numpy(parameters[name].data().asnumpy()))
    assert named.keys() == parameters.keys()
    return ours, theirs


def samples(network: Architecture, count: int = 4):
    random = np.random.default_rng(5)
    images = random.normal(size=(count, *network.input_shape)).astype(np.float32)
    return images, random.integers(0, network.classes, count)


def distance(found, expected) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_the_same_weights_give_the_same_logits(network):
    ours, theirs = pair(network)
    images, _ = samples(network)
    with torch.no_grad():
        logits = ours.eval()(torch.from_numpy(images)).numpy()
    assert distance(logits, theirs(mx.nd.array(images)).asnumpy()) < 1e-4


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_the_same_weights_give_the_same_gradients(network):
    """Without dropout, which the two draw by other random numbers."""
    kept = [replace(layer, rate=0.0) if isinstance(layer, Dropout) else layer for layer in network.layers]
    ours, theirs = pair(replace(network, layers=tuple(kept)))
    images, labels = samples(network)
    torch.nn.functional.cross_entropy(ours.train()(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(theirs(mx.nd.array(images)), mx.nd.array(labels)).mean()
    loss.backward()
    parameters = gluon_blocks.named_parameters(theirs)
    trained = {name: tensor for name, tensor in torch_blocks.named_tensors(ours).items() if tensor.requires_grad}
    expected = {name: parameters[name].grad().asnumpy() for name in trained}
    largest = max(float(np.abs(value).max()) for value in expected.values())
    for name, tensor in trained.items():
        scale = max(float(np.abs(expected[name]).max()), 1e-3 * largest)  # a bias before a normalisation has none
        assert np.abs(tensor.grad.numpy() - expected[name]).max() / scale < 1e-3, name


def losses(trainer, batch, steps, lr):
    trainer.begin_epoch(1, lr)
    found = []
    for given in trainer.feed([batch] * steps):
        trainer.step(given)
        found.append(trainer.take_loss())
    return found


@pytest.mark.parametrize(
    ("training", "lr"),
    [({}, 0.01), ({"optimizer": "adam"}, 0.001), ({"optimizer": "nag", "weight_decay": 0.01}, 0.01)],
    ids=["sgd", "adam", "nag"],
)
def test_fifty_steps_lose_alike(training, lr):
    sections = {"batch": 32, "training": {"initializer": "xavier", **training}}
    theirs, ours = gluon_runs.trainer_of(**sections), torch_runs.trainer_of(**sections)
    weights = {name: value for name, value in theirs.state().items() if name.startswith("parameters/")}
    ours.restore({**ours.state(), **weights})
    [batch] = gluon_runs.batches(1, 32)
    found, expected = losses(ours, batch, 50, lr), losses(theirs, batch, 50, lr)
    assert expected[-1] < 0.5 * expected[0]
    assert found[:5] == pytest.approx(expected[:5], rel=1e-3)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.03 * expected[0]


@pytest.mark.parametrize("network", STUDY, ids=lambda network: network.name)
def test_torch_s_own_counter_counts_what_is_described(network):
    with torch.device("meta"):
        net = torch_blocks.build(network)
        assert training_flops(net, network.input_shape) == network.training_flops


def test_a_checkpoint_s_names_are_those_of_the_other_engine():
    ours, theirs = torch_runs.trainer_of().state(), gluon_runs.trainer_of().state()
    names = {name for name in theirs if name.startswith("parameters/")}
    assert {name for name in ours if name.startswith("parameters/")} == names
    assert all(ours[name].shape == theirs[name].shape and math.prod(ours[name].shape) for name in names)
