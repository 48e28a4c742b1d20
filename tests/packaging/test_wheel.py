"""What is published works for somebody who has nothing else: the wheel, in an empty environment, from another folder.

No framework and no MLflow is there. A third party's package, the one in `examples/`, brings a network and a meter; an
engine in numpy alone (`plugins/numpy_engine.py`) trains the one while the other is read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.venv

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "energybench-example"
ENGINE = Path(__file__).parent / "plugins"
PUBLISHED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "energybench", "plugins", "conf")
NUMPY_1 = "numpy==1.26.4"
ABSENT = ("mxnet", "gluoncv", "torch", "mlflow", "matplotlib", "jinja2")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def _environment(**variables: str) -> dict[str, str]:
    """This process's variables without those that would let the environment see this checkout or its tools."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "ENERGYBENCH_", "MLFLOW_", "CUDA_", "HYDRA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    locks = {name: os.environ[name] for name in ("ENERGYBENCH_LOCKS",) if name in os.environ}
    return kept | locks | variables


def _checked(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Installed:
    """A virtual environment and a folder to work in, which is not this checkout."""

    folder: Path
    work: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def pip(self, *arguments: str | Path) -> None:
        _checked(self.python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments, cwd=self.work)

    def script(self, code: str) -> str:
        return _checked(self.python, "-c", code, cwd=self.work)

    def __call__(self, *arguments: str, plugins: str = "") -> Answer:
        """Runs the console script."""
        variables = {"ENERGYBENCH_PLUGINS": plugins, "PYTHONPATH": str(ENGINE)} if plugins else {}
        done = subprocess.run(
            [self.folder / "bin" / "energybench", *arguments],
            cwd=self.work,
            env=_environment(COLUMNS="160", **variables),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in PUBLISHED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=LEFTOVERS)
        else:
            shutil.copy(ROOT / name, source / name)
    _checked(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def empty(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with the wheel and what it requires, by the lock but for numpy, which may be the newest."""
    installed = Installed(tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("elsewhere"))
    venv.create(installed.folder, with_pip=True)
    lock = installed.work / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lock.write_text("\n".join(line for line in lines if not line.startswith("numpy==")), encoding="utf-8")
    (wheel,) = built.glob("*.whl")
    installed.pip("install", "-c", lock, wheel)
    installed.pip("install", "--no-deps", shutil.copytree(EXAMPLE, built / "example", ignore=LEFTOVERS))
    return installed


@pytest.fixture(scope="module", params=["numpy 2", "numpy 1.26"])
def core(empty: Installed, request: pytest.FixtureRequest) -> Installed:
    """The environment as it is resolved, and again with the older numpy."""
    if request.param == "numpy 1.26":
        empty.pip("install", NUMPY_1)
    found = empty.script("import numpy; print(numpy.__version__)")
    assert found.startswith(request.param.split()[1])
    return empty


@pytest.fixture
def watts(tmp_path: Path) -> Iterator[Path]:
    """A file of watts that is written again and again, as a daemon would."""
    path, stop = tmp_path / "watts", threading.Event()

    def write() -> None:
        while not stop.wait(0.1):
            whole = path.with_suffix(".new")
            whole.write_text("42.0\n")
            whole.replace(path)

    path.write_text("42.0\n")
    thread = threading.Thread(target=write)
    thread.start()
    yield path
    stop.set()
    thread.join()


def test_the_wheel_holds_every_module_and_every_yaml(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == _published()
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "conf/config.yaml"} <= names


def _published() -> set[str]:
    """What the wheel should hold, from the checkout: a package or a YAML that setup.cfg forgets is missed here."""
    roots = {
        "energybench": "energybench",
        "conf": "energybench/conf",
        "plugins/energybench_plugins": "energybench_plugins",
        "plugins/hydra_plugins": "hydra_plugins",
    }
    return {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for folder, inside in roots.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".typed", ".c", ".html", ".css", ".js")
    }


def test_nothing_but_the_core_is_installed(core: Installed) -> None:
    core.pip("check")
    probe = f"from importlib.util import find_spec; print([name for name in {ABSENT} if find_spec(name)])"
    assert core.script(probe).strip() == "[]"
    where = Path(core.script("import energybench; print(energybench.__file__)").strip())
    assert where.is_relative_to(core.folder)


def test_the_command_says_its_version(core: Installed) -> None:
    said = core("--version")
    assert (said.code, said.out.split()) == (0, ["energybench", metadata.version("energybench")])
    assert _checked(core.python, "-m", "energybench", "--version", cwd=core.work) == said.out


def test_every_configuration_file_is_found(core: Installed) -> None:
    """Hydra lists each choice of each group, and composes one that brings its own data set."""
    lines = (line.partition(": ") for line in core("--help").out.splitlines())
    listed = {group: choices.split(", ") for group, _, choices in lines}
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert path.stem in listed[path.parent.name]
    assert "mlp" in listed["model"]
    composed = core("--cfg", "job", "model=resnetim", "gpu=cpu")
    assert (composed.code, composed.err) == (0, "")
    assert "name: resnetim" in composed.out
    assert "name: synthetic" in composed.out


def test_plugins_names_owners(core: Installed) -> None:
    listed = core("plugins")
    owners = {tuple(line.split()[:2]): line.split(maxsplit=2)[2] for line in listed.out.splitlines()}
    assert (listed.code, listed.err) == (0, "")
    assert owners["model", "resnetim"] == f"resnet (energybench {metadata.version('energybench')})"
    assert owners["model", "mlp"] == "mlp (energybench-example 0.1.0)"
    assert owners["meter", "wattfile"] == "wattfile (energybench-example 0.1.0)"


def test_describe_shows_networks_of_ours_and_of_others(core: Installed) -> None:
    described = core("describe", "--json", "model=resnetim")
    assert (described.code, described.err) == (0, "")
    assert json.loads(described.out)["layer_count"] == 94
    other = core("describe", "--json", "model=mlp", "model.units=32")
    assert json.loads(other.out)["parameters"] == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10


def test_doctor_names_what_is_missing_and_how_to_get_it(core: Installed) -> None:
    found = core("doctor")
    words = " ".join(found.out.split())
    assert found.code == 1, "without an engine nothing can be trained"
    assert "energybench[gluon]" in words
    assert "energybench[mlflow]" in words
    assert "wattfile" in words
    assert "Traceback" not in found.out + found.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["model=resnetin"], ["'resnetin'", "resnetim", "mlp"]),
        (["model=mlp", "model.unit=3"], ["'model.unit'", "model.units"]),
        (["model=mlp", "model.units=many"], ["model.units", "many"]),
        (["model=mlp", "model.units=0", "gpu=cpu", "engine=numpy"], ["model.units=0"]),
        (["meter=wattfile", "engine=numpy", "gpu=cpu", "tracking=none"], ["/run/watts", "meter.path"]),
        (["gpu=cpu", "tracking=none"], ["no engine", "energybench[gluon]"]),
        (["engine=numpy", "gpu=cpu", "meter=tdp", "model=mlp"], ["tracking", "energybench[mlflow]"]),
        (["run"], ["'run'", "describe"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said_in_one_line(core: Installed, command: list[str], words: list[str]) -> None:
    said = core(*command, plugins="numpy_engine")
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert [word for word in words if word not in said.err] == []


def test_a_third_party_s_network_and_meter_are_configured_by_name(core: Installed) -> None:
    composed = core("--cfg", "job", "model=mlp", "meter=wattfile", "model.units=32")
    assert (composed.code, composed.err) == (0, "")
    for line in ("  name: mlp", "  units: 32", "  name: digits", "  name: wattfile", "  path: /run/watts"):
        assert line in composed.out.splitlines()


def test_a_third_party_s_network_trains_while_its_meter_is_read(core: Installed, watts: Path) -> None:
    run = core.work / f"run-{watts.parent.name}"
    network = ("model=mlp", "model.units=32", "training.lr=0.1", "budget.epochs=5")
    meter = ("meter=wattfile", f"meter.path={watts}", "meter.period_s=0.01")
    place = ("engine=numpy", "gpu=cpu", "tracking=none", f"hydra.run.dir={run}")
    ended = core(*network, *meter, *place, plugins="numpy_engine")
    assert ended.code == 0, ended.out + ended.err
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["failure"]) == ("finished", None)
    assert result["tags"]["meter"] == "wattfile"
    assert result["tags"]["engine"] == "numpy"
    assert result["tags"]["energy_source"] == "estimated"
    assert result["metrics"]["power_mean_w"] == pytest.approx(42.0)
    assert result["metrics"]["energy_j"] == pytest.approx(42.0 * result["metrics"]["time_s"])
    assert result["metrics"]["accuracy_top1"] > 0.8
    assert str(watts) in json.dumps(result["provenance"])
