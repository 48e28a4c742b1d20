"""Throughput of training through energybench against a hand-written Gluon loop: same network, batch, devices, data.

The hand-written loop is what a user would write without energybench: it knows nothing of it but the description that
both networks are built from, so that the layers are the same. Each side is a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pairs import alternate, ratio_line, write

SETTINGS = {
    "lenet": ["batch=64", "dataset=synthetic", "dataset.classes=10", "dataset.images=6400"],
    "caffenet": ["batch=16", "dataset.images=96"],
    "resnetim": ["batch=8", "dataset.images=32", "model.input_size=128"],
    "resnet": ["batch=16", "dataset=synthetic_gait", "dataset.images=96"],
    "cnn2d": ["batch=16", "dataset=synthetic_gait", "dataset.images=64"],
}
"""Overrides that make an epoch a matter of seconds on two CPU cores."""

EPOCHS = 3

SAME = ["training.schedule=constant", "training.initializer=xavier"]
"""As in the hand-written loop: another learning rate makes other numbers, and some of them are slower on a CPU."""

LOOP = """
import json, sys, time
import numpy as np
from energybench.cells import arguments, read
from energybench.config import make, make_architecture
from energybench.registry import Registry
from energybench_plugins.engines.gluon_blocks import build, mx

registry = Registry()
experiment = read(arguments(sys.argv[2:]), registry).cells[0].experiment
info = make(registry, "dataset", experiment.dataset).info()
architecture = make_architecture(registry, experiment.model, info.classes)
rng = np.random.default_rng(0)
batch, classes = experiment.batch, info.classes
images = rng.standard_normal((info.train_images, *architecture.input_shape), dtype=np.float32)
labels = rng.integers(0, classes, info.train_images).astype(np.float32)

mx.random.seed(0)
net = build(architecture)
net.initialize(mx.init.Xavier(), ctx=mx.cpu())
net.hybridize(static_alloc=True, static_shape=True)
loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
loss_function.hybridize()
recipe = experiment.training
trainer = mx.gluon.Trainer(
    net.collect_params(), "sgd", {"learning_rate": recipe.lr, "momentum": recipe.momentum, "wd": recipe.weight_decay}
)

def epoch(steps):
    total = mx.nd.zeros((1,))
    for step in range(steps):
        x = mx.nd.array(images[step * batch : (step + 1) * batch])
        y = mx.nd.array(labels[step * batch : (step + 1) * batch])
        with mx.autograd.record():
            loss = loss_function(net(x), y)
        loss.backward()
        trainer.step(batch)
        total += loss.sum()
    mx.nd.waitall()

epoch(2)
steps, rates = len(images) // batch, []
for _ in range(int(sys.argv[1])):
    begun = time.perf_counter()
    epoch(steps)
    rates.append(steps * batch / (time.perf_counter() - begun))
print(json.dumps(len(rates) / sum(1 / rate for rate in rates)))
"""


def by_hand(overrides: list[str]) -> float:
    command = [sys.executable, "-c", LOOP, str(EPOCHS), *overrides]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def through_energybench(overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "energybench",
            *overrides,
            "gpu=cpu",
            "tracking=none",
            "measure.validate=false",
        ]
        settings = [f"budget.epochs={EPOCHS}", "measure.warmup_steps=2", *SAME, f"hydra.run.dir={directory}"]
        subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads(Path(directory, "result.json").read_text())["metrics"]
    return float(metrics["images_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["lenet"], help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    given = parser.parse_args()
    seen = {}
    for model in given.models:
        overrides = [f"model={model}", *SETTINGS[model]]
        ours, hand = alternate(lambda o=overrides: through_energybench(o), lambda o=overrides: by_hand(o), given.rounds)
        print(ratio_line(" ".join(overrides), ours, hand, "images/s"), flush=True)
        seen[model] = {"overrides": overrides, "energybench": ours, "by_hand": hand}
    write(given.json, {"images_per_s": seen})


if __name__ == "__main__":
    main()
