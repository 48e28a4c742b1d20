"""`energybench.measure` in a user's own process, on fake cards whose true energy is known."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

import energybench
from energybench.errors import ConfigError, DeviceError, MeterError, WindowError
from energybench.testing import Server, constant, maxwell, pascal, square, volta
from energybench.testing.fixtures import fake_nvml  # noqa: F401
from energybench_plugins.synchronizers import frameworks

FAKE_CUDA = Path(__file__).parent / "fakes" / "fake_cuda.c"


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "energybench-sampler"]


@pytest.fixture
def eight(fake_nvml, monkeypatch):  # noqa: F811
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake_nvml(Server(tuple(volta(constant(100.0 + 10 * number)) for number in range(8))))


@pytest.fixture
def mixed(fake_nvml, monkeypatch):  # noqa: F811
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    cards = (maxwell(constant(100)), maxwell(constant(110)), pascal(square(0.5, 60, 220)), pascal(constant(130)))
    return fake_nvml(Server(cards))


def ids(result):
    return [channel["device_id"] for channel in result.provenance["channels"] if channel["kind"] == "gpu"]


def agrees(result, server):
    """The energy of the cards that were read, within twice what is stated: 95 % of 95 %."""
    start_ns, end_ns = result.provenance["start_ns"], result.provenance["end_ns"]
    truth_j = sum(server.truths[uuid].energy_j(start_ns, end_ns) for uuid in ids(result))
    return abs(result.energy_j - truth_j) <= 2 * result.uncertainty_j


def test_a_job_with_two_cards_of_eight_measures_these_two(eight, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,2")
    with energybench.measure() as m, m.window("first"):
        time.sleep(0.5)
    cards = eight.server.cards
    assert ids(m.total) == [cards[5].uuid, cards[2].uuid]
    assert m["first"].power_mean_w == pytest.approx(270, rel=0.08)
    assert agrees(m["first"], eight)
    assert m["first"].channels["gpu.0"].power_mean_w == pytest.approx(150, rel=0.08)
    assert (m.total.scope, m.total.meter, m.total.estimated) == ("gpu", "nvml", False)


def test_gpus_are_those_that_are_named(eight, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,2")
    for gpus, number in ([1], 2), ("GPU-00000007", 7), ("05:00.0", 4):
        with energybench.measure(gpus=gpus) as m:
            pass
        assert ids(m.total) == [eight.server.cards[number].uuid]


def test_a_process_that_sees_no_card_measures_the_cpu(eight, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with energybench.measure(meter={"name": "tdp", "tdp_w": 65.0}) as m:
        time.sleep(0.1)
    assert (m.total.scope, m.total.estimated) == ("cpu", True)
    assert m.total.power_mean_w == pytest.approx(65)
    assert "estimated by tdp" in str(m.total)


def test_gpus_are_never_metered_by_their_cpu(eight):
    with pytest.raises(MeterError, match="does not read the gpu"), energybench.measure(meter="tdp"):
        pass


def test_windows_nest_overlap_and_tell_their_energy_on_a_mixed_server(mixed):
    with energybench.measure(gpus=["GPU-00000000", "GPU-00000002"]) as m:
        with m.window("outer"):
            with m.window("first"):
                time.sleep(0.7)
            late = m.window("late")
            late.__enter__()
            time.sleep(0.3)
        time.sleep(0.2)
        late.__exit__(None, None, None)
        assert agrees(m["first"], mixed)  # while the block goes on
    assert m.windows == ("outer", "first", "late")
    assert all(agrees(result, mixed) for result in (m.total, m["outer"], m["first"], m["late"]))
    assert m["first"].energy_j < m["outer"].energy_j < m.total.energy_j
    # A Maxwell card at steady power tells of no beat, and through its low-pass what was a fifth of a second ago.
    assert all(channel.coverage == 1 for channel in m.total.channels.values())
    assert str(m["first"]).startswith("first: ")


def test_an_index_among_different_cards_is_refused(mixed, monkeypatch):
    with pytest.raises(DeviceError, match="CUDA_DEVICE_ORDER"), energybench.measure(gpus=[0]):
        pass
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with energybench.measure(gpus=[2]) as m:
        pass
    assert ids(m.total) == [mixed.server.cards[2].uuid]


def tdp(**more):
    return energybench.measure(meter={"name": "tdp", "tdp_w": 65.0}, gpus="none", **more)


def test_windows_of_several_threads_overlap():
    with tdp() as m:

        def work(number):
            with m.window(f"thread-{number}"):
                time.sleep(0.1)

        threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {m[name].complete for name in m.windows} == {True}
    assert len(m.windows) == 8


class TestMisuse:
    def test_a_name_twice(self):
        with tdp() as m, m.window("a"), pytest.raises(WindowError, match="there is one already"), m.window("a"):
            pass

    def test_an_unknown_name(self):
        with tdp() as m, m.window("a"):
            pass
        with pytest.raises(WindowError, match="'b': there is none; there is: a"):
            m["b"]

    def test_reading_what_is_open(self):
        with tdp() as m, m.window("a"):
            with pytest.raises(WindowError, match="has not ended"):
                m["a"]
            with pytest.raises(WindowError, match="has not ended"):
                m.total  # noqa: B018

    def test_a_window_outside_of_the_block(self):
        m = tdp()
        with pytest.raises(WindowError, match="not open"), m.window("a"):
            pass
        with pytest.raises(WindowError, match="not begun"):
            m.total  # noqa: B018
        with m:
            pass
        with pytest.raises(WindowError, match="not open"), m.window("a"):
            pass
        with pytest.raises(WindowError, match="used before"), m:
            pass

    @pytest.mark.parametrize("meter", [3, {}, {"name": 1}])
    def test_no_meter(self, meter):
        with pytest.raises(ConfigError, match="meter="):
            energybench.measure(meter=meter)

    def test_an_unknown_meter_and_an_unknown_option(self):
        with pytest.raises(ConfigError, match="'tpd' is not registered"), energybench.measure(meter="tpd", gpus=[]):
            pass
        with pytest.raises(ConfigError, match="tdp_w"), energybench.measure({"name": "tdp", "tdw_w": 1}, gpus=[]):
            pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_and_the_energy_until_then(error):
    with pytest.raises(error), tdp() as m, m.window("a"):
        raise error
    assert not m["a"].complete
    assert not m.total.complete
    assert m.total.energy_j >= m["a"].energy_j > 0


def test_a_block_that_is_forgotten_ends():
    m = tdp()
    m.__enter__()
    del m  # the fixture looks for the thread


class TestFunctions:
    def test_each_call_is_a_measurement(self):
        told = []

        @tdp(on_result=told.append)
        def work(seconds):
            """Works."""
            time.sleep(seconds)
            return seconds

        assert (work(0.05), work(seconds=0.1)) == (0.05, 0.1)
        assert work.__doc__ == "Works."
        assert work.measurements == told
        assert [result.time_s for result in told] == sorted(result.time_s for result in told)
        assert str(told[0]).partition(":")[0].endswith("work")

    def test_methods_recursion_and_exceptions(self):
        class Trainer:
            @tdp()
            def fall(self, depth):
                return depth and 1 + self.fall(depth - 1)

            @tdp()
            def fail(self):
                raise ValueError("no")

        assert Trainer().fall(2) == 2
        assert len(Trainer.fall.measurements) == 3
        with pytest.raises(ValueError, match="no"):
            Trainer().fail()
        assert [result.complete for result in Trainer.fail.measurements] == [False]

    def test_coroutines(self):
        @tdp()
        async def work():
            await asyncio.sleep(0.05)
            return 7

        assert asyncio.run(work()) == 7
        assert work.measurements[0].time_s >= 0.05

    def test_what_is_no_function_is_refused(self):
        def generator():
            yield

        async def stream():
            yield

        for refused in (generator, stream, int, 7, staticmethod(len)):
            with pytest.raises(ConfigError, match="measure:"):
                tdp()(refused)
        with pytest.raises(ConfigError, match="call it first"):
            energybench.measure(len)


def test_a_measurement_survives_json():
    with tdp() as m:
        time.sleep(0.02)
    assert energybench.Measurement.from_json(m.total.to_json()) == m.total


def script(text, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", text],  # of forking beside threads, from 3.12 on
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


START = "import energybench, os, sys, time\ntdp = dict(meter={'name': 'tdp', 'tdp_w': 65.0}, gpus='none')\n"


def test_a_fork_may_not_use_the_block_and_leaves_it_alone(eight):
    done = script(
        START
        + """
import multiprocessing
with energybench.measure(gpus=[0]) as m:
    with m.window("pool"), multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        try:
            m["pool"]
        except energybench.errors.WindowError as error:
            assert "fork" in str(error)
            sys.exit(7)  # through the block's end
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    time.sleep(0.3)
assert m.total.channels["gpu.0"].coverage > 0.99, m.total
assert m["pool"].energy_j > 0
""",
        **eight.environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "ending",
    [
        "def f():\n    with energybench.measure(**tdp):\n        yield\ng = f(); next(g)\n",
        "m = energybench.measure(**tdp); m.__enter__()\n",
        "m = energybench.measure(**tdp); m.__enter__(); sys.exit(0)\n",
        "exec('with energybench.measure(**tdp) as m:\\n    time.sleep(0.01)\\nstr(m.total)', {**globals()})\n",
    ],
)
def test_an_interpreter_that_ends_ends_cleanly(ending):
    done = script(START + ending)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_energybench_is_light_and_loads_no_framework():
    done = script("import sys, energybench; print('numpy' in sys.modules, 'omegaconf' in sys.modules)")
    assert done.stdout.split() == ["False", "False"]
    done = script(
        START + "with energybench.measure(**tdp) as m: pass\n"
        "print([name for name in ('torch', 'mxnet', 'jax', 'cupy') if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture(scope="session")
def cuda_driver(tmp_path_factory):
    """A program's first line: it loads a CUDA driver of four devices."""
    library = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(FAKE_CUDA)]
    subprocess.run(command, check=True)
    return f"import ctypes; ctypes.CDLL({str(library)!r})\n"


class TestSynchronizing:
    def test_the_edges_of_windows_wait_for_what_is_loaded(self, monkeypatch):
        """A real module in the place of MXNet: its work takes 0.2 s, and goes on behind `launch`."""
        mxnet, busy = types.ModuleType("mxnet"), [0.0]
        mxnet.nd = types.SimpleNamespace(waitall=lambda: time.sleep(max(0, busy[0] - time.monotonic())))
        monkeypatch.setitem(sys.modules, "mxnet", mxnet)
        with tdp() as m:
            with m.window("launch"):
                busy[0] = time.monotonic() + 0.2
            busy[0] = time.monotonic() + 0.2
            with m.window("after"):
                pass
        assert m["launch"].time_s >= 0.19
        assert m["after"].time_s < 0.15

    def test_torch_waits_for_devices_in_use_and_makes_no_context(self, monkeypatch):
        waited = []
        torch = types.ModuleType("torch")
        torch._C = types.SimpleNamespace(_cuda_hasPrimaryContext=lambda index: index == 2)
        torch.cuda = types.SimpleNamespace(
            is_initialized=lambda: started, device_count=lambda: 4, synchronize=waited.append
        )
        monkeypatch.setitem(sys.modules, "torch", torch)
        started = False
        frameworks.wait_for_torch()
        assert waited == []
        started = True
        frameworks.wait_for_torch()
        assert waited == [2]

    @pytest.mark.parametrize(
        "environment, waited",
        [({"CUDA_BUSY": "0110"}, ["1", "2"]), ({"CUDA_BUSY": "0000"}, []), ({}, [])],
        ids=["two in use", "none in use", "loaded and not started"],
    )
    def test_what_uses_cuda_is_waited_for_where_it_has_a_context(self, cuda_driver, environment, waited):
        """As CuPy does, or anything else: it is found by the driver that it loaded."""
        done = script(
            cuda_driver + START + "with energybench.measure(**tdp) as m:\n    with m.window('work'): pass",
            **environment,
        )
        assert done.returncode == 0, done.stderr
        told = done.stderr.splitlines()
        assert "left 0" in told and not [line for line in told if line.startswith("new context")]
        edges = 4  # of the block and of the window
        assert [line.split()[-1] for line in told if line.startswith("waited")] == waited * edges

    def test_a_window_ends_when_the_device_s_work_does(self, cuda_driver):
        done = script(
            START + cuda_driver + "begun = time.monotonic()\n"
            "with energybench.measure(**tdp) as m: entered = time.monotonic() - begun\n"
            "print(entered)",
            CUDA_BUSY="1000",
            CUDA_WORK_MS="400",
        )
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) >= 0.35

    def test_what_a_device_says_when_it_is_waited_for_is_told(self, cuda_driver):
        done = script(
            cuda_driver + START + "with energybench.measure(**tdp): os.environ['CUDA_FAILS'] = '700'\n",
            CUDA_BUSY="0010",
        )
        assert done.returncode and "CUDA error 700 of work on device 2" in done.stderr and "left 0" in done.stderr

    def test_an_error_of_the_devices_is_told_but_hides_no_other(self, monkeypatch):
        mxnet = types.ModuleType("mxnet")
        fails = False

        def waitall():
            if fails:
                raise RuntimeError("illegal access")

        mxnet.nd = types.SimpleNamespace(waitall=waitall)
        monkeypatch.setitem(sys.modules, "mxnet", mxnet)
        with pytest.raises(RuntimeError, match="illegal access"), tdp():
            fails = True
        fails = False
        with pytest.raises(ValueError, match="mine"), tdp():
            fails = True
            raise ValueError("mine")

    def test_a_real_torch_of_the_cpu(self):
        pytest.importorskip("torch", reason="needs PyTorch")
        done = script(START + "import torch\nwith energybench.measure(**tdp) as m: torch.ones(3).sum()\nprint(m.total)")
        assert done.returncode == 0, done.stderr

    @pytest.mark.gluon
    def test_a_real_mxnet(self):
        if find_spec("mxnet") is None:
            pytest.skip("needs MXNet")
        done = script(
            START + "from energybench_plugins.engines.mxnet_import import import_mxnet\nmx = import_mxnet()\n"
            "x = mx.nd.ones((1500, 1500))\nx.wait_to_read()\n"
            "with energybench.measure(**tdp) as m:\n"
            "    with m.window('work'):\n"
            "        for _ in range(10): x = mx.nd.dot(x, x) * 1e-3\n"
            "    with m.window('rest'): x.wait_to_read()\n"
            "print(m['work'].time_s, m['rest'].time_s)"
        )
        assert done.returncode == 0, done.stderr
        work, rest = map(float, done.stdout.split())
        assert work > 3 * rest

    def test_a_real_jax(self):
        pytest.importorskip("jax", reason="needs JAX (pip install jax); not part of the test environment")
        done = script(
            START + "import jax, jax.numpy as jnp\nwith energybench.measure(**tdp): pass\n"
            "assert not jax._src.xla_bridge._backends\n"
            "f = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda i, y: y @ x * 1e-3, x))\n"
            "x = jnp.ones((1000, 1000)); f(x).block_until_ready()\n"
            "with energybench.measure(**tdp) as m:\n"
            "    with m.window('work'): y = f(x)\n"
            "    with m.window('rest'): y.block_until_ready()\n"
            "print(m['work'].time_s, m['rest'].time_s)"
        )
        assert done.returncode == 0, done.stderr
        work, rest = map(float, done.stdout.split())
        assert work > 3 * rest
