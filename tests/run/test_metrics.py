"""Sums, uncertainties and names: arithmetic on phases made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from energybench.run.metrics import epochs, in_scope, metrics, total
from energybench.run.result import ChannelEnergy, Phase

S = 1_000_000_000


def energy(energy_j, independent=0.0, common=0.0, peak_w=None, coverage=1.0):
    known = energy_j is not None
    return ChannelEnergy(
        energy_j, independent if known else None, common if known else None, None, peak_w, 100, 0.1, coverage,
        "counter", False,
    )  # fmt: skip


def phase(name, start_s, end_s, epoch=None, complete=True, channels=None, **values):
    return Phase(name, epoch, round(start_s * S), round(end_s * S), complete, channels or {}, values)


def train(start_s, end_s, energy_j, epoch=1, channel="gpu.0", **values):
    return phase("train", start_s, end_s, epoch, channels={channel: energy(energy_j)}, **values)


class TestTotal:
    def test_energies_add_over_phases_and_channels(self):
        phases = [
            phase("train", 0, 1, channels={"a": energy(1.0), "b": energy(2.0)}),
            phase("train", 5, 7, channels={"a": energy(4.0), "b": energy(8.0)}),
        ]
        found = total(phases, ["a", "b"])
        assert (found.energy_j, found.time_s, found.covered_s, found.mean_w) == (15.0, 3.0, 3.0, 5.0)

    def test_independent_parts_add_in_quadrature(self):
        phases = [phase("train", i, i + 1, channels={"a": energy(1, 3.0), "b": energy(1, 4.0)}) for i in range(4)]
        assert total(phases, ["a", "b"]).independent_u_j == pytest.approx(math.sqrt(4 * (9 + 16)))

    def test_what_edges_hide_adds_linearly_and_is_part_of_the_independent(self):
        one = replace(energy(1, 5.0), edges_u_j=3.0)
        found = total([phase("train", i, i + 1, channels={"a": one, "b": one}) for i in range(4)], ["a", "b"])
        assert found.edges_u_j == pytest.approx(8 * 3.0)
        assert found.independent_u_j == pytest.approx(math.hypot(8 * 3.0, math.sqrt(8) * 4.0))

    def test_a_boards_gain_adds_linearly_over_phases_and_in_quadrature_over_boards(self):
        phases = [phase("train", i, i + 1, channels={"a": energy(1, 0, 3.0), "b": energy(1, 0, 4.0)}) for i in range(4)]
        found = total(phases, ["a", "b"])
        assert found.common_u_j == pytest.approx(math.hypot(12.0, 16.0))
        assert found.expanded_u_j == pytest.approx(2 * found.common_u_j)

    def test_expanded_is_twice_both_parts(self):
        assert total([phase("train", 0, 1, channels={"a": energy(9, 3.0, 4.0)})], ["a"]).expanded_u_j == 10.0

    @pytest.mark.parametrize(
        "channels", [{"a": energy(1.0), "b": energy(None)}, {"a": energy(1.0)}, {}], ids=["unread", "missing", "none"]
    )
    def test_part_of_a_sum_is_no_sum(self, channels):
        assert total([phase("train", 0, 1, channels=channels)], ["a", "b"]).energy_j is None

    def test_nothing_is_not_zero(self):
        found = total([], ["a"])
        assert (found.energy_j, found.mean_w, found.peak_w) == (None, None, None)

    def test_mean_power_is_over_the_covered_time(self):
        found = total([phase("train", 0, 10, channels={"a": energy(50.0, coverage=0.5)})], ["a"])
        assert (found.covered_s, found.mean_w) == (5.0, 10.0)

    def test_peak_is_of_all_channels_in_one_phase(self):
        phases = [
            phase("train", 0, 1, channels={"a": energy(1, peak_w=10.0), "b": energy(1, peak_w=50.0)}),
            phase("train", 1, 2, channels={"a": energy(1, peak_w=40.0), "b": energy(1, peak_w=5.0)}),
            phase("train", 2, 3, channels={"a": energy(1, peak_w=900.0), "b": energy(1)}),
        ]
        assert total(phases, ["a", "b"]).peak_w == 60.0


RUN = [
    phase("idle", 0, 5, channels={"gpu.0": energy(50.0), "cpu.0": energy(5.0)}),
    phase("load", 5, 8, channels={"gpu.0": energy(60.0), "cpu.0": energy(9.0)}),
    phase("warmup", 8, 9, channels={"gpu.0": energy(70.0), "cpu.0": energy(9.0)}, images=320, steps=5),
    *(
        part
        for number in (1, 2)
        for part in (
            phase(
                "train", 10 * number, 10 * number + 4, number,
                channels={"gpu.0": energy(400.0, 3.0, 4.0, 150.0), "cpu.0": energy(40.0)},
                images=1000, steps=10, loss=1.0 / number,
            ),
            phase(
                "validate", 10 * number + 4, 10 * number + 5, number,
                channels={"gpu.0": energy(60.0), "cpu.0": energy(9.0)},
                images=200, loss=0.5, accuracy_top1=0.4 * number, accuracy_top5=0.49 * number,
            ),
        )
    ),
]  # fmt: skip


class TestMetrics:
    FOUND = metrics(RUN, ["gpu.0"], ["gpu.0", "cpu.0"], flops_per_image=5_000_000)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("energy_j", 800.0),
            ("energy_j.gpu.0", 800.0),
            ("energy_j.cpu.0", 80.0),
            ("time_s", 8.0),
            ("images", 2000.0),
            ("images_per_s", 250.0),
            ("energy_per_image_j", 0.4),
            ("power_mean_w", 100.0),
            ("power_peak_w", 150.0),
            ("power_idle_w", 10.0),
            ("energy_above_idle_j", 720.0),
            ("edp_js", 6400.0),
            ("energy_uncertainty_j", 2 * math.hypot(math.hypot(3, 3), 8)),
            ("energy_independent_uncertainty_j", 2 * math.hypot(3, 3)),
            ("gflops_per_s", 2000 * 5e6 / 1e9 / 8.0),
            ("gflops_per_w", 2000 * 5e6 / 1e9 / 800.0),
            ("accuracy_top1", 0.8),
            ("accuracy_top5", 0.98),
            ("loss", 0.5),
            ("validate.energy_j", 120.0),
            ("validate.images", 400.0),
            ("warmup.energy_j", 70.0),
            ("warmup.images_per_s", 320.0),
            ("load.time_s", 3.0),
            ("idle.power_mean_w", 10.0),
        ],
    )
    def test_value(self, name, value):
        assert self.FOUND[name] == pytest.approx(value)

    def test_nothing_of_other_phases_without_a_prefix(self):
        assert "load.images" not in self.FOUND
        assert not [name for name in self.FOUND if name.startswith("train.")]
        assert all(isinstance(value, float) and math.isfinite(value) for value in self.FOUND.values())

    def test_what_was_not_read_is_absent(self):
        found = metrics([train(0, 1, None, images=10)], ["gpu.0"], ["gpu.0"], 1000)
        assert found == {"time_s": 1.0, "images": 10.0, "images_per_s": 10.0, "gflops_per_s": pytest.approx(1e-5)}

    def test_without_idle_there_is_nothing_above_it(self):
        found = metrics([train(0, 1, 100.0)], ["gpu.0"], ["gpu.0"], None)
        assert not [name for name in found if "idle" in name or "gflops" in name or "image" in name]

    def test_joules_of_a_part_are_not_divided_by_the_whole(self):
        half = [
            phase("idle", 0, 1, channels={"gpu.0": energy(10.0)}),
            phase("train", 1, 11, 1, channels={"gpu.0": energy(500.0, coverage=0.5)}, images=100.0),
        ]
        found = metrics(half, ["gpu.0"], ["gpu.0"], 1_000_000)
        assert found["energy_j"] == 500.0
        assert found["images_per_s"] == 10.0
        missing = {"energy_per_image_j", "edp_js", "gflops_per_w", "energy_above_idle_j"}
        assert not missing & found.keys()

    def test_an_idle_that_was_not_read(self):
        found = metrics(
            [phase("idle", 0, 1, channels={"gpu.0": energy(None)}), train(1, 2, 9.0)], ["gpu.0"], ["gpu.0"], 1
        )
        assert "power_idle_w" not in found
        assert "energy_above_idle_j" not in found

    def test_a_run_that_did_not_come_to_training(self):
        found = metrics(RUN[:2], ["gpu.0"], ["gpu.0"], 1000)
        assert {name.partition(".")[0] for name in found} == {"idle", "load"}

    def test_accuracy_is_of_the_last_validation_that_ended(self):
        cut = phase("validate", 30, 31, 3, complete=False, accuracy_top1=0.99)
        assert metrics([*RUN, cut], ["gpu.0"], [], None)["accuracy_top1"] == 0.8

    def test_nothing_at_all(self):
        assert metrics([], ["gpu.0"], ["gpu.0"], 1000) == {}

    def test_a_phase_without_length(self):
        found = metrics([train(1, 1, 0.0, images=5)], ["gpu.0"], ["gpu.0"], 1000)
        assert "images_per_s" not in found
        assert "gflops_per_w" not in found


class TestEpochs:
    def test_one_row_an_epoch(self):
        first, second = epochs(RUN, ["gpu.0"])
        assert (first["epoch"], second["epoch"]) == (1.0, 2.0)
        assert (first["energy_j"], first["loss"], first["accuracy_top1"]) == (400.0, 1.0, 0.4)
        assert second["accuracy_top1"] == 0.8

    def test_one_that_was_cut_is_left_out(self):
        assert [row["epoch"] for row in epochs([*RUN, phase("train", 40, 41, 3, complete=False)], ["gpu.0"])] == [1, 2]

    def test_one_without_validation_has_no_accuracy(self):
        [row] = epochs([train(0, 1, 5.0)], ["gpu.0"])
        assert "accuracy_top1" not in row
        assert None not in row.values()


def test_scope():
    kinds = {"gpu.0": "gpu", "cpu.0": "cpu", "gpu.1": "gpu", "dram.0": "dram", "wall": "wall"}
    assert in_scope(kinds, "gpu") == ["gpu.0", "gpu.1"]
    assert in_scope(kinds, "cpu") == ["cpu.0"]
