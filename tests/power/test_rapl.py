import dataclasses
import os
import threading
import time
from pathlib import Path

import pytest
import yaml

from energybench.devices import Device, cpu_device
from energybench.errors import ConfigError, MeterError
from energybench.power.meter import Reading
from energybench.power.timeline import Timeline
from energybench.testing.conformance import MeterConformance
from energybench_plugins.meters import rapl
from energybench_plugins.meters.rapl import RaplMeter, RaplOptions

RANGE_UJ = 262_143_328_850
SECOND_NS = 1_000_000_000


def zone(root, folder, name, energy_uj=1_000_000):
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return path


def meter(root, **options):
    return RaplMeter(RaplOptions(root=str(root), **options))


def names(root):
    return [channel.name for channel in meter(root).open([cpu_device()]).channels]


@pytest.fixture
def root(tmp_path):
    """One package with memory, as the kernel's class folder lists it: every zone side by side."""
    (tmp_path / "intel-rapl").mkdir()
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_500_000)
    return tmp_path


def test_packages_and_memory_are_channels_and_parts_of_packages_are_not(root):
    session = meter(root).open([cpu_device()])
    assert [(channel.name, channel.kind) for channel in session.channels] == [("cpu.0", "cpu"), ("dram.0", "dram")]
    assert [session.read(source)[0].value for source in session.sources] == [5.0, 2.5]
    session.close()
    session.close()


def test_sources_are_counters_that_wrap(root):
    source = meter(root, period_s=0.2).open([cpu_device()]).sources[0]
    assert (source.name, source.quantity, source.period_s) == ("counter", "energy_j", 0.2)
    assert source.wraps_at_j == pytest.approx(RANGE_UJ / 1e6)


def test_zones_inside_their_package_are_found_once(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "dram")
    zone(tmp_path, "intel-rapl:0:0", "dram")
    assert names(tmp_path) == ["cpu.0", "dram.0"]


def test_the_package_number_comes_from_the_name_and_ten_comes_after_two(tmp_path):
    for number, package in ((10, 3), (2, 1), (0, 0), (1, 2)):
        zone(tmp_path, f"intel-rapl:{number}", f"package-{package}")
    zone(tmp_path, "intel-rapl:2:0", "dram")
    assert names(tmp_path) == ["cpu.0", "cpu.2", "cpu.1", "dram.1", "cpu.3"]


def test_two_dies_of_one_package_are_two_channels(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0-die-0")
    zone(tmp_path, "intel-rapl:1", "package-0-die-1")
    assert names(tmp_path) == ["cpu.0.0", "cpu.0.1"]


def test_mmio_duplicates_are_not_counted_twice(root):
    zone(root, "intel-rapl-mmio:0", "package-0", 77)
    session = meter(root).open([cpu_device()])
    assert [channel.name for channel in session.channels] == ["cpu.0", "dram.0"]
    assert session.read(session.sources[0])[0].value == 5.0


def test_a_package_that_only_mmio_offers_is_read(tmp_path):
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert names(tmp_path) == ["cpu.0"]


def test_the_platform_is_a_container_of_its_own_kind(root):
    zone(root, "intel-rapl:1", "psys")
    channel = meter(root).open([cpu_device()]).channels[-1]
    assert (channel.name, channel.kind, channel.contains) == ("psys.0", "psys", ("cpu", "dram"))


def test_a_wrap_costs_and_invents_nothing(root):
    session = meter(root).open([cpu_device()])
    channel, source = session.channels[0], session.sources[0]
    readings = []
    for i, energy_uj in enumerate((RANGE_UJ - 20_000_000, RANGE_UJ - 10_000_000, 0, 10_000_000)):
        (root / "intel-rapl:0/energy_uj").write_text(str(energy_uj))
        value = session.read(source)[0].value
        readings.append(Reading(channel.name, source.name, source.quantity, i * SECOND_NS, i * SECOND_NS, value))
    energy = Timeline(channel, session.sources, readings).energy(0, 3 * SECOND_NS)
    assert energy.energy_j == pytest.approx(30)
    assert energy.common_u_j == pytest.approx(1.5)
    assert energy.coverage == 1


def test_without_a_known_range_the_counter_does_not_wrap(root):
    (root / "intel-rapl:0/max_energy_range_uj").unlink()
    assert meter(root).open([cpu_device()]).sources[0].wraps_at_j is None


@pytest.mark.parametrize("folder", ["missing", "."])
def test_no_tree_is_explained(tmp_path, folder):
    availability = meter(tmp_path / folder).check()
    assert not availability.ok
    assert "virtual machine" in availability.detail and "intel_rapl_common" in availability.detail
    assert "meter=tdp" in availability.remedy


def test_a_platform_alone_is_no_processor(tmp_path):
    zone(tmp_path, "intel-rapl:0", "psys")
    assert not meter(tmp_path).check().ok


def test_a_counter_that_cannot_be_read_is_named(root):
    path = root / "intel-rapl:0/energy_uj"
    path.unlink()
    path.mkdir()
    availability = meter(root).check()
    assert not availability.ok and str(path) in availability.detail
    with pytest.raises(MeterError, match="meter 'rapl'"):
        meter(root).open([cpu_device()])


def test_counters_that_a_hypervisor_shows_as_zero_are_refused(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    availability = meter(tmp_path).check()
    assert not availability.ok and "virtual machine" in availability.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_missing_permission_gives_the_reason_and_the_remedy(root):
    (root / "intel-rapl:0/energy_uj").chmod(0)
    availability = meter(root).check()
    assert not availability.ok
    assert "CVE-2020-8694" in availability.detail and "PLATYPUS" in availability.detail
    assert f"sudo chmod a+r {root}/*/energy_uj" in availability.remedy and "udev" in availability.remedy


def test_a_failing_read_is_a_meter_error_and_the_next_may_work(root):
    session = meter(root).open([cpu_device()])
    path = root / "intel-rapl:0/energy_uj"
    path.write_text("")
    with pytest.raises(MeterError, match="RAPL"):
        session.read(session.sources[0])
    path.write_text("6000000")
    assert session.read(session.sources[0])[0].value == 6.0


def test_covers_cpus_only(root):
    gpu = Device("gpu", "GPU-1", "TITAN X", "maxwell")
    assert meter(root).covers(cpu_device()) and not meter(root).covers(gpu)
    assert meter(root).devices() == []
    with pytest.raises(MeterError, match="TITAN X"):
        meter(root).open([gpu])


@pytest.mark.parametrize("options", [{"period_s": 0}, {"period_s": float("nan")}, {"gain_uncertainty": -0.1}])
def test_impossible_options_are_named(tmp_path, options):
    with pytest.raises(ConfigError, match=f"meter.{next(iter(options))}="):
        meter(tmp_path, **options)


def test_the_yaml_file_holds_the_options_and_their_defaults():
    config = yaml.safe_load((Path(__file__).parents[2] / "conf/meter/rapl.yaml").read_text())
    assert config == {"name": "rapl", **dataclasses.asdict(RaplOptions())}


def test_registers_itself():
    registered = []
    rapl.energybench_register_meters(lambda *part: registered.append(part))
    assert registered == [("rapl", RaplMeter, RaplOptions)]


class TestConformance(MeterConformance):
    """A package and its memory whose counters run; when exactly they are written is the scheduler's, so no truth."""

    seconds = 1.0

    @pytest.fixture(scope="class")
    def running_root(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("powercap")
        zones = [zone(root, "intel-rapl:0", "package-0"), zone(root, "intel-rapl:0:1", "dram")]
        files = [os.open(path / "energy_uj", os.O_WRONLY) for path in zones]
        over = threading.Event()

        def run():
            while not over.wait(0.002):
                for watts, file in zip((80, 9), files, strict=True):  # of one length, written at once
                    os.pwrite(file, b"%020d\n" % (watts * time.monotonic_ns() // 1000 % RANGE_UJ), 0)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.05)
        yield root
        over.set()
        thread.join()
        for file in files:
            os.close(file)

    @pytest.fixture(scope="class")
    def meter(self, running_root):
        return meter(running_root)

    @pytest.fixture
    def failing(self, root):
        session = meter(root).open([cpu_device()])
        for path in root.glob("*/energy_uj"):
            path.unlink()
        return session
