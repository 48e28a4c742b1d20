"""`model=mlp`: a multilayer perceptron for 8x8 grey images."""

from dataclasses import dataclass

from energybench.architecture import Architecture, Dense, ReLU
from energybench.errors import ConfigError
from energybench.hookspecs import Register


@dataclass(frozen=True)
class MlpOptions:
    units: int = 128  # of each hidden layer


def mlp(options: MlpOptions, classes: int) -> Architecture:
    if options.units < 1:
        raise ConfigError(f"model.units={options.units}: give a whole number from 1")
    hidden = (Dense(options.units), ReLU())
    return Architecture("mlp", (1, 8, 8), classes, (*hidden, *hidden, Dense(classes)))


def energybench_register_architectures(register: Register) -> None:
    register("mlp", mlp, MlpOptions)


def energybench_config_path() -> str:
    return "pkg://energybench_example.conf"
