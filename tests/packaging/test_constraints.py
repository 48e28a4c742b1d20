"""The lock covers what setup.cfg asks for."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12")


def asked() -> list[Requirement]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    wanted = [setup["options"]["install_requires"], *(extras[name] for name in ("gluon", "mlflow", "report", "test"))]
    text = "\n".join(wanted)
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pinned(python: str) -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins if _applies(pin, python)}


def _applies(requirement: Requirement, python: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"python_version": python})


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("wanted", asked(), ids=lambda wanted: wanted.name)
def test_each_requirement_is_pinned_to_a_version_it_allows(wanted: Requirement, python: str) -> None:
    if not _applies(wanted, python):
        return
    pin = pinned(python).get(canonicalize_name(wanted.name))
    assert pin is not None, f"{wanted.name} is not in constraints.txt: run make constraints"
    (version,) = (specifier.version for specifier in pin.specifier)
    assert wanted.specifier.contains(version, prereleases=True), f"{wanted} excludes {pin}: run make constraints"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_of_exact_versions_of_any_build_and_without_torch_s_cuda(python: str) -> None:
    pins = pinned(python)
    assert all([specifier.operator for specifier in pin.specifier] == ["=="] for pin in pins.values())
    assert not any("+" in str(pin.specifier) for pin in pins.values())
    assert str(pins["numpy"].specifier) == "==1.26.4"
    assert not {"torchvision", "triton", "nvidia-cudnn-cu13", "energybench"} & set(pins)
    assert "nvidia-ml-py" in pins


def test_a_version_that_differs_says_for_which_python() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [Requirement(line).name for line in lines if not line.startswith("#") and ";" not in line]
    assert len(names) == len(set(names))
