"""Any command line and any YAML file is a valid experiment or one line; no file of ours names code or leads astray."""

from __future__ import annotations

import json
import string
from pathlib import Path

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given
from junk import VALUES, examples

import energybench.conf
from energybench import cells
from energybench.config import SECTIONS, TOP_LEVEL, Experiment
from energybench.errors import ConfigError, EnergybenchError
from energybench.registry import KINDS, Registry
from energybench.tracking.store import artifact_location

CONF = Path(energybench.conf.__file__).parent
REGISTRY = Registry()

KEYS = sorted(
    {"gpu", "experiment", "training", "hydra.run.dir", "hydra.job.name", "hydra/sweeper", "nope", "model.nope", "a.b.c"}
    | {f"{name}.{key}" for name, schema in SECTIONS.items() for key in schema.__dataclass_fields__}
    | {f"{e.kind}.{key}" for e in REGISTRY.entries() if e.kind in KINDS for key in e.schema.__dataclass_fields__}
    | set(TOP_LEVEL)
)
CHOICES = sorted({path.stem for path in CONF.rglob("*.yaml")})
ODD = [
    *("", "''", "null", "???", "${batch}", "${nope}", "${oc.env:HOME}", "${oc.env:NOPE}", "${hydra:runtime.cwd}"),
    *("1,2", "range(1,3)", "range(0,1,0)", "glob(*)", "choice(a,b)", "interval(0,1)", "sort(3,1)", "[1,2]", "{a:1}"),
    *("int('x')", "\\", "\\,", "'", '"', "a=b", "@pkg", "../../x", "/etc/passwd", "%s%n", "\x00", "☃"),
]
TEXTS = st.one_of(
    st.sampled_from(CHOICES),
    st.integers().map(str),
    st.floats().map(str),
    st.text(alphabet=string.printable, max_size=12),
    st.text(max_size=8),
    VALUES.map(lambda value: json.dumps(value, default=str)),
    st.sampled_from(ODD),
)
OVERRIDES = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), TEXTS),
    st.builds("~{}".format, st.sampled_from(KEYS)),
    st.text(alphabet=string.printable, max_size=12),
    st.sampled_from(["-m", "--config-name=x", "--config-dir=/nope", "--config-path=x", "--package=x", "-x", "--"]),
)


def accept_or_refuse(*words):
    """What the command line composes to survives JSON, or one line says why not."""
    try:
        command = cells.read(cells.arguments(list(words)), REGISTRY)
    except EnergybenchError as error:
        assert str(error).strip()
        assert "\n" not in str(error).strip(), words
        return
    except SystemExit as end:  # of argparse, for --version
        assert end.code == 0
        return
    for cell in command.cells:
        text = json.dumps(cell.experiment.to_json(), allow_nan=False)
        assert Experiment.from_json(json.loads(text)) == cell.experiment


@examples(40, 2_000)
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
def test_any_command_line(words):
    accept_or_refuse(*words)


NODES = st.dictionaries(
    st.sampled_from(["name", "channels", "input_size", "_target_", "defaults"]) | st.text(max_size=5),
    VALUES,
    max_size=4,
)
FILES = st.one_of(
    st.text(max_size=60).map(lambda text: text.encode(errors="replace")),
    st.binary(max_size=40),
    NODES.map(lambda node: yaml.safe_dump(node).encode()),
    st.sampled_from(
        [
            b"name: lenet\n_target_: os.system\n",
            b"name: !!python/object/apply:os.system [id]\n",
            b"&a [*a]",
            b"defaults:\n  - /etc\n",
            b"name: lenet\nname: lenet\n",
            b"defaults:\n  - mine\n",
            b"? [a]\n: b\n",
            b"- - - 1",
            b"%YAML 9.9\n---\n",
            b"\x00",
            b"# @package _global_\nbatch: x\n",
            b"# @package hydra\nrun: 3\n",
            b"# @package ${x}\na: 1\n",
        ]
    ),
)


@examples(20, 2_000)
@given(group=st.sampled_from(["model", "training", "meter", "experiment", "tracking"]), content=FILES)
def test_any_file(tmp_path_factory, group, content):
    folder = tmp_path_factory.mktemp("conf") / group
    folder.mkdir()
    (folder / "mine.yaml").write_bytes(content)
    accept_or_refuse("--config-dir", str(folder.parent), f"{group}=mine")


def test_no_file_of_ours_names_code_but_hydras():
    for path in CONF.rglob("*.yaml"):
        if path.relative_to(CONF).parts[0] != "hydra":
            assert "_target_" not in path.read_text(), path


@pytest.mark.parametrize("section", [*KINDS, *SECTIONS])
def test_no_section_takes_a_target(section):
    with pytest.raises(ConfigError, match="_target_"):
        cells.read(cells.arguments([f"+{section}._target_=os.system"]), REGISTRY)


@pytest.mark.parametrize("name", ["..", ".", "../..", "../../x", "/etc", "a/../..", "..%2f..", "\\..\\..", "..\x00"])
def test_the_artifacts_of_any_experiment_lie_below_the_stores_folder(tmp_path, name):
    location = artifact_location(f"sqlite:///{tmp_path}/mlflow.db", name)
    folder = Path(location.removeprefix("file://"))
    assert folder.resolve().parent == (tmp_path / "mlartifacts").resolve()
