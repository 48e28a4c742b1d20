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
from energybench.errors import ConfigError, EnergybenchError
from energybench.experiment import SECTIONS, TOP_LEVEL, Experiment
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


def _times(first, then, levels=9):
    """Lines of which each stands for several of the one before."""
    lines = [f"a{level}: &a{level} {then(f'*a{level - 1}')}" for level in range(1, levels + 1)]
    return "\n".join([f"a0: &a0 {first}", *lines]).encode()


BOMBS = {
    "lists of lists": (_times("[1]", lambda last: f"[{','.join([last] * 9)}]"), "10,000 values"),
    "maps of maps": (
        _times("{x: 1}", lambda last: f"{{{','.join(f'k{n}: {last}' for n in range(9))}}}"),
        "10,000 values",
    ),
    "merged maps": (_times("{x: 1}", lambda last: f"\n  <<: [{','.join([last] * 9)}]"), "10,000 values"),
    "itself": (b"a: &a [*a]\nname: lenet\n", "stands within"),
    "deep lists": (b"a: " + b"[" * 20_000 + b"]" * 20_000, "40 levels"),
    "deep maps": (b"\n".join(b" " * level + b"a:" for level in range(600)), "40 levels"),
    "a long number": (b"name: lenet\nchannels: 0x" + b"f" * 100_000, "100,002 characters"),
    "a number of base 60": (b"name: lenet\nchannels: 1" + b":59" * 50_000, "150,001 characters"),
    "a larger number than counts": (b"name: lenet\nchannels: " + b"9" * 4000, "13,288 bits"),
    "a long file": (b"#" * 10_000_000, "10,000,000 bytes"),
    "no text": (b"name: l\xe9net\n", "UTF-8"),
    "two bytes a character": ("name: lenet\n".encode("utf-16"), "UTF-8"),
    "a NUL": (b"name: le\x00net\n", "special characters"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_would_fill_the_memory(tmp_path, bomb):
    content, said = BOMBS[bomb]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refused:
        cells.read(cells.arguments(["--config-dir", str(tmp_path), "model=mine"]), REGISTRY)
    assert "\n" not in str(refused.value)


def test_interpolations_that_would_never_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "LONGEST_S", 1.0)
    lines = [f"a{level}: ${{.a{level + 1}}}${{.a{level + 1}}}" for level in range(40)]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("\n".join([*lines, "a40: x", "name: lenet"]))
    with pytest.raises(ConfigError, match="took more than 1 s"):
        cells.read(cells.arguments(["--config-dir", str(tmp_path), "model=mine"]), REGISTRY)


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("+model.x=" + "[" * 3000 + "]" * 3000,): "nested too deeply",
        ("batch=" + "9" * 5000,): "is no override",
        ("batch=" + "9" * 400,): "1,329 bits",
        ("gpu=cpu", "gpu.count=4000000000"): "from 1 to 1024",
        ("-m", "seed=range(0,1000000000)"): "100,000 cells",
        ("-m", "seed=shuffle(range(0,1000000000))"): "100,000 cells",
        ("-m", "training.lr=range(0,1,1e-30)"): "100,000 cells",
        ("-m", "seed=range(0,3000)", "batch=range(1,3000)"): "100,000 cells",
    }.items(),
)
def test_a_command_line_that_asks_for_too_much(words, said):
    with pytest.raises(ConfigError, match=said) as refused:
        cells.read(cells.arguments(list(words)), REGISTRY)
    assert len(str(refused.value)) < 1000


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
