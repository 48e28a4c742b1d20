"""From YAML and overrides to an Experiment: what is taken, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from junk import VALUES, examples
from omegaconf import OmegaConf

import energybench.conf
from energybench import cells
from energybench.config import make, make_architecture, resolve
from energybench.errors import ConfigError, EnergybenchError, PluginError
from energybench.experiment import AUTOMATIC, NUMBERS, SECTIONS, TOP_LEVEL, Experiment
from energybench.registry import KINDS, Registry

CONF = Path(energybench.conf.__file__).parent
REGISTRY = Registry()


def read(*overrides):
    return cells.read(cells.arguments(overrides), REGISTRY)


def one(*overrides):
    [cell] = read(*overrides).cells
    return cell.experiment


def group(name):
    return sorted(path.stem for path in (CONF / name).glob("*.yaml"))


def yaml(section, name):
    """A file's own keys."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / section / f"{name}.yaml"))
    return {key: value for key, value in node.items() if key != "defaults"}


FILES = [(folder.name, name) for folder in sorted(CONF.iterdir()) if folder.is_dir() for name in group(folder.name)]
PARTS = [(kind, name) for kind, name in FILES if kind in KINDS and name != "auto"]
CHOICES = [(kind, name) for kind, name in FILES if kind != "experiment"]


LAUNCHERS = {
    **{"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_NODELIST": "gpu[03-04]", "SLURM_JOB_ID": "42"},
    **{"GROUP_WORLD_SIZE": "2", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
    **{"MASTER_ADDR": "node0", "MASTER_PORT": "29500"},
}


@pytest.mark.parametrize(("kind", "name"), CHOICES)
def test_every_file_composes_and_resolves(kind, name, monkeypatch):
    for variable, value in (LAUNCHERS if kind == "nodes" else {}).items():
        monkeypatch.setenv(variable, value)
    experiment = one(f"{kind}={name}")
    chosen = getattr(experiment, kind)
    if kind in KINDS:
        wanted = yaml(kind, name)
        assert chosen.name == wanted.pop("name")
        assert chosen.options == wanted
    elif kind == "nodes" and name != "one":
        assert (chosen.count, chosen.rank) == (2, 1)
        assert chosen.rendezvous == {"slurm": "gpu03:20042", "torchrun": "node0:29501"}[name]
    else:
        assert dataclasses.asdict(chosen) == yaml(kind, name)
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment


@pytest.mark.parametrize("name", group("model"))
def test_every_model_brings_data_and_a_recipe_that_fit_it(name):
    experiment = one(f"model={name}")
    info = make(REGISTRY, "dataset", experiment.dataset).info()
    architecture = make_architecture(REGISTRY, experiment.model, info.classes)
    assert architecture.classes == info.classes
    assert info.train_images >= experiment.batch
    text = (CONF / "model" / f"{name}.yaml").read_text()
    [recipe] = [recipe for recipe in group("training") if f"training: {recipe}\n" in text]
    assert dataclasses.asdict(experiment.training) == yaml("training", recipe)


@pytest.mark.parametrize("name", group("model"))
def test_what_the_user_chooses_beats_what_a_model_brings(name):
    experiment = one(f"model={name}", "dataset=synthetic", "training=lenet", "dataset.classes=7")
    assert (experiment.dataset.name, experiment.dataset.options["classes"]) == ("synthetic", 7)
    assert experiment.training.lr == yaml("training", "lenet")["lr"]


@pytest.mark.parametrize("name", group("experiment"))
def test_every_experiment_composes_and_resolves(name):
    command = read(f"experiment={name}")
    assert command.cells
    assert command.multirun == (len(command.cells) > 1)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_parts_file_has_every_field_with_its_default(kind, name):
    node = yaml(kind, name)
    part = node.pop("name")
    defaults = dataclasses.asdict(REGISTRY.get(kind, part).schema())
    assert node.keys() == defaults.keys()
    if name == part:  # a second file of a part is there to differ
        assert node == defaults


@pytest.mark.parametrize("kind", sorted(AUTOMATIC))
def test_an_automatic_choice_has_every_field_with_its_default(kind):
    node = yaml(kind, "auto")
    assert node.pop("name") == "auto"
    assert node == dataclasses.asdict(AUTOMATIC[kind]())


@pytest.mark.parametrize("name", group("training"))
def test_a_recipe_has_every_field(name):
    assert yaml("training", name).keys() == {field.name for field in dataclasses.fields(SECTIONS["training"])}


@pytest.mark.parametrize("kind", ["gpu", "nodes", "tracking"])
def test_the_files_of_our_sections_have_every_field(kind):
    for name in group(kind):
        assert yaml(kind, name).keys() == {field.name for field in dataclasses.fields(SECTIONS[kind])}


def test_the_main_file_has_every_key_with_its_default():
    node = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert {*node, *groups} - {"defaults", "hydra", "experiment"} == set(TOP_LEVEL)
    for name in SECTIONS.keys() & node.keys():
        assert node[name] == dataclasses.asdict(SECTIONS[name]())
    schema = resolve(OmegaConf.create({kind: {"name": "auto"} for kind in AUTOMATIC} | DATA), REGISTRY)
    assert {key: node[key] for key in NUMBERS} == {key: getattr(schema, key) for key in NUMBERS}


DATA = {"model": {"name": "lenet"}, "dataset": {"name": "digits"}}
VALID = {**DATA, "engine": {"name": "auto"}, "meter": {"name": "auto"}}


@pytest.fixture(scope="module")
def defaults():
    """The composed defaults as plain values; Hydra composes slowly."""
    experiment = one()
    plain = experiment.to_json()
    return plain | {kind: {"name": plain[kind]["name"], **plain[kind]["options"]} for kind in KINDS}


def resolved(defaults, *overrides):
    """What these values make of the defaults, without Hydra."""
    return resolve(OmegaConf.merge(defaults, OmegaConf.from_dotlist(list(overrides))), REGISTRY)


def refusal(function, *arguments):
    """The message of the error, which is one line."""
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def wrong(*overrides):
    return refusal(read, *overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        # a typo: the key, the one that was meant, the ones there are
        ("batchsize=3", ["'batchsize'", "batch"]),
        ("bacth=3", ["unknown key 'bacth'", "did you mean 'batch'?", "seed"]),
        ("training.rl=1", ["'training.rl'", "training.lr"]),
        ("training.lrr=1", ["'training.lrr'", "did you mean 'training.lr'?", "training.momentum"]),
        ("model.chanels=1", ["'model.chanels'", "did you mean 'model.channels'?", "model.input_size"]),
        ("measure.basline_s=1", ["did you mean 'measure.baseline_s'?", "measure.warmup_steps"]),
        ("+model.typo=1", ["'model.typo'", "model 'lenet' takes: model.channels, model.input_size"]),
        ("+training.typo=1", ["'training.typo'", "training.lr"]),
        ("+typo=1", ["'typo'", "batch"]),
        ("+a.b=c", ["'a'", "batch"]),
        ("hydra.runn.dir=x", ["'hydra.runn.dir'", "--cfg hydra"]),
        # what is an entry of a mapping
        ("meter.calibration.GPU-1.gain=2", ["+meter.calibration.GPU-1.gain=..."]),
        # names that are not there
        ("model=alexnet", ["model 'alexnet'", "caffenet, cnn2d"]),
        ("model.name=alexnet", ["model 'alexnet'", "caffenet, cnn2d"]),
        ("dataset=mnist", ["dataset 'mnist'", "digits"]),
        ("gpu=voltaa", ["gpu 'voltaa'", "volta"]),
        ("meter=watt", ["meter 'watt'", "rapl"]),
        ("engine=tf", ["engine 'tf'", "gluon"]),
        ("experiment=nope", ["experiment 'nope'", "demo"]),
        # interpolations
        ("model.channels=${nope}", ["nope"]),
        ("batch=${seed", ["batch=${seed"]),
        ("+training.lr2=${training.lr}", ["training.lr2"]),
        ("batch=${oc.env:ENERGYBENCH_NOT_SET}", ["ENERGYBENCH_NOT_SET"]),
        ("hydra.run.dir=${nope}", ["nope"]),
        # what is no override, and a sweep without -m
        ("batch=1,2", ["batch", "-m"]),
        ("batch", ["'batch' is no override; write key=value"]),
        ("model=lenet,", ["'model=lenet,' is no override; write model=lenet"]),
        ("lenet", ["'lenet' is no override; write model=lenet"]),
        ("model=null", ["null"]),
        ("training=null", ["null"]),
        ("=3", ["=3"]),
    ],
)
def test_it_is_refused_in_one_line(override, words):
    message = wrong(override)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("meter.tdp_w=5", "meter 'auto' takes: meter.order, meter.calibration, meter.also; add meter=tdp"),
        ("+meter.tdp_w=5", "meter 'auto' takes: meter.order, meter.calibration, meter.also; add meter=tdp"),
        ("meter=tdp meter.root=5", "meter 'tdp' takes: meter.tdp_w, meter.calibration, meter.also; add meter=rapl"),
        ("model.foo=3", "model 'lenet' takes: model.channels, model.input_size"),
        ("batch=8 model.foo=3 bacth=9 model=resnet", "model 'resnet' takes: model.channels, model.input_size"),
        ("model=resnet,caffenet model.foo=3 -m", "model 'resnet' takes: model.channels, model.input_size"),
        ("engine.compile_options.a=1", "engine 'auto' takes: engine.order; add engine=torch"),
    ],
)
def test_the_options_of_the_chosen_part_are_told_and_where_others_belong(words, message):
    key = next(word for word in words.split() if "." in word).partition("=")[0].lstrip("+")
    assert wrong(*words.split()) == f"unknown key {key!r}; {message}"


def test_entries_of_a_mapping_are_new_keys():
    assert "as in +engine.compile_options.a=..." in wrong("engine=torch", "engine.compile_options.a=1")


def test_an_option_of_all_parts_that_a_sweep_varies_over_is_taken():
    cells = read("model=resnet,cnn2d", "dataset=walkers,tum_gaid", "dataset.mirror=false", "-m").cells
    assert [cell.experiment.dataset.options["mirror"] for cell in cells] == [False] * 4


@pytest.mark.parametrize(
    ("value", "words"),
    [
        # of the wrong type
        ("batch=abc", ["batch=abc: give a whole number"]),
        ("batch=1.5", ["batch=1.5: give a whole number"]),
        ("batch=null", ["batch=null: give a whole number"]),
        ("batch=true", ["batch", "True"]),
        ("batch=", ["batch="]),
        ("batch=[1,2]", ["batch=[1, 2]: give one whole number, or sweep with batch=1,2 -m"]),
        ("seed=0..3", ["seed=0..3: give a whole number"]),
        ("budget.epochs=1.5", ["budget.epochs=1.5: give a whole number, or null"]),
        ("training.lr=fast", ["training.lr=fast: give a number"]),
        ("training.lr=null", ["training.lr=null: give a number"]),
        ("training.milestones=3", ["training.milestones=3: give a list"]),
        ("budget=3", ["budget=3", "budget.epochs"]),
        ("model.channels=[1]", ["model.channels"]),
        ("model.channels={a:1}", ["model.channels"]),
        ("measure.validate=perhaps", ["measure.validate=perhaps: give true or false"]),
        ("measure.validate_every=0", ["measure.validate_every=0: give a whole number above 0"]),
        ("tracking.uri=[1]", ["tracking.uri"]),
        # out of range
        ("batch=0", ["batch=0", "above 0"]),
        ("batch=-64", ["batch=-64"]),
        ("seed=-1", ["seed=-1"]),
        ("seed=4294967296", ["seed=4294967296"]),
        ("training.lr=0", ["training.lr=0.0"]),
        ("training.lr=nan", ["training.lr=nan"]),
        ("training.lr=inf", ["training.lr=inf", "finite"]),
        ("training.momentum=1", ["training.momentum=1.0"]),
        ("training.weight_decay=-1", ["training.weight_decay=-1.0"]),
        ("training.optimizer=sdg", ["training.optimizer=sdg", "sgd", "adam"]),
        ("measure.baseline_s=-1", ["measure.baseline_s=-1.0"]),
        ("measure.baseline_s=inf", ["measure.baseline_s=inf"]),
        ("measure.warmup_steps=-1", ["measure.warmup_steps=-1"]),
        ("measure.watchdog_s=0", ["measure.watchdog_s=0.0"]),
        ("gpu.count=0", ["gpu.count=0", "all"]),
        ("gpu.count=-1", ["gpu.count=-1"]),
        ("gpu.count=1.5", ["gpu.count=1.5"]),
        ("gpu.count=true", ["gpu.count=True"]),
        ("gpu.count=some", ["gpu.count=some"]),
        ("gpu.count=[0,1]", ["gpu.count=[0, 1]"]),
        ("sweep.name=../../x", ["sweep.name=../../x: give a name without /", "hydra.sweep.dir"]),
        ("sweep.name=..", ["sweep.name=..: give a name"]),
        ("dataset.validation_images=5000", ["dataset.validation_images=5000", "1796"]),
        ("tracking.name=wandb", ["tracking.name=wandb", "mlflow or none"]),
        ("tracking.experiment=''", ["tracking.experiment="]),
    ],
)
def test_a_value_is_refused_in_one_line(defaults, value, words):
    message = refusal(resolved, defaults, value)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("batch=128", 128),
        ("batch='128'", 128),
        ("seed=2147483647", 2147483647),
        ("training.lr=1e-3", 0.001),
        ("training.lr=1", 1.0),
        ("measure.validate=false", False),
        ("gpu.count=all", "all"),
        ("budget.epochs=null", None),
        ("tracking.uri=sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_a_value_is_taken(defaults, override, value):
    found = resolved(defaults, override, "budget.steps=9")
    for name in override.partition("=")[0].split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))


def test_an_interpolation_is_resolved():
    assert one("batch=${seed}", "seed=32").batch == 32


def test_gpu_none_is_the_cpu():
    assert one("gpu=none").gpu == one("gpu=cpu").gpu


class TestBudget:
    def test_it_needs_a_limit(self, defaults):
        message = refusal(resolved, defaults, "budget.epochs=null")
        assert "budget.epochs, budget.steps, budget.seconds" in message

    @pytest.mark.parametrize("limit", ["epochs", "steps", "seconds"])
    def test_any_limit_will_do(self, defaults, limit):
        experiment = resolved(defaults, "budget.epochs=null", f"budget.{limit}=3")
        assert getattr(experiment.budget, limit) == 3

    @pytest.mark.parametrize("limit", ["epochs", "steps", "seconds"])
    @pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "true"])
    def test_a_limit_is_a_number_above_0(self, defaults, limit, value):
        assert f"budget.{limit}" in refusal(resolved, defaults, f"budget.{limit}={value}")

    def test_it_is_finite(self, defaults):
        assert "budget.seconds=inf" in refusal(resolved, defaults, "budget.seconds=inf")


class TestSweep:
    def test_its_cells_are_hydras(self):
        command = read("-m", "batch=16,32", "seed=range(0,3)")
        assert [(cell.experiment.batch, cell.experiment.seed) for cell in command.cells] == [
            (batch, seed) for batch in (16, 32) for seed in (0, 1, 2)
        ]
        assert command.cells[0].overrides == ("batch=16", "seed=0")

    def test_a_cell_that_is_wrong_is_named(self):
        assert wrong("-m", "batch=16,0").endswith("[in batch=0]")

    def test_a_command_line_without_a_choice_is_one_cell(self):
        assert len(read("-m", "batch=16").cells) == 1

    def test_an_experiments_sweep_may_be_narrowed(self):
        batches = [cell.experiment.batch for cell in read("experiment=demo", "batch=16,32").cells]
        assert set(batches) == {16, 32}


class TestPluginFiles:
    """A file with a typo is refused as an override is."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name: lenet\nchanels: 3\n", ["'model.chanels'", "did you mean 'model.channels'?"]),
            ("name: lenet\nchannels: many\n", ["model.channels", "many"]),
            ("channels: 3\n", ["model", "choose one of"]),
            ("name: alexnet\n", ["model 'alexnet' is not registered"]),
            ("name: ???\n", ["name"]),
            ("name: lenet\nchannels: ${batch_size}\n", ["batch_size"]),
            ("- lenet\n", ["model", "lenet"]),
            ("name: [\n", ["mine.yaml"]),
        ],
    )
    def test_it_is_refused_in_one_line(self, tmp_path, text, words):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "mine.yaml").write_text(text)
        message = wrong("--config-dir", str(tmp_path), "model=mine")
        for word in words:
            assert word in message

    def test_one_without_a_typo_is_taken(self, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "mine.yaml").write_text("name: lenet\nchannels: 3\n")
        assert one("--config-dir", str(tmp_path), "model=mine").model.options["channels"] == 3

    def test_a_folder_that_is_not_there(self, tmp_path):
        assert "nowhere" in wrong("--config-dir", str(tmp_path / "nowhere"), "batch=3")


FIELDS = {name: [field.name for field in dataclasses.fields(schema)] for name, schema in SECTIONS.items()}
CHANGES = st.one_of(
    *(st.tuples(st.just((section,)), st.sampled_from(keys), VALUES) for section, keys in FIELDS.items()),
    *(
        st.tuples(st.just((kind,)), st.sampled_from(["name", "order", "channels", "input_size", "classes"]), VALUES)
        for kind in KINDS
    ),
    st.tuples(st.just(()), st.sampled_from(TOP_LEVEL), VALUES),
    st.tuples(st.just(()), st.text(min_size=1, max_size=5), VALUES),
)


@examples(200, 100_000)
@given(st.lists(CHANGES, min_size=1, max_size=3))
@example([((), "batch", 128)])
@example([(("gpu",), "count", 10**30)])
@example([(("budget",), "seconds", math.inf)])
@example([(("engine",), "order", [{0: None}])])
@example([(("tracking",), "name", "\n")])
@example([(("meter",), "order", {"gpu": [{0: None}]})])
def test_resolve_gives_an_experiment_that_survives_json_or_one_line(changes):
    plain = {**{key: dict(value) for key, value in VALID.items()}, **{section: {} for section in SECTIONS}}
    for path, key, value in changes:
        node = plain
        for step in path:
            node = node[step] if isinstance(node.get(step), dict) else node
        node[key] = value
    try:
        config = OmegaConf.create(plain)
    except Exception:  # not even a configuration
        return
    try:
        experiment = resolve(config, REGISTRY)
    except EnergybenchError as error:
        assert isinstance(error, ConfigError | PluginError)
        assert "\n" not in str(error).strip()
        return
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json(), allow_nan=False))) == experiment
