"""Asking costs nothing: what only prints loads no framework, no driver and no array library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FRAMEWORKS = ("mxnet", "gluoncv", "torch", "torchvision", "mlflow", "pynvml", "cv2", "pandas", "submitit", "ray")
LIBRARIES = ("numpy", "scipy", "sklearn", "pyarrow", "matplotlib")

COMMANDS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "--hydra-help": ["--hydra-help"],
    "--cfg job": ["--cfg", "job"],
    "--cfg job of a network": ["--cfg", "job", "model=caffenet", "gpu=cpu"],
    "--info searchpath": ["--info", "searchpath"],
    "-sc query": ["-sc", "query=bash"],
    "plugins": ["plugins"],
    "plugins --help": ["plugins", "--help"],
    "doctor --help": ["doctor", "--help"],
    "describe --help": ["describe", "--help"],
    "recommend --help": ["recommend", "--help"],
    "compare --help": ["compare", "--help"],
    "prepare --help": ["prepare", "--help"],
    "a typing error": ["model=resnetin"],
}

COMPLETION = {"COMP_LINE": "energybench model=", "COMP_POINT": "18"}
"""What a shell sets when it asks how a command line goes on."""

SCRIPT = """
import json, sys
from energybench.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code or 0
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "modules": sorted(sys.modules)}, file)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_only_prints_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    seen = tmp_path / "modules.json"
    line = [sys.executable, "-c", SCRIPT, str(seen), *COMMANDS[command]]
    env = {**os.environ, **COMPLETION}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(seen.read_text())
    assert found["code"] == (2 if command == "a typing error" else 0), done.stderr
    assert [name for name in (*FRAMEWORKS, *LIBRARIES) if name in found["modules"]] == []


def test_each_plugin_module_is_light_by_itself() -> None:
    """What an entry point loads; a heavy import that another module hides would otherwise pass."""
    script = (
        "import json, sys; from importlib import metadata;"
        "[point.load() for point in metadata.entry_points(group='energybench') if point.dist.name == 'energybench'];"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    modules = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in (*FRAMEWORKS, *LIBRARIES) if name in modules] == []
