"""How plugins are found, what a broken one costs, and who owns a name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata

import pytest

from energybench.errors import ConfigError, PluginError
from energybench.registry import Registry

OURS = {
    "model": {"caffenet", "cnn2d", "lenet", "resnet", "resnetim"},
    "dataset": {"digits", "synthetic"},
    "engine": {"gluon"},
    "meter": {"rapl", "tdp"},
}


def test_our_parts_come_through_entry_points_and_have_an_owner():
    registry = Registry()
    assert not registry.broken
    assert not registry.duplicates()
    version = metadata.version("energybench")
    points = {point.name for point in metadata.entry_points(group="energybench")}
    for kind, names in OURS.items():
        assert names <= set(registry.names(kind))
    for entry in registry.entries():
        plugin, _, distribution = entry.owner.partition(" ")
        assert plugin in points
        assert distribution == f"(energybench {version})"
        assert registry.get(entry.kind, entry.name) is entry


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Writes modules and names them in ENERGYBENCH_PLUGINS; a source of None names one that is not there."""

    def write(**sources):
        for name, source in sources.items():
            if source is not None:
                (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("ENERGYBENCH_PLUGINS", " , ".join(sources))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in sources:
            monkeypatch.delitem(sys.modules, name, raising=False)
        return Registry()

    return write


METER = """
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Options:
        watts: float = 1.0

    def energybench_register_meters(register):
        register({name!r}, Options, Options)
"""
GOOD = METER.format(name="good")

BROKEN = {
    "no_module": (None, "ModuleNotFoundError: No module named 'no_module'"),
    "bad_import": ("import there_is_no_such_driver", "No module named 'there_is_no_such_driver'"),
    "bad_syntax": ("def broken(:\n    pass", "SyntaxError"),
    "bad_start": ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    "bad_hook": ("def energybench_register_meters(register):\n    1 / 0", "ZeroDivisionError: division by zero"),
    "misspelt": ("def energybench_register_meter(register):\n    pass", "unknown hook 'energybench_register_meter'"),
    "arguments": ("def energybench_register_meters(registry):\n    pass", "registry"),
    "no_hook": ("def register(registry):\n    pass", "no hook in it"),
    "no_schema": (
        "def energybench_register_meters(register):\n    register('x', print, dict)",
        "the schema of meter 'x' is not a dataclass",
    ),
    "no_factory": (
        "def energybench_register_meters(register):\n    register('x', None, dict)",
        "the factory of meter 'x' cannot be called",
    ),
    "no_name": ("def energybench_register_meters(register):\n    register('', print, dict)", "the meter's name is ''"),
    "no_arguments": ("def energybench_register_meters(register):\n    register('x')", "TypeError"),
    "half": (METER.format(name="half") + "\n    def energybench_config_path():\n        1 / 0", "ZeroDivisionError"),
}


class TestBroken:
    @pytest.mark.parametrize(("name", "source", "reason"), [(name, *case) for name, case in BROKEN.items()])
    def test_it_is_one_line_and_the_rest_works(self, plugins, name, source, reason):
        source = source and textwrap.dedent(source)
        registry = plugins(**{name: source, "fine": GOOD})
        [broken] = registry.broken
        line = str(broken)
        assert line.startswith(f"plugin {name} (ENERGYBENCH_PLUGINS) could not be loaded: ")
        assert reason in line
        assert "\n" not in line
        assert registry.get("meter", "good").owner == "fine (ENERGYBENCH_PLUGINS)"
        assert OURS["meter"] < set(registry.names("meter"))

    def test_its_reason_is_shown_when_an_unknown_name_is_asked_for(self, plugins):
        registry = plugins(bad_import=BROKEN["bad_import"][0])
        with pytest.raises(ConfigError) as caught:
            registry.get("meter", "its_meter")
        message = str(caught.value)
        names = ", ".join(registry.names("meter"))
        assert message.startswith(f"meter 'its_meter' is not registered; there is: {names};")
        assert "plugin bad_import (ENERGYBENCH_PLUGINS)" in message
        assert "there_is_no_such_driver" in message

    def test_the_command_line_says_it_in_one_line_and_goes_on(self, plugins, tmp_path):
        plugins(bad_import=BROKEN["bad_import"][0], fine=GOOD)
        done = subprocess.run(
            [sys.executable, "-m", "energybench", "plugins"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0
        [line] = done.stderr.splitlines()
        assert line.startswith("energybench: warning: plugin bad_import (ENERGYBENCH_PLUGINS) could not be loaded")
        assert "good" in done.stdout

    def test_an_installed_one_is_named_with_its_distribution(self, tmp_path, monkeypatch):
        info = tmp_path / "acme-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-power\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text("[energybench]\nacme = acme_power:plugin\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        [broken] = Registry().broken
        assert str(broken) == (
            "plugin acme (acme-power 2.5) could not be loaded: ModuleNotFoundError: No module named 'acme_power'"
        )


class TestDuplicate:
    def test_both_owners_are_named_when_it_is_asked_for(self, plugins):
        registry = plugins(one=METER.format(name="twice"), two=METER.format(name="twice"), fine=GOOD)
        assert not registry.broken
        owners = "one (ENERGYBENCH_PLUGINS) and two (ENERGYBENCH_PLUGINS)"
        assert registry.duplicates() == [f"meter 'twice' is registered by {owners}; it cannot be used"]
        with pytest.raises(PluginError, match=r"one .* and two"):
            registry.get("meter", "twice")
        assert registry.get("meter", "good")

    def test_ours_cannot_be_replaced_unnoticed(self, plugins):
        registry = plugins(usurper=METER.format(name="tdp"))
        with pytest.raises(PluginError, match=r"tdp \(energybench .*\) and usurper \(ENERGYBENCH_PLUGINS\)"):
            registry.get("meter", "tdp")

    def test_one_plugin_that_registers_a_name_twice(self, plugins):
        source = METER.format(name="twice") + "        register('twice', Options, Options)\n"
        registry = plugins(one=source)
        with pytest.raises(PluginError, match="twice"):
            registry.get("meter", "twice")

    def test_a_module_named_twice_is_loaded_once(self, plugins, monkeypatch):
        plugins(fine=GOOD)
        monkeypatch.setenv("ENERGYBENCH_PLUGINS", "fine,fine,energybench_plugins.meters.tdp,,")
        registry = Registry()
        assert not registry.duplicates()
        assert not registry.broken


def test_the_same_name_may_stand_in_two_kinds(plugins):
    both = METER.format(name="both").replace("meters", "engines") + METER.format(name="both")
    registry = plugins(one=both)
    assert registry.get("meter", "both").kind == "meter"
    assert registry.get("engine", "both").kind == "engine"


def test_processes_inherit_them(plugins):
    plugins(fine=GOOD)
    code = "from energybench.registry import Registry; print(Registry().get('meter', 'good').owner)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fine (ENERGYBENCH_PLUGINS)\n"
