"""An engine in numpy alone, for environments without a framework: it really trains networks of Dense and ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

from energybench.architecture import Dense, ReLU
from energybench.availability import Availability
from energybench.errors import ConfigError
from energybench.run.engine import Evaluation


@dataclass(frozen=True)
class NumpyOptions:
    pass


class NumpyEngine:
    def __init__(self, options):
        pass

    def check(self):
        return Availability(True, "numpy")

    probe = check

    def refuses(self, device):
        return None if device.kind == "cpu" else "numpy runs on the CPU"

    def validate(self, experiment, devices):
        pass

    def workers(self, devices):
        return [devices]

    def environment(self, devices):
        return {}

    def trainer(self, task):
        return NumpyTrainer(task)


class NumpyTrainer:
    """Plain stochastic gradient descent on softmax cross-entropy."""

    def __init__(self, task):
        import numpy as np

        self.np = np
        self.rows = task.architecture.rows()
        if unknown := sorted({row.kind for row in self.rows if not isinstance(row.layer, (Dense, ReLU))}):
            raise ConfigError(f"engine 'numpy' has no {', '.join(unknown)}")
        random = np.random.default_rng(task.experiment.seed)
        self.weights = {}
        for row in self.rows:
            if isinstance(row.layer, Dense):
                inputs = prod(row.input_shape)
                self.weights[f"{row.name}.weight"] = random.normal(0, sqrt(2 / inputs), (inputs, row.layer.units))
                self.weights[f"{row.name}.bias"] = np.zeros(row.layer.units)
        self.losses = []
        self.lr = task.experiment.training.lr

    def begin_epoch(self, epoch, lr):
        self.lr = lr

    def feed(self, batches):
        return iter(batches)

    def step(self, batch):
        inputs, logits = self._forward(batch.images)
        gradient, loss = self._loss(logits, batch.labels)
        self.losses.append(loss)
        for row, value in zip(reversed(self.rows), reversed(inputs), strict=True):
            if isinstance(row.layer, ReLU):
                gradient = gradient * (value > 0)
            else:
                weight, bias = self.weights[f"{row.name}.weight"], self.weights[f"{row.name}.bias"]
                below = gradient @ weight.T
                weight -= self.lr * value.T @ gradient
                bias -= self.lr * gradient.sum(axis=0)
                gradient = below

    def _forward(self, images):
        value, inputs = images.reshape(len(images), -1), []
        for row in self.rows:
            inputs.append(value)
            if isinstance(row.layer, ReLU):
                value = self.np.maximum(value, 0)
            else:
                value = value @ self.weights[f"{row.name}.weight"] + self.weights[f"{row.name}.bias"]
        return inputs, value

    def _loss(self, logits, labels):
        """The gradient of the mean loss by the logits, and the mean loss."""
        np = self.np
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        chosen = np.arange(len(labels)), labels
        loss = -float(np.log(shares[chosen]).mean())
        shares[chosen] -= 1
        return shares / len(labels), loss

    def warm_up(self, training, validation):
        kept = self.state()
        for batch in training:
            self.step(batch)
        self.restore(kept)
        self.losses.clear()

    def recent_loss(self):
        return self.losses[-1] if self.losses else None

    def take_loss(self):
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        return mean

    def evaluate(self, batches):
        np, images, correct, top5, loss = self.np, 0, 0, 0, 0.0
        for batch in batches:
            logits = self._forward(batch.images)[1]
            ranked = np.argsort(-logits, axis=1)
            images += len(logits)
            correct += int((ranked[:, 0] == batch.labels).sum())
            top5 += int((ranked[:, :5] == batch.labels[:, None]).sum())
            loss += self._loss(logits, batch.labels)[1] * len(logits)
        return Evaluation(images, correct, top5, loss / images)

    def synchronize(self):
        pass

    def state(self):
        return {f"parameters/{name}": value.copy() for name, value in self.weights.items()}

    def restore(self, state):
        self.weights = {name.removeprefix("parameters/"): value.copy() for name, value in state.items()}

    def memory_bytes(self):
        return None

    def environment(self):
        return {"engine": f"numpy {self.np.__version__}"}


def energybench_register_engines(register):
    register("numpy", NumpyEngine, NumpyOptions)


def energybench_config_path():
    return "pkg://numpy_engine_conf"
