"""Importing MXNet: quietly where it works, and with what to install where it does not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from energybench.errors import ConfigError
from energybench_plugins.engines.mxnet_import import import_mxnet

REPORT = """
from energybench.errors import ConfigError
from energybench_plugins.engines.mxnet_import import import_mxnet
try:
    print(import_mxnet().__version__)
except ConfigError as error:
    print(error)
"""


def report(*flags: str, path: Path | None = None) -> str:
    """What a fresh interpreter says, with `path` before the installed packages."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, *flags, "-c", REPORT]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def fake_mxnet(folder: Path, source: str) -> Path:
    (folder / "mxnet").mkdir()
    (folder / "mxnet" / "__init__.py").write_text(source, encoding="utf-8")
    return folder


@pytest.mark.gluon
@pytest.mark.skipif(importlib.util.find_spec("mxnet") is None, reason="needs MXNet: pip install 'energybench[gluon]'")
def test_it_imports_without_a_warning_of_numpy_s() -> None:
    assert report("-W", "error", "-W", "ignore::DeprecationWarning").strip() == "1.9.1"


def test_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mxnet", None)
    with pytest.raises(ConfigError, match=r"MXNet is not installed; pip install 'energybench\[gluon\]'.*engine=torch"):
        import_mxnet()


def test_numpy_2_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(fake_mxnet(tmp_path, ""))
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(ConfigError, match=r"numpy below 2, not 2\.1\.0"):
        import_mxnet()


@pytest.mark.skipif(int(np.__version__.split(".")[0]) > 1, reason="numpy 2 is refused before the import")
class TestWithNumpy1:
    def test_the_six_names_are_there_when_it_is_imported(self, tmp_path: Path) -> None:
        source = "import numpy as n; __version__ = repr([n.bool, n.int, n.float, n.object, n.complex, n.str])"
        said = report("-W", "error", path=fake_mxnet(tmp_path, source)).strip()
        assert said == repr([bool, int, float, object, complex, str])

    def test_a_library_it_cannot_load_is_named(self, tmp_path: Path) -> None:
        source = "raise OSError('libcudnn.so.8: cannot open shared object file')"
        said = report(path=fake_mxnet(tmp_path, source))
        assert "libcudnn.so.8" in said
        assert "energybench[gluon-cuda]" in said

    @pytest.mark.parametrize(
        ("missing", "install"), [("distutils.version", "pip install setuptools"), ("graphviz", "pip install graphviz")]
    )
    def test_a_module_it_lacks_is_named(self, tmp_path: Path, missing: str, install: str) -> None:
        source = f"raise ModuleNotFoundError('no', name={missing!r})"
        assert install in report(path=fake_mxnet(tmp_path, source))
