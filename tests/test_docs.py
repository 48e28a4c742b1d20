"""What the documentation quotes is what the files say, and what it says of plugins is what happens."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from energybench import __version__, hookspecs

ROOT = Path(__file__).parents[1]
PLUGINS = ROOT / "docs" / "plugins.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
QUOTE = re.compile(r"<!-- (file|part of): (\S+) -->\n```\w*\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("energybench_")}

quotes = [
    pytest.param(*match, id=f"{path.name}: {match[1]}")
    for path in DOCUMENTS
    for match in QUOTE.findall(path.read_text())
]


def signature(hook: Callable[..., object]) -> str:
    """As one writes it: annotations are strings in a module that postpones them."""
    return f"{hook.__name__}{inspect.signature(hook)}".replace("'", "")


@pytest.mark.parametrize(("extent", "path", "quoted"), quotes)
def test_a_quoted_file_is_quoted_as_it_is(extent: str, path: str, quoted: str) -> None:
    text = (ROOT / path).read_text()
    assert quoted == text if extent == "file" else quoted in text


def test_the_example_s_files_are_quoted() -> None:
    quoted = {path for _, path, _ in QUOTE.findall(PLUGINS.read_text())}
    package = "examples/energybench-example/energybench_example"
    assert {f"{package}/mlp.py", f"{package}/conf/model/mlp.yaml"} <= quoted


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_hook_is_documented_with_its_signature_and_no_other() -> None:
    documented = re.findall(r"^### `(energybench_.*)`$", PLUGINS.read_text(), re.MULTILINE)
    assert documented == [signature(hook) for hook in HOOKS.values()]


def test_register_is_documented_with_its_arguments() -> None:
    arguments = list(inspect.signature(hookspecs.Register.__call__).parameters)[1:]
    text = PLUGINS.read_text()
    assert f"`register` takes `({', '.join(arguments)})`" in text
    assert re.findall(r"^- `(\w+)`: ", text, re.MULTILINE) == arguments


BROKEN = {
    "power_plug": "import driver_of_my_plug\n",
    "my_meters": "def energybench_register_meter(register): ...\n",
    "my_networks": "def energybench_register_architectures(registry): ...\n",
    "my_lenet": """\
from energybench_plugins.architectures.lenet import LenetOptions, lenet

def energybench_register_architectures(register):
    register("lenet", lenet, LenetOptions)
""",
}


@pytest.mark.parametrize("module", BROKEN)
def test_the_documented_warnings_are_those_that_are_printed(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(BROKEN[module])
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "ENERGYBENCH_PLUGINS": module}
    command = [sys.executable, "-m", "energybench", "plugins"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.replace(__version__, "VERSION") in PLUGINS.read_text().splitlines()


COMPLETED = {
    "energybench mo": {"model=", "model."},
    "energybench model=r": {"model=resnet", "model=resnet50", "model=resnetim"},
    "energybench model=caffenet model.": {"model.name=", "model.input_size="},
    "energybench -m gpu=p": {"gpu=pascal"},
    "energybench budget.epochs=": {"budget.epochs=10"},
    "energybench doc": {"doctor"},
    "energybench describe model=re": {"model=resnet", "model=resnet50", "model=resnetim"},
}

SHELL = """
eval "$(energybench -sc install=bash)"
complete -p energybench >/dev/null || exit 1
words=($COMP_LINE)
COMP_CWORD=$((${#words[@]} - 1))
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("line", COMPLETED)
def test_the_documented_completions_are_those_of_bash(line: str, tmp_path: Path) -> None:
    """As bash calls it: Hydra's own function, with the variables that readline sets."""
    folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = subprocess.run(["bash", "-c", SHELL], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == COMPLETED[line]


def test_the_documented_line_installs_completion_for_the_command() -> None:
    assert 'eval "$(energybench -sc install=bash)"' in (ROOT / "docs" / "completion.md").read_text()
