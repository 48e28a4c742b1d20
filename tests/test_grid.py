"""The grid over the devices that a machine has."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from scripted import GPUS

from energybench.grid import GridCell, grid


def cells(*words, gpus=GPUS, shuffle=None):
    parsed = OverridesParser.create().parse_overrides(list(words))
    return grid(parsed, shuffle, None if gpus is None else lambda: gpus)


def on(gpu, count):
    return [f"gpu={gpu}", f"gpu.count={count}"]


EVERY = [on("maxwell", 1), on("maxwell", 2), on("pascal", 1), on("pascal", 2)]


def test_every_generation_from_one_card_to_all():
    assert cells("batch=8,16") == [GridCell([f"batch={batch}", *one], True) for batch in (8, 16) for one in EVERY]
    assert cells("batch=8", gpus=GPUS[1:]) == [GridCell(["batch=8", *one], True) for one in [EVERY[0], *EVERY[2:]]]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["gpu=pascal"], [GridCell(on("pascal", count), True) for count in (1, 2)]),
        (["gpu.count=2"], [GridCell(["gpu.count=2", f"gpu={name}"], True) for name in ("maxwell", "pascal")]),
        (["gpu.count=all"], [GridCell(["gpu.count=all", f"gpu={name}"], True) for name in ("maxwell", "pascal")]),
        (["gpu.count=3"], [GridCell(["gpu.count=3", "gpu=maxwell"], False)]),  # refused: no generation has so many
        (["gpu=hopper"], [GridCell(["gpu=hopper"], False)]),  # likewise
        (["gpu=cpu"], [GridCell(["gpu=cpu"], False)]),
    ],
)
def test_what_is_written_of_it_holds(words, wanted):
    assert cells(*words) == wanted


def test_both_written_is_what_is_written():
    def never():
        raise AssertionError("the drivers are asked only where it matters")

    parsed = OverridesParser.create().parse_overrides(["gpu=pascal,maxwell", "gpu.count=1,9"])
    found = grid(parsed, None, never)
    assert [cell.overrides for cell in found] == [on(gpu, n) for gpu in ("pascal", "maxwell") for n in (1, 9)]
    assert not any(cell.implied for cell in found)


def test_without_gpus_or_without_the_wish_nothing_is_added():
    assert cells("batch=8,16", gpus=[]) == cells("batch=8,16", gpus=None) == [GridCell([f"batch={b}"]) for b in (8, 16)]


def test_shuffled_devices_and_settings_mix():
    found = cells("batch=8,16,32", shuffle=1)
    assert sorted(str(cell) for cell in found) == sorted(str(cell) for cell in cells("batch=8,16,32"))
    assert found != cells("batch=8,16,32")
    assert cells("batch=8,16,32", shuffle=1) == found
