import dataclasses
import statistics
from pathlib import Path

import pytest
import yaml

from energybench.devices import Device, cpu_device
from energybench.errors import ConfigError, MeterError
from energybench_plugins.meters import tdp
from energybench_plugins.meters.tdp import PROCESSORS, WATTS_PER_CORE, TdpMeter, TdpOptions, estimate, find

XEON = "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"


def opened(options=None, name=XEON, cores=14):
    return TdpMeter(options or TdpOptions(), name, cores).open([cpu_device()])


def test_gives_one_estimated_channel_held_without_a_sensor():
    session = opened()
    (channel,), (source,) = session.channels, session.sources
    assert (channel.name, channel.kind, channel.estimated) == ("cpu.0", "cpu", True)
    assert channel.gain_uncertainty == 0.25
    assert (source.channel, source.name, source.quantity) == ("cpu.0", "constant", "power_w")
    assert (source.interpolation, source.period_s) == ("hold", 1.0)


def test_the_option_wins_and_is_named():
    session = opened(TdpOptions(tdp_w=65))
    assert [sample.value for sample in session.read(session.sources[0])] == [65]
    assert session.channels[0].origin == "65 W, meter.tdp_w"
    session.close()
    session.close()


def test_a_whole_package_takes_the_vendors_figure():
    power_w, origin = estimate(XEON, 14)
    assert power_w == 120
    assert origin == "120 W, Intel Xeon E5-2680 v4 (Intel product specifications)"


def test_a_virtual_machine_takes_its_share_and_says_so():
    power_w, origin = estimate(XEON, 2)
    assert power_w == pytest.approx(120 * 2 / 14)
    assert origin.startswith("17.14 W, ") and origin.endswith("120 W a package, scaled to 2 of 14 cores")


def test_two_sockets_take_twice_as_much():
    power_w, origin = estimate(XEON, 28)
    assert power_w == 240
    assert "scaled to 28 cores, 14 each" in origin


def test_an_unknown_cpu_is_counted_by_its_cores():
    power_w, origin = estimate("Intel(R) Xeon(R) Processor", 4)
    assert power_w == 4 * WATTS_PER_CORE
    assert origin == "32 W, assumed: 8 W a core x 4 (Intel(R) Xeon(R) Processor is not in the table)"


def test_the_figure_a_core_is_near_the_tables_median():
    each = [processor.tdp_w / processor.cores for processor in PROCESSORS]
    assert statistics.median(each) == pytest.approx(WATTS_PER_CORE, rel=0.1)
    assert min(each) > 3 and max(each) < 24


@pytest.mark.parametrize(
    ("name", "product"),
    [
        (XEON, "Intel Xeon E5-2680 v4"),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", "Intel Xeon Gold 6148"),
        ("Intel(R) Xeon(R) Platinum 8480+", "Intel Xeon Platinum 8480+"),
        ("Intel(R) Core(TM) i7-6700K CPU @ 4.00GHz", "Intel Core i7-6700K"),
        ("12th Gen Intel(R) Core(TM) i9-12900K", "Intel Core i9-12900K"),
        ("AMD EPYC 7742 64-Core Processor", "AMD EPYC 7742"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "AMD Ryzen 9 5950X"),
        ("AMD Ryzen Threadripper 3970X 32-Core Processor", "AMD Ryzen Threadripper 3970X"),
    ],
)
def test_names_as_systems_print_them_are_found(name, product):
    assert find(name).product == product


@pytest.mark.parametrize(
    "name",
    ["Intel(R) Core(TM) i7-6700 CPU @ 3.40GHz", "Intel(R) Core(TM) i9-12900KS", "AMD EPYC 7702P 64-Core Processor", ""],
)
def test_a_similar_name_is_another_processor(name):
    assert find(name) is None


def test_every_entry_is_found_by_its_own_name_and_no_other():
    for processor in PROCESSORS:
        assert find(f"Vendor(R) {processor.model} @ 2.00GHz") is processor


@pytest.mark.parametrize("tdp_w", [0, -5.0, float("nan"), float("inf")])
def test_watts_must_be_above_zero(tdp_w):
    with pytest.raises(ConfigError, match=rf"meter\.tdp_w={tdp_w}"):
        TdpMeter(TdpOptions(tdp_w=tdp_w))


def test_checks_and_covers_the_cpu_of_this_machine():
    meter = TdpMeter(TdpOptions())
    availability = meter.check()
    assert availability.ok and "estimate" in availability.detail
    assert meter.covers(cpu_device()) and meter.devices() == []


@pytest.mark.parametrize(
    ("name", "tdp_w", "advised"),
    [
        ("Intel(R) Xeon(R) Processor", None, True),
        ("Intel(R) Xeon(R) Processor", 65.0, False),
        ("AMD EPYC 7742", None, False),
    ],
)
def test_where_the_watts_are_assumed_it_says_how_to_give_them(name, tdp_w, advised):
    remedy = TdpMeter(TdpOptions(tdp_w=tdp_w), name, 4).check().remedy
    assert ("meter=tdp meter.tdp_w=WATTS" in remedy) is advised


def test_refuses_a_gpu():
    gpu = Device("gpu", "GPU-1", "TITAN X", "maxwell")
    meter = TdpMeter(TdpOptions())
    assert not meter.covers(gpu)
    with pytest.raises(MeterError, match="TITAN X"):
        meter.open([gpu])


def test_the_yaml_file_holds_the_options_and_their_defaults():
    config = yaml.safe_load((Path(__file__).parents[2] / "conf/meter/tdp.yaml").read_text())
    assert config == {"name": "tdp", **dataclasses.asdict(TdpOptions())}


def test_registers_itself():
    registered = []
    tdp.energybench_register_meters(lambda *part: registered.append(part))
    assert registered == [("tdp", TdpMeter, TdpOptions)]
