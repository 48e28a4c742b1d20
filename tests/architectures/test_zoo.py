"""Networks of a model zoo: found by name, tested by one step, their FLOPs counted where they are built."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from energybench.architecture import Network, ZooNetwork
from energybench.cli import main
from energybench.config import make, resolve
from energybench.devices import cpu_device
from energybench.errors import ConfigError, PluginError
from energybench.registry import Registry
from energybench.run.engine import Task
from energybench.run.preflight import Machine, prepare
from energybench.run.result import Result
from energybench_plugins.architectures.caffenet import CaffenetOptions, caffenet
from energybench_plugins.architectures.cnn2d import Cnn2dOptions, cnn2d
from energybench_plugins.architectures.gluoncv_zoo import ZooOptions, default_size, names, zoo
from energybench_plugins.architectures.resnet import ResnetImOptions, ResnetOptions, resnet, resnetim

CLASSES = 7
NEEDED = [name for name in ("mxnet", "gluoncv") if importlib.util.find_spec(name) is None]


def gluon(test):
    """A test that builds networks."""
    missing = pytest.mark.skipif(bool(NEEDED), reason=f"needs {NEEDED}: pip install 'energybench[gluon]'")
    return pytest.mark.gluon(missing(test))


def built_here(network: ZooNetwork) -> str:
    return f"built {network.name} for {network.classes}"


def small(name: str, size: int | None = None, classes: int = CLASSES) -> ZooNetwork:
    return zoo(ZooOptions(network=name, input_size=size), classes)


def experiment(**sections):
    config = {
        "model": {"name": "zoo", "network": "cifar_resnet20_v1"},
        "dataset": {"name": "synthetic", "classes": CLASSES, "images": 8},
        "engine": {"name": "gluon"},
        "meter": {"name": "tdp"},
        "gpu": {"name": "cpu"},
        "batch": 4,
        "tracking": {"name": "none"},
    }
    return resolve(OmegaConf.merge(config, sections), Registry())


def trainer_of(network: Network):
    chosen = experiment()
    return make(Registry(), "engine", chosen.engine).trainer(Task(chosen, network, (cpu_device(),)))


def step_of(network: Network):
    """The trainer after one optimiser step on two random samples, and whether its weights moved."""
    import numpy as np

    from energybench.dataset import Batch

    trainer = trainer_of(network)
    before = trainer.state()
    images = np.random.default_rng(0).normal(size=(2, *network.input_shape)).astype(np.float32)
    [shards] = trainer.feed([Batch(images, np.arange(2))])
    trainer.begin_epoch(1, 1e-3)
    trainer.step(shards)
    loss = trainer.take_loss()
    after = trainer.state()
    moved = any((after[name] != values).any() for name, values in before.items() if name.startswith("parameters/"))
    return trainer, loss, moved


# What needs no framework.


def test_a_builder_is_a_function_or_names_one():
    network = ZooNetwork("net", (3, 8, 8), 4, {"one": built_here, "two": f"{__name__}:built_here"})
    assert network.build("one") == "built net for 4"
    assert network.build("two") == "built net for 4"


def test_an_engine_without_a_builder_is_refused_and_those_with_one_are_named():
    network = ZooNetwork("net", (3, 8, 8), 4, {"two": built_here, "one": built_here})
    assert network.refuses("one") is None
    assert network.refuses("torch") == "it cannot build 'net'; use engine=one or engine=two"
    with pytest.raises(ConfigError, match="engine=torch: it cannot build 'net'"):
        network.build("torch")


def test_a_builder_that_is_not_there_is_its_plugin_s_fault():
    network = ZooNetwork("net", (3, 8, 8), 4, {"one": "json:no_such_function"})
    with pytest.raises(PluginError, match=r"'json:no_such_function'.*'json' has no function"):
        network.build("one")


def test_what_is_not_known_beforehand_is_absent():
    network = ZooNetwork("net", (3, 8, 8), 4, {"one": built_here})
    assert network.training_flops is None
    assert network.training_bytes(64, 1) is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet50_v1", 224), ("cifar_resnet20_v1", 32), ("inceptionv3", 299), ("xception", 299), ("googlenet", 224)],
)
def test_the_input_size_follows_from_the_name(name, size):
    assert default_size(name) == size


# What needs GluonCV's source, but imports nothing of it.


@gluon
def test_size_and_channels_are_as_asked_for():
    assert zoo(ZooOptions("cifar_resnet20_v1"), 10).input_shape == (3, 32, 32)
    assert zoo(ZooOptions("resnet50_v1", channels=1, input_size=96), 10).input_shape == (1, 96, 96)
    with pytest.raises(ConfigError, match=r"model\.input_size=0"):
        zoo(ZooOptions("resnet50_v1", input_size=0), 10)


@gluon
def test_names_are_those_of_gluoncv_itself():
    from energybench_plugins.engines.gluoncv_networks import _get_model

    _get_model()
    assert list(names()) == sorted(sys.modules["gluoncv.model_zoo"].get_model_list())


@gluon
def test_an_unknown_name_is_a_wrong_configuration_and_lists_the_nearest(capsys):
    assert main(["model=zoo", "model.network=resnet50v1", "gpu=cpu", "tracking=none"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    said = f"model.network=resnet50v1: GluonCV has no such network; the nearest of its {len(names())} are resnet50_v1, "
    assert said in line
    assert line.count(",") == 4


@gluon
def test_naming_a_network_imports_no_framework():
    program = (
        "import sys; from energybench.cli import main; code = main(['describe', '--json', 'model=zoo']);"
        "sys.exit(code or bool({'mxnet', 'gluoncv', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    known = {"name": "resnet50_v1", "input_shape": [3, 224, 224], "classes": 1000}
    assert json.loads(done.stdout) == known


@gluon
def test_preflight_refuses_an_engine_that_has_no_builder(fakes):
    with pytest.raises(ConfigError, match=r"engine=standin: standin: it cannot build .*; use engine=gluon"):
        prepare(experiment(engine={"name": "standin"}), Machine(Registry()))


@gluon
def test_preflight_passes_by_an_engine_that_has_no_builder(fakes):
    chosen = experiment(engine={"name": "auto", "order": ["standin", "gluon"]})
    plan = prepare(chosen, Machine(Registry()))
    assert plan.experiment.engine.name == "gluon"
    assert plan.memory_bytes is None


# What is counted.

STUDY = [
    caffenet(CaffenetOptions(), 1000),
    resnetim(ResnetImOptions(), 1000),
    resnet(ResnetOptions(), 155),
    cnn2d(Cnn2dOptions(), 155),
]


@gluon
@pytest.mark.parametrize("network", STUDY, ids=lambda network: network.name)
def test_the_count_in_the_built_network_is_that_of_the_description(network):
    from energybench_plugins.engines.gluon_blocks import build
    from energybench_plugins.engines.gluon_flops import training_flops

    assert training_flops(build(network), network.input_shape) == network.training_flops


def counted(*layers, shape=(4, 9, 9)):
    from energybench_plugins.engines.gluon_flops import macs, mx

    net = mx.gluon.nn.HybridSequential()
    net.add(*layers)
    return macs(net, shape)


@gluon
def test_transposed_grouped_and_unflattened_layers_are_counted_by_hand():
    from energybench_plugins.engines.gluon_flops import mx

    nn = mx.gluon.nn
    assert counted(nn.Conv2D(6, 3, groups=2, in_channels=4)) == 6 * 7 * 7 * (2 * 3 * 3)
    assert counted(nn.Conv2DTranspose(6, 3, strides=2, in_channels=4)) == 4 * 9 * 9 * (6 * 3 * 3)
    assert counted(nn.Conv2D(5, 1, in_channels=4), nn.Conv2DTranspose(6, 2, in_channels=5)) == 9 * 9 * (20 + 5 * 6 * 4)
    assert counted(nn.Dense(3, flatten=False, in_units=9)) == 4 * 9 * 3 * 9


@gluon
def test_an_unknown_operator_or_no_graph_at_all_makes_no_count():
    from energybench_plugins.engines.gluon_flops import mx

    nn = mx.gluon.nn
    assert counted(nn.HybridLambda(lambda F, x: F.batch_dot(x, x)), shape=(9, 9)) is None
    assert counted(nn.HybridLambda(lambda F, x: x * x.shape[0])) is None


# What trains.

FAMILIES = [
    *[("cifar_resnet20_v1", 32), ("cifar_resnet20_v2", 32), ("cifar_wideresnet16_10", 16)],
    *[("cifar_resnext29_32x4d", 16), ("cifar_residualattentionnet56", 32)],
    *[("alexnet", 64), ("vgg11", 32), ("vgg11_bn", 32), ("squeezenet1.1", 224)],
    *[("resnet18_v1", 32), ("resnet18_v2", 32), ("resnet18_v1b", 32), ("resnet50_v1s", 32), ("resnet50_v1d", 32)],
    *[("se_resnet18_v1", 32), ("se_resnet18_v2", 32), ("resnext50_32x4d", 32), ("se_resnext50_32x4d", 32)],
    *[("resnest14", 64), ("hrnet_w18_small_v1_c", 64), ("dla34", 64), ("darknet53", 32)],
    *[("densenet121", 224), ("googlenet", 224), ("inceptionv3", 299), ("xception", 64)],
    *[("mobilenet0.25", 32), ("mobilenetv2_0.25", 32), ("mobilenetv3_small", 64)],
    *[("shufflenet_v1", 64), ("shufflenet_v2", 64)],
]


@gluon
@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_one_step_of_each_family(name, size):
    trainer, loss, moved = step_of(small(name, size))
    assert 0 < loss < 1e6
    assert moved
    assert trainer.training_flops() > 0


@gluon
def test_a_pruned_network_trains_the_classes_it_was_pruned_for():
    _, loss, moved = step_of(small("resnet18_v1b_0.89", 32, classes=1000))
    assert loss > 0
    assert moved


@gluon
def test_the_names_of_weights_outlive_the_process():
    first, second = (set(trainer_of(small("cifar_resnet20_v1")).state()) for _ in range(2))
    assert first == second
    assert "parameters/features.0.weight" in first


# What is refused, and why.

REFUSED = [
    ("ssd_300_vgg16_atrous_voc", 300, "gives 3 outputs"),
    ("yolo3_darknet53_voc", 64, "missing 6 required positional arguments"),
    ("center_net_resnet18_v1b_voc", 64, "gives 3 outputs"),
    ("fcn_resnet50_voc", 64, "gives 2 outputs"),
    ("simple_pose_resnet18_v1b", 64, r"gives \(2, 17, 16, 16\) for 2 images, not \(2, 7\)"),
    ("monodepth2_resnet18_kitti_stereo_640x192", 64, "fails"),
    ("siamrpn_alexnet_v2_otb15", 127, "missing 1 required positional argument"),
    ("c3d_kinetics400", 112, "Input data should be 5D"),
    ("resnet50_v1b_kinetics400", 64, "only made from trained weights"),
    ("resnet50_v1d_0.11", 64, r"Shape inconsistent, Provided = \[1000,784\]"),
    ("mobilenet1.0_int8", 64, "fails"),
    ("alexnet", 16, "fails"),
]


@gluon
@pytest.mark.parametrize(("name", "size", "reason"), REFUSED)
def test_what_does_not_train_as_a_classifier_is_refused_with_the_reason(name, size, reason):
    with pytest.raises(ConfigError, match=rf"model\.network={name}: .*({reason})") as refusal:
        trainer_of(small(name, size))
    assert len(str(refusal.value).splitlines()) == 1


# A whole run.


@gluon
def test_the_counted_flops_reach_the_result(tmp_path):
    words = ["model=zoo", "model.network=cifar_resnet20_v1", "dataset.classes=10", "dataset.images=32", "batch=16"]
    words += ["gpu=cpu", "engine=gluon", "meter=tdp", "tracking=none", "measure.baseline_s=0", "budget.epochs=1"]
    assert main([*words, f"hydra.run.dir={tmp_path}"]) == 0
    found = Result.read(tmp_path / "result.json").metrics
    macs_a_sample = 40_813_184  # of ResNet-20 on 32x32 images: He et al. 2015, section 4.2, with 10 classes
    assert found["gflops_per_s"] * found["time_s"] == pytest.approx(32 * 6 * macs_a_sample / 1e9)
    assert "memory_predicted_bytes" not in found
