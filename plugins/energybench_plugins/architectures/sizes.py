"""Square inputs: which sizes a network takes, and what to say of one that it does not."""

from __future__ import annotations

from energybench.architecture import Layer, Shape, through
from energybench.errors import ConfigError

_LARGEST = 1024
"""Where the search for the smallest input ends: no network here needs more."""


def square_input(model: str, layers: tuple[Layer, ...], channels: int, input_size: int) -> Shape:
    """Shape (channels, input_size, input_size) of one sample, once `layers` are known to take it.

    Raises:
        ConfigError: `input_size` makes no network; the message names the smallest that does.
    """
    if channels < 1:
        raise ConfigError(f"model.channels={channels}: {model} needs at least 1")
    if _fits(layers, channels, input_size):
        return channels, input_size, input_size
    smallest = next(size for size in range(1, _LARGEST) if _fits(layers, channels, size))
    raise ConfigError(f"model.input_size={input_size} is too small for {model}: the smallest that works is {smallest}")


def _fits(layers: tuple[Layer, ...], channels: int, size: int) -> bool:
    try:
        through(layers, (channels, size, size))
    except ConfigError:
        return False
    return size > 0
