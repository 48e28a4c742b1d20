"""Which cards a CUDA process sees, and which a caller means."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energybench.devices import Device, cpu_device
from energybench.errors import ConfigError, DeviceError
from energybench.power.identity import environment_of, selected, visible
from energybench.testing import Server, constant, hopper, maxwell, pascal
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions

PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
MIG = "MIG-{}0000000-1111-2222-3333-444444444444"


def card(number, name="H200", instances=()):
    uuid = f"GPU-{(number + 1) * 0x11111111:08x}-fa4e-{number:04x}-0000-00000000000{number % 10}"
    return Device("gpu", uuid, name, "hopper", 90, f"00000000:{number + 1:02X}:00.0", 2**37, instances)


def seen(value, cards, **more):
    environment = dict(more) if value is None else {"CUDA_VISIBLE_DEVICES": value, **more}
    return [cards.index(replace(device, instance=None)) for device in visible(cards, environment)]


ONE = [Device("gpu", "GPU-ccfdc71b-977c-639f-5670-f607a0d2d41e", "H200", "hopper", 90)]
U, P = ONE[0].uuid, "GPU-ccfdc71b"

AS_AN_H200_DID = {
    "": 0, "0": 1, "0,0": 0, "-1": 0, "0,-1": 1, "-1,0": 0, "1": 0, "1,0": 0, "0,1": 1, "00": 1, " 0": 1, "0 ": 1,
    "+0": 1, "-0": 1, "0x0": 1, "0x1": 1, "0abc": 1, "abc": 0, "0,abc": 1, "10": 0, "01": 0, "1e0": 0, "0.5": 1, ",0": 0,  # noqa: E501
    "0,": 1, ",": 0, "0;1": 1, "0 0": 1, "\t0": 1, "0, 0": 0, "0 ,0": 0, "0,00": 0, "0,0abc": 0, "0,5,0": 1, "0,-1,0": 1,  # noqa: E501
    "0,,0": 1, "1,1": 0, "5,5": 0, "NoDevFiles": 0, "9999999999": 0, U: 1, f"{U},{U}": 0, f"{U},0": 1, f"0,{U}": 1,
    P: 1, "GPU-c": 1, "GPU-": 0, "GPU": 0, U.lower(): 0, U[4:]: 0, f"GPU-{U[4:].upper()}": 1, f"{P},{U}": 0, f" {U}": 0,
    f"{U} ": 1, f"{U}0": 1, f"{U}/0": 1, f"{P} ": 0, f"{P}zz": 0, f"{P}-": 1, f"{P}-9zz": 0, f"{P}:": 0,
    "GPU-" + U[4:].replace("-", ""): 1, U.replace("-", ""): 0, "gPU" + U[3:]: 0, f"{U},GPU-ffff": 1, f"GPU-ffff,{U}": 0,
    f"{U},GPU-ffff,{U}": 1, f"{U}, {U}": 1, f"{U} ,{U}": 0, f"{U},,{U}": 1, f"{U},0,{U}": 1, f"{U}/0,{U}": 0,
    f"MIG-{U}/0/0": 0, "MIG-00000000-0000-0000-0000-000000000000": 0,
}  # fmt: skip
"""CUDA_VISIBLE_DEVICES -> number of devices that cuDeviceGetCount gave on one H200 (driver 580.159.04; two runs)."""


@pytest.mark.parametrize("value", AS_AN_H200_DID)
def test_one_card_is_seen_as_a_real_driver_showed_it(value):
    assert len(seen(value, ONE)) == AS_AN_H200_DID[value]


EIGHT = [card(number) for number in range(8)]
TWELVE = [card(number) for number in range(12)]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, list(range(8))),
        ("2,1", [2, 1]),
        ("0,2,-1,1", [0, 2]),
        ("3,8,1", [3]),
        (f"{EIGHT[5].uuid},{EIGHT[0].uuid}", [5, 0]),
        ("GPU-4444,GPU-11111111", [3, 0]),
    ],
)
def test_eight_cards(value, wanted):
    assert seen(value, EIGHT) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"), [("10", [10]), ("1", [1]), ("10,1", [10, 1]), ("11,0", [11, 0]), ("12", [])]
)
def test_index_10_is_not_1(value, wanted):
    assert seen(value, TWELVE) == wanted


def test_a_beginning_that_two_cards_share_names_none():
    cards = [replace(card(0), uuid="GPU-aaaa1111-0"), replace(card(1), uuid="GPU-aaaa2222-0")]
    assert seen("GPU-aaaa", cards) == []
    assert seen("GPU-aaaa2,GPU-aaaa", cards) == [1]


def entries(count):
    """(text, card or None) of one kind: indices or UUIDs, in all their spellings."""
    numbers = st.integers(0, count - 1)
    index = st.builds(
        lambda before, sign, zeros, n, after: (f"{before}{sign}{zeros}{n}{after}", n),
        st.sampled_from(["", " ", "\t"]), st.sampled_from(["", "+"]), st.sampled_from(["", "0"]), numbers,
        st.sampled_from(["", " ", "x", ";3"]),
    )  # fmt: skip
    no_index = st.sampled_from(["-1", "", str(count), "99", "x1"]).map(lambda text: (text, None))
    uuid = st.builds(
        lambda n, length, upper: (
            (text := TWELVE[n].uuid[:length])[:4] + (text[4:].upper() if upper else text[4:]),
            n,
        ),
        numbers, st.integers(12, 40), st.booleans(),
    )  # fmt: skip
    no_uuid = st.sampled_from(["GPU-", "GPU-ff", "GPU-x", f"GPU-{40 * 'f'}"]).map(lambda t: (t, None))
    return st.one_of(
        st.lists(st.one_of(index, index, index, no_index), min_size=1, max_size=6),
        st.lists(st.one_of(uuid, uuid, uuid, no_uuid), min_size=1, max_size=6),
    )


@given(st.integers(1, 12).flatmap(lambda count: st.tuples(st.just(count), entries(count))))
def test_what_is_seen_is_what_stands_before_the_first_entry_that_names_nothing_unless_a_card_stands_there_twice(drawn):
    count, items = drawn
    wanted = list(itertools.takewhile(lambda number: number is not None, (number for _, number in items)))
    if len(set(wanted)) < len(wanted):
        wanted = []
    assert seen(",".join(text for text, _ in items), TWELVE[:count]) == wanted


@given(st.text(alphabet="0123456789-+,GPUMIabcdef /x", max_size=30))
def test_any_text_gives_cards_that_are_there_each_once(text):
    found = seen(text, EIGHT)
    assert len(set(found)) == len(found)


@given(st.permutations(range(8)), st.integers(0, 8))
def test_the_environment_of_devices_shows_these_devices_in_this_order(order, count):
    chosen = [EIGHT[number] for number in order[:count]]
    assert visible(EIGHT, environment_of(chosen)) == chosen


def test_a_run_on_the_cpu_sees_no_card():
    assert visible(EIGHT, environment_of([cpu_device()])) == []


MIXED = [card(0, "TITAN X"), card(1, "TITAN X"), card(2, "TITAN Xp"), card(3, "TITAN Xp")]


class TestCardsOfSeveralModels:
    """CUDA puts the fastest first, by a rule that it does not tell."""

    def test_an_index_is_refused_with_what_to_do(self):
        with pytest.raises(DeviceError, match=r"2 x hopper \(TITAN X\).*set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
            visible(MIXED, {"CUDA_VISIBLE_DEVICES": "0"})
        with pytest.raises(DeviceError, match="fastest first"):
            selected([0], MIXED, {})

    def test_by_pci_address_an_index_is_the_driver_s(self):
        assert seen("2,0", MIXED, **PCI) == [2, 0]
        assert selected([2], MIXED, PCI) == [MIXED[2]]

    def test_all_none_and_uuids_need_no_order(self):
        assert seen(None, MIXED) == [0, 1, 2, 3]
        assert seen("-1", MIXED) == []
        assert seen(MIXED[3].uuid, MIXED) == [3]
        assert selected([0], MIXED, {"CUDA_VISIBLE_DEVICES": MIXED[3].uuid}) == [MIXED[3]]

    def test_an_index_among_the_equal_is_sure(self):
        assert seen("1", MIXED[:2]) == [1]


DIVIDED = [card(0), card(1, instances=(MIG.format(1), MIG.format(2))), card(2, instances=(MIG.format(3),))]


class TestDividedCards:
    @pytest.mark.parametrize(
        ("value", "number", "instance"),
        [
            (MIG.format(2), 1, MIG.format(2)),
            ("MIG-3", 2, MIG.format(3)),
            (f"MIG-{DIVIDED[1].uuid}/3/0", 1, f"MIG-{DIVIDED[1].uuid}/3/0"),
            (f"{MIG.format(2)},{MIG.format(3)}", 1, MIG.format(2)),
            ("1", 1, MIG.format(1)),
            (DIVIDED[2].uuid, 2, MIG.format(3)),
            (None, 1, MIG.format(1)),
            ("0,1", 1, MIG.format(1)),
        ],
    )
    def test_a_process_sees_one_instance_and_nothing_else(self, value, number, instance):
        environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        assert visible(DIVIDED, environment) == [replace(DIVIDED[number], instance=instance)]

    @pytest.mark.parametrize(
        "value",
        [MIG.format(9), "MIG-", f"MIG-{DIVIDED[0].uuid}/0/0", f"MIG-{DIVIDED[1].uuid}", f"MIG-{DIVIDED[1].uuid}/x/0"],
    )  # fmt: skip
    def test_a_name_of_no_instance_names_nothing(self, value):
        assert seen(value, DIVIDED) == []

    def test_an_undivided_card_alone_is_seen_as_ever(self):
        assert visible(DIVIDED, {"CUDA_VISIBLE_DEVICES": "0"}) == [DIVIDED[0]]

    def test_a_worker_gets_the_instance_that_the_job_holds(self):
        held = visible(DIVIDED, {"CUDA_VISIBLE_DEVICES": MIG.format(2)})
        assert environment_of(held)["CUDA_VISIBLE_DEVICES"] == MIG.format(2)

    def test_two_instances_of_a_card_are_one_card_to_a_meter(self):
        with pytest.raises(ConfigError, match="twice"):
            selected([MIG.format(1), MIG.format(2)], DIVIDED, {})

    def test_nvml_tells_the_instances(self, fake_nvml):  # noqa: F811
        names = (MIG.format(1), MIG.format(2))
        fake_nvml(Server((hopper(constant(90), mig=True, instances=names), hopper(constant(90)), pascal(constant(50)))))
        assert [device.instances for device in NvmlMeter(NvmlOptions()).devices()] == [names, (), ()]


class TestWhatACallerMeans:
    def test_auto_is_what_the_process_sees(self):
        assert selected("auto", EIGHT, {"CUDA_VISIBLE_DEVICES": "5,3"}) == [EIGHT[5], EIGHT[3]]
        assert selected("auto", EIGHT, {}) == EIGHT

    @pytest.mark.parametrize("gpus", [[1], 1, "1", ["1"], (1,), " 1"])
    def test_an_index_is_the_framework_s(self, gpus):
        assert selected(gpus, EIGHT, {"CUDA_VISIBLE_DEVICES": "5,3"}) == [EIGHT[3]]

    @pytest.mark.parametrize(
        "word", [EIGHT[6].uuid, "GPU-7777", "00000000:07:00.0", "0000:07:00.0", "07:00.0", "00000000:07:00.0".lower()]
    )
    def test_a_uuid_or_an_address_names_any_card_of_the_machine(self, word):
        assert selected(word, EIGHT, {"CUDA_VISIBLE_DEVICES": "5,3"}) == [EIGHT[6]]

    @pytest.mark.parametrize("gpus", [None, [], "none", ()])
    def test_none(self, gpus):
        assert selected(gpus, EIGHT, {}) == []

    def test_several_in_the_order_given(self):
        assert selected("3,GPU-11111111", EIGHT, {}) == [EIGHT[3], EIGHT[0]]

    @pytest.mark.parametrize("gpus", [[8], "GPU-ffff", "99:00.0", "H200", "", "-1", [-1]])
    def test_what_is_not_there_is_refused_with_what_is(self, gpus):
        with pytest.raises(DeviceError, match=r"gpus="):
            selected(gpus, EIGHT, {})

    @pytest.mark.parametrize("gpus", [[0, 0], "0,GPU-11111111", 1.5, [True], [None], {"a": 1.0}.values()])
    def test_what_makes_no_sense_is_refused(self, gpus):
        with pytest.raises(ConfigError, match="gpus="):
            selected(gpus, EIGHT, {})

    def test_a_card_of_another_vendor_is_seen_whatever_cuda_hides(self):
        other = Device("gpu", "0xabcdef", "MI300X", "cdna3", 0, "0000:41:00.0")
        assert visible([*EIGHT, other], {"CUDA_VISIBLE_DEVICES": ""}) == [other]
        assert selected("0xabcdef", [*EIGHT, other], {}) == [other]


def test_a_real_driver_binding_gives_what_is_needed(fake_nvml):  # noqa: F811
    fake_nvml(Server((maxwell(constant(50)), maxwell(constant(60)), pascal(constant(70)), pascal(constant(80)))))
    cards = NvmlMeter(NvmlOptions()).devices()
    assert selected("03:00.0", cards, {}) == [cards[2]]
    assert seen("GPU-00000003", list(cards)) == [3]
