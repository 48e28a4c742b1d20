"""The layer maths, against enumeration and by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.architecture import (
    LRN,
    Architecture,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    GlobalAvgPool,
    MaxPool,
    ReLU,
    Residual,
    through,
)
from energybench.errors import ConfigError

BLOCK = Residual((Conv2d(8, 3, padding=1, bias=False), BatchNorm()), (Conv2d(8, 1, bias=False),))
SMALL = Architecture("small", (4, 6, 6), 3, (BLOCK, ReLU(), GlobalAvgPool(), Dropout(), Dense(3)))


def positions(size: int, kernel: int, stride: int, padding: int) -> int:
    """Windows that lie wholly on the padded map, one by one."""
    return sum(start + kernel <= size + 2 * padding for start in range(0, size + 2 * padding, stride))


windows = st.tuples(st.integers(1, 40), st.integers(1, 11), st.integers(1, 5), st.integers(0, 5))


@given(windows)
def test_windows_are_those_that_fit(window: tuple[int, int, int, int]) -> None:
    size, kernel, stride, padding = window
    expected = positions(size, kernel, stride, padding)
    for layer in (Conv2d(7, kernel, stride, padding), MaxPool(kernel, stride, padding)):
        if expected:
            assert layer.output_shape((2, size, size + stride))[1:] == (expected, expected + 1)
        else:
            with pytest.raises(ConfigError, match="larger input size"):
                layer.output_shape((2, size, size))


@given(st.sampled_from([1, 2, 4]), st.booleans())
def test_grouped_convolution_connects_within_its_group(groups: int, bias: bool) -> None:
    layer = Conv2d(8, 3, padding=1, groups=groups, bias=bias)
    weights = sum(8 // groups * (4 // groups) * 9 for _ in range(groups))
    assert layer.parameters((4, 5, 5)) == weights + 8 * bias
    assert layer.macs((4, 5, 5)) == weights * 25


def test_dense_flattens() -> None:
    assert Dense(10).output_shape((3, 2, 2)) == (10,)
    assert Dense(10).parameters((3, 2, 2)) == 130
    assert Dense(10, bias=False).parameters((12,)) == 120
    assert Dense(10).macs((3, 2, 2)) == 120


@pytest.mark.parametrize("layer", [BatchNorm(), ReLU(), LRN(), Dropout()])
def test_element_wise_layers_keep_the_shape_and_cost_no_macs(layer: BatchNorm | ReLU | LRN | Dropout) -> None:
    assert layer.output_shape((3, 2, 2)) == (3, 2, 2)
    assert layer.macs((3, 2, 2)) == 0


def test_only_gamma_and_beta_of_a_batch_norm_are_trained() -> None:
    assert BatchNorm().parameters((3, 2, 2)) == 6


def test_rows_name_a_block_s_layers_before_its_sum() -> None:
    named = [(row.name, row.kind) for row in SMALL.rows()]
    assert named[:4] == [("0.body.0", "conv2d"), ("0.body.1", "batchnorm"), ("0.shortcut.0", "conv2d"), ("0", "sum")]
    assert [name for name, _ in named[4:]] == ["1", "2", "3", "4"]


def test_totals_by_hand() -> None:
    assert SMALL.parameters == 8 * 4 * 9 + 2 * 8 + 8 * 4 + (8 * 3 + 3)
    assert SMALL.macs == 8 * 4 * 9 * 36 + 8 * 4 * 36 + 8 * 3
    assert SMALL.forward_flops == sum(row.flops for row in SMALL.rows()) == 2 * SMALL.macs
    assert SMALL.training_flops == 6 * SMALL.macs
    assert SMALL.activation_bytes == 4 * (5 * 8 * 36 + 2 * 8 + 3)


def test_the_count_adds_nodes_and_leaves_kinds_out() -> None:
    assert SMALL.layer_count == SMALL.counted_layers == 8
    other = dataclasses.replace(SMALL, counted_nodes=("loss", "top-1"), uncounted_kinds=("dropout", "sum"))
    assert (other.counted_layers, other.layer_count) == (6, 8)


def test_identity_shortcut_must_keep_the_shape() -> None:
    assert through((Residual((Conv2d(4, 3, padding=1),)),), (4, 6, 6)) == (4, 6, 6)
    with pytest.raises(ConfigError, match=r"\(4, 3, 3\).*\(4, 6, 6\)"):
        through((Residual((Conv2d(4, 3, stride=2, padding=1),)),), (4, 6, 6))


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ConfigError, match="3 -> 8 channels do not divide into 2 groups"):
        Conv2d(8, 1, groups=2).output_shape((3, 4, 4))


@pytest.mark.parametrize("layer", [Conv2d(8, 1), MaxPool(1, 1), GlobalAvgPool()])
def test_maps_are_asked_of_flat_input(layer: Conv2d | MaxPool | GlobalAvgPool) -> None:
    with pytest.raises(ConfigError, match=r"maps of shape \(C, H, W\)"):
        layer.output_shape((10,))


def test_the_last_layer_must_give_the_classes() -> None:
    with pytest.raises(ConfigError, match="'small' ends in \\(3,\\), not in 4 classes"):
        dataclasses.replace(SMALL, classes=4)
