"""Which changes of code are changes of a run's code."""

from __future__ import annotations

import importlib
import sys

import pytest

from energybench.registry import Entry
from energybench.run import code

SOURCE = '''"""A meter."""


class Meter:
    """Reads."""

    def read(self, names={"a", "b"}):  # a set's order is other in each process
        """In watts."""
        return [name in {"x", "y", "z"} for name in names] + [3.5]
'''


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of a plugin of one module, whatever its source."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(source):
        code._digest.cache_clear()
        (tmp_path / "some_meter.py").write_text(source)
        importlib.invalidate_caches()
        module = importlib.import_module("some_meter")
        return code.code_of([Entry("meter", "some", module.Meter, object, "some 1.0")], "none")["meter some"]

    yield digest
    sys.modules.pop("some_meter", None)
    code._digest.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A meter."""', '"""A meter that reads."""\n# and more\n'),
        ('"""Reads."""', '"""Reads twice."""'),
        ('        """In watts."""\n', '        """In watts,\n\n        not in joules."""\n'),
        ("return [name", "return [  # a list\n            name"),
    ],
)
def test_words_and_layout_are_not_code(digest, old, new):
    assert SOURCE.replace(old, new) != SOURCE
    assert digest(SOURCE.replace(old, new)) == digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("3.5", "3.25"), ("+ [", "+ [0.0, "), ('"y"', '"w"'), ("names={", "others={"), ("read", "see")],
)
def test_what_a_program_does_is(digest, old, new):
    assert digest(SOURCE.replace(old, new)) != digest(SOURCE)


def test_energybench_s_own_parts_are_known_by_their_folder():
    from energybench.registry import Registry

    entry = Registry().get("meter", "tdp")
    found = code.code_of([entry], "torch 2.6")
    assert found["framework"] == "torch 2.6"
    assert found["meter tdp"].startswith("tdp (energybench ")
    assert len(code._files(entry)) > 5


def test_changes_are_named():
    before = {"energybench": "0.1.0", "core": "a", "framework": "torch 2.6", "meter nvml": "x"}
    now = {"energybench": "0.1.0", "core": "b", "framework": "torch 2.7", "meter rapl": "x"}
    assert code.changes(before, before) == []
    assert code.changes(before, now) == [
        "code of core",
        "framework torch 2.6 -> torch 2.7",
        "code of meter nvml",
        "code of meter rapl",
    ]
