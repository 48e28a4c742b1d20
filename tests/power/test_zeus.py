"""meter=zeus: the real Zeus on a fake NVIDIA driver."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from energybench.devices import cpu_device
from energybench.errors import ConfigError, MeterError
from energybench.experiment import AutoMeter
from energybench.testing import (
    Failure,
    Server,
    ada,
    ampere_a100,
    ampere_rtx30,
    constant,
    hopper,
    idle_load_idle,
    maxwell,
    pascal,
    running,
    turing,
    volta,
)
from energybench.testing.conformance import MeterConformance
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.meters.nvml import NvmlMeter, NvmlOptions
from energybench_plugins.meters.zeus import ZeusMeter, ZeusOptions
from energybench_plugins.meters.zeus_cards import _every_card_visible

installed = pytest.mark.skipif(find_spec("zeus") is None, reason="needs Zeus (pip install 'energybench[zeus]')")
AGE_S = 10.0
LOAD = idle_load_idle(60, 240, AGE_S + 0.6, AGE_S + 2.3, ramp_s=0.1)
CARDS = tuple(preset(LOAD) for preset in (volta, turing, ampere_a100, ampere_rtx30, ada, hopper))


def zeus(**options):
    return ZeusMeter(ZeusOptions(**options))


@pytest.fixture
def opened(fake_nvml):  # noqa: F811
    sessions = []

    def go(*cards, options=None, **server):
        started, meter = fake_nvml(Server(cards, **server), AGE_S), zeus(**(options or {}))
        sessions.append(meter.open(meter.devices()))
        return started, sessions[-1]

    yield go
    for session in sessions:
        session.close()


def value(session, channel, name):
    [source] = [one for one in session.sources if (one.channel, one.name) == (channel, name)]
    [sample] = session.read(source)
    return sample.value


@installed
class TestEveryGenerationWithACounter(MeterConformance):
    @pytest.fixture(scope="class")
    def server(self):
        with running(Server(CARDS), AGE_S) as server:
            yield server

    @pytest.fixture(scope="class")
    def meter(self, server):
        return zeus()

    @pytest.fixture(scope="class")
    def truths(self, server):
        return server.truths

    @pytest.fixture
    def failing(self):
        cards = tuple(replace(card, failures=(Failure("*", from_s=AGE_S + 0.4),)) for card in CARDS)
        with running(Server(cards), AGE_S) as server:
            session = zeus().open(zeus().devices())
            time.sleep(max(0, server.at_ns(AGE_S + 0.45) - time.monotonic_ns()) / 1e9)
            yield session
            session.close()


@installed
def test_what_is_read_and_what_is_not_known_of_it(opened):
    _, session = opened(volta(constant(200), gain=1.0), hopper(constant(300), gain=1.0))
    names = {
        channel.name: [s.name for s in session.sources if s.channel == channel.name] for channel in session.channels
    }
    assert names == {"gpu.0": ["counter"], "gpu.1": ["counter", "average", "instant"]}
    assert {(source.update_s, source.averaging_s, source.period_s) for source in session.sources} == {(None, None, 0.1)}
    assert value(session, "gpu.1", "instant") == pytest.approx(300.0)
    assert value(session, "gpu.1", "average") == pytest.approx(300.0)
    before, begun = value(session, "gpu.0", "counter"), time.monotonic()
    time.sleep(0.6)
    gained_j, seconds = value(session, "gpu.0", "counter") - before, time.monotonic() - begun
    assert gained_j == pytest.approx(200.0 * seconds, abs=2 * 200.0 * 0.1)
    volta_channel = session.channels[0]
    assert "without average: ZeusGPUNotSupportedError" in volta_channel.origin
    assert "assumed, boards within 13%" in volta_channel.origin
    assert volta_channel.gain_uncertainty == pytest.approx(0.13 / math.sqrt(3))


@installed
@pytest.mark.parametrize("preset", [maxwell, pascal])
def test_the_study_s_cards_are_refused_and_not_read_as_0_joules(opened, preset):
    """They have no counter and no fields; Zeus has no other call."""
    with pytest.raises(MeterError, match=r"neither energy nor power .*counter: ZeusGPUNotSupportedError.*meter=auto"):
        opened(preset(constant(200)))


@installed
@pytest.mark.parametrize("visible", ["1", "GPU-00000001", "MIG-x", "", "-1", "1,0", "7"])
def test_cards_are_bound_by_uuid_whatever_cuda_may_see(fake_nvml, monkeypatch, visible):  # noqa: F811
    started = fake_nvml(Server((volta(constant(100), gain=1.0), hopper(constant(300), gain=1.0))), AGE_S)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    devices = zeus().devices()
    assert [device.uuid for device in devices] == list(started.truths)
    session = zeus().open(devices[1:])
    assert [channel.device_id for channel in session.channels] == [devices[1].uuid]
    assert value(session, "gpu.0", "instant") == pytest.approx(300.0)
    session.close()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_the_variables_of_visible_cards_are_given_back(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    with _every_card_visible():
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert "HIP_VISIBLE_DEVICES" not in os.environ


@installed
def test_its_devices_are_those_of_nvml(fake_nvml):  # noqa: F811
    fake_nvml(Server(CARDS), AGE_S)
    ours = NvmlMeter(NvmlOptions()).devices()
    assert [replace(device, generation="") for device in zeus().devices()] == [
        replace(device, generation="") for device in ours
    ]
    assert [device.generation for device in zeus().devices()] == [device.generation for device in ours]
    assert zeus().check().detail.startswith("Zeus 0.")


@installed
def test_a_failure_is_an_error_and_passes(opened):
    failures = tuple(Failure("nvmlDeviceGetTotalEnergyConsumption", code, 10.3, 10.6) for code in (999,))
    started, session = opened(volta(constant(100), failures=failures))
    time.sleep(max(0, started.at_ns(10.32) - time.monotonic_ns()) / 1e9)
    with pytest.raises(MeterError, match=r"Zeus: counter of gpu.0: ZeusGPUUnknownError: Unknown Error"):
        value(session, "gpu.0", "counter")
    time.sleep(max(0, started.at_ns(10.65) - time.monotonic_ns()) / 1e9)
    assert value(session, "gpu.0", "counter") > 0


@installed
def test_strangers_are_refused(fake_nvml):  # noqa: F811
    fake_nvml(Server((volta(constant(100)),)), AGE_S)
    assert not zeus().covers(cpu_device())
    with pytest.raises(MeterError, match="does not know"):
        zeus().open([cpu_device()])


@pytest.mark.parametrize("options", [{"period_s": 0}, {"period_s": math.nan}, {"gain_uncertainty": -1}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=f"meter.{next(iter(options))}="):
        ZeusOptions(**options)


def test_auto_asks_others_first():
    assert not {"zeus", "instrument"} & {name for names in AutoMeter().order.values() for name in names}


def test_without_it_the_remedy_is_told():
    code = (
        "import sys, json; sys.modules['zeus'] = None;"
        "from energybench_plugins.meters.zeus import *; m = ZeusMeter(ZeusOptions()); s = m.check();"
        "print(json.dumps([s.ok, s.remedy, list(m.devices())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [False, "pip install 'energybench[zeus]'", []]


# ---- AMD's cards: the real Zeus and amdsmi on a fake library ----

AMD = """
import json, time
from energybench_plugins.meters.zeus import ZeusMeter, ZeusOptions
meter = ZeusMeter(ZeusOptions())
found = []
for _ in range(2):  # each cell of a sweep opens it anew
    devices = meter.devices()
    session = meter.open(devices)
    names = [[source.channel, source.name, source.resolution] for source in session.sources]
    counter, begun = session.sources[1], time.monotonic()
    before = session.read(counter)[0].value
    time.sleep(0.3)
    watts = (session.read(counter)[0].value - before) / (time.monotonic() - begun)
    powers = [session.read(source)[0].value for source in session.sources if source.quantity == "power_w"]
    session.close()
    found.append([names, round(watts, 1), powers])
lines = [[device.uuid, device.name, device.generation, device.pci_bus_id] for device in devices]
print(json.dumps([lines, found, meter.check().detail, [channel.origin for channel in session.channels]]))
"""


@pytest.fixture(scope="module")
def rocm(tmp_path_factory):
    """A folder as ROCM_PATH names it, with the fake library in it."""
    folder = tmp_path_factory.mktemp("rocm")
    source = Path(__file__).parents[1] / "fakes" / "fake_amdsmi.c"
    bound = Path(find_spec("amdsmi").submodule_search_locations[0], "amdsmi_wrapper.py").read_text()
    names = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", bound)) - set(
        re.findall(r"^int (\w+)\(", source.read_text(), re.MULTILINE)
    )
    (folder / "rest.h").write_text("".join(f"int {name}(void) {{ return NOT_SUPPORTED; }}\n" for name in sorted(names)))
    (folder / "lib").mkdir()
    command = ["cc", "-shared", "-fPIC", "-Wall", f"-I{folder}", "-o", f"{folder}/lib/libamd_smi.so", str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


@installed
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("visible", ["0", "GPU-11ff74a1"])
def test_amd_s_cards_are_bound_by_uuid_and_their_counters_are_doubted(rocm, visible):
    environment = {**os.environ, "ROCM_PATH": str(rocm), "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run([sys.executable, "-c", AMD], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines, found, detail, (first, second) = json.loads(done.stdout)
    assert lines == [
        ["11ff74a1-0000-1000-80aa-000000000001", "AMD Instinct MI210", "gfx90a", "0000:02:00.0"],
        ["00ff74a1-0000-1000-80aa-000000000000", "AMD Instinct MI300X", "gfx942", "0000:01:00.0"],
    ]
    assert detail.endswith("AMD Instinct MI210, AMD Instinct MI300X")
    for names, watts, powers in found:
        assert names == [["gpu.0", "instant", 1.0], ["gpu.1", "counter", 0.001], ["gpu.1", "instant", 1.0]]
        assert powers == [300.0, 120.0]
        assert watts == pytest.approx(120.0, rel=0.25)
    assert "without counter: ZeusGPUNotSupportedError" in first
    assert "without average: ZeusGPUNotSupportedError" in second
