"""Counts the multiply-accumulates of a Gluon network in its graph, operator by operator. Imports MXNet."""

from __future__ import annotations

import json
import math
from typing import Any

from energybench.architecture import FLOPS_PER_MAC, TRAINING_PASSES, Shape
from energybench_plugins.engines.mxnet_import import import_mxnet

mx = import_mxnet()

OF_OUTPUT = ("Convolution", "FullyConnected")
"""Each element of the output is a sum of as many products as one of the weight's rows has elements."""

OF_INPUT = ("Deconvolution",)
"""Each element of the input is multiplied with each element of one of the weight's rows."""

WITHOUT = frozenset(
    """
    Activation BlockGrad Cast Dropout LeakyReLU _copy _div_scalar _minus_scalar _mul_scalar _plus_scalar _rdiv_scalar
    _rminus_scalar add_n broadcast_add broadcast_div broadcast_mul broadcast_sub clip elemwise_add elemwise_div
    elemwise_mul elemwise_sub exp hard_sigmoid identity log relu sigmoid sqrt square tanh

    BatchNorm GroupNorm InstanceNorm L2Normalization LRN LayerNorm Pooling UpSampling _contrib_AdaptiveAvgPooling2D
    _contrib_BilinearResize2D log_softmax max mean softmax sum

    null Concat Flatten Pad Reshape SliceChannel SwapAxis _ones _zeros broadcast_axis broadcast_like expand_dims
    ones_like reshape_like slice slice_axis slice_like squeeze stack transpose zeros_like
    """.split()  # noqa: SIM905
)
"""Operators without a convolution or a matrix product in them: as in a description, they count nothing."""


def training_flops(net: Any, input_shape: Shape) -> int | None:
    """FLOPs to train on one sample: 3 times the forward pass; see `macs`."""
    count = macs(net, input_shape)
    return None if count is None else TRAINING_PASSES * FLOPS_PER_MAC * count


def macs(net: Any, input_shape: Shape) -> int | None:
    """Multiply-accumulates of the convolutions and dense layers for one sample of `input_shape` (C, H, W), forward.

    None where the network has no static graph, or an operator of which this module does not know what it multiplies.
    """
    try:
        graph = net(mx.sym.var("data"))
        shapes = _shapes(graph, (1, *input_shape))
    except Exception:  # whatever a foreign network's Python does with a symbol in place of an array
        return None
    nodes = json.loads(graph.tojson())["nodes"]
    counts = [_node_macs(node, nodes, shapes) for node in nodes]
    return None if None in counts else sum(count for count in counts if count)


def _shapes(graph: Any, data: Shape) -> dict[str, Shape]:
    """Name of each argument and of each output in the graph -> its shape."""
    internals = graph.get_internals()
    _, outputs, _ = internals.infer_shape(data=data)
    return dict(zip(internals.list_outputs(), outputs, strict=True))


def _node_macs(node: dict[str, Any], nodes: list[dict[str, Any]], shapes: dict[str, Shape]) -> int | None:
    """Multiply-accumulates of one node; None for an operator that is not known."""
    operator = node["op"]
    if operator in WITHOUT:
        return 0
    if operator not in (*OF_OUTPUT, *OF_INPUT):
        return None
    source, weight = (nodes[entry[0]]["name"] for entry in node["inputs"][:2])
    row = math.prod(shapes[weight][1:])
    if operator in OF_OUTPUT:
        return math.prod(shapes[f"{node['name']}_output"]) * row
    producer = nodes[node["inputs"][0][0]]
    values = shapes[source] if producer["op"] == "null" else shapes[f"{source}_output"]
    return math.prod(values) * row
