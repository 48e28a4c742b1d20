"""Networks of torchvision and timm: found by name in their sources, built and trained by the engine torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

from energybench.architecture import ZooNetwork
from energybench.errors import ConfigError
from energybench_plugins.architectures import torch_zoos
from energybench_plugins.architectures.gluoncv_zoo import ZooOptions, zoo

LIBRARY = """
from torch import nn

def register_model(name=None):
    return lambda function: function
"""
NETWORKS = '''
from torchvision.models import register_model, nn

@register_model()
def tiny_net(*, weights=None, num_classes=10):
    """A network."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

@register_model(name="other_name")
@handle_legacy_interface(weights=("pretrained", None))
def whatever(*, weights=None):
    ...

def no_network():
    ...
'''


@pytest.fixture
def torchvision(tmp_path, monkeypatch):
    """A library laid out as torchvision is, in its place."""
    folder = tmp_path / "torchvision" / "models"
    folder.mkdir(parents=True)
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text(
        LIBRARY + "\ndef get_model(name, **options):\n    from torchvision.models import tiny\n"
        "    return getattr(tiny, name)(**options)\n"
    )
    (folder / "tiny.py").write_text("handle_legacy_interface = lambda **_: lambda f: f\n" + NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def test_names_are_read_from_the_sources(torchvision):
    assert torch_zoos.names("torchvision") == ("other_name", "tiny_net")
    network = zoo(ZooOptions("torchvision/tiny_net", input_size=32), 7)
    assert (network.name, network.input_shape, network.classes) == ("torchvision/tiny_net", (3, 32, 32), 7)
    assert network.refuses("gluon") == "it cannot build 'torchvision/tiny_net'; use engine=torch"
    assert "torchvision.models" not in sys.modules


def test_unknown_names_and_zoos_are_refused(torchvision):
    with pytest.raises(
        ConfigError, match=r"torchvision has no such network; the nearest of its 2 are tiny_net, other_name$"
    ):
        zoo(ZooOptions("torchvision/tiny_ned"), 7)
    with pytest.raises(ConfigError, match="there is no zoo 'keras'"):
        zoo(ZooOptions("keras/resnet50"), 7)


def test_it_is_built_for_the_classes_and_trains(torchvision):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'energybench[torch]'")
    from torch_runs import batches, step, trainer_of

    sections = {
        "model": {"name": "zoo", "network": "torchvision/tiny_net", "input_size": 16},
        "dataset": {"name": "synthetic", "classes": 7},
        "batch": 4,
    }
    trainer = trainer_of(**sections)
    step(trainer, batches(1, 4, (3, 16, 16), 7))
    assert trainer.take_loss() > 0
    assert trainer.training_flops() == 3 * 2 * (14 * 14 * 4 * 3 * 3 * 3 + 4 * 7)


def test_a_library_that_does_not_start_is_told(torchvision):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'energybench[torch]'")
    (torchvision / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    network = ZooNetwork("torchvision/tiny_net", (3, 8, 8), 2, torch_zoos.BUILDERS)
    with pytest.raises(ConfigError, match="does not start beside the installed torch: operator torchvision::nms"):
        network.build("torch")


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_the_real_libraries(name):
    """Needs a torchvision that was built for the installed torch."""
    library = name.partition("/")[0]
    try:
        importlib.import_module(library)
    except Exception as error:
        pytest.skip(f"needs {library}, which does not start here: {type(error).__name__}: {error}")
    from energybench_plugins.engines.torch_check import require_classifier

    network = zoo(ZooOptions(name, input_size=64), 5)
    require_classifier(network.build("torch"), network, "cpu")
