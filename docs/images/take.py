"""Takes the pictures of the documentation: a sweep's report and MLflow's page on it, in Chromium without a window."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "tests" / "fakes"))

import browser as chromium  # noqa: E402


@contextmanager
def served(folder: Path, port: int) -> Iterator[str]:
    """The address that `energybench ui` prints for the store in `folder`."""
    command = [sys.executable, "-m", "energybench", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        found = re.search(r"http\S+", server.stdout.readline())
        assert found is not None, f"no store in {folder}"
        yield found[0]
    finally:
        server.terminate()
        server.wait()


def wait_for(driver: Any, address: str, words: str, *, width: int, height: int, seconds: float = 600.0) -> None:
    """Opens a page again and again until it says `words`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            chromium.show(driver, address, width=width, height=height)
            for _ in range(60):
                if words in driver.execute_script("return document.body.innerText"):
                    time.sleep(3)  # charts are drawn after the words
                    return
                time.sleep(0.5)
        except Exception as error:  # the server is not there yet
            print(f"waiting: {type(error).__name__}", file=sys.stderr)
            time.sleep(2)
    raise SystemExit(f"{address} does not say {words!r}")


def main() -> None:
    """Writes report.png and mlflow.png beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where a sweep was run: runs/ and mlflow.db are in it")
    parser.add_argument("--port", type=int, default=5055)
    parser.add_argument("--only", choices=("report", "mlflow"))
    given = parser.parse_args()
    page = max((given.folder / "runs").rglob("report.html"), key=lambda path: path.stat().st_mtime)
    name = json.loads((page.parent / "sweep.json").read_text(encoding="utf-8"))["name"]
    with tempfile.TemporaryDirectory() as profile, chromium.browser(Path(profile)) as driver:
        if given.only != "mlflow":
            chromium.show(driver, page.absolute().as_uri(), width=1180)
            chromium.picture(driver, HERE / "report.png", height=1180)
        if given.only != "report":
            with served(given.folder, given.port) as address:
                first = f"{name.split(' ')[0]} batch="
                wait_for(driver, f"{address}&compareRunsMode=CHART", first, width=1700, height=900)
                close = "[aria-label='Close'], [aria-label='close']"
                driver.execute_script(f'document.querySelectorAll("{close}").forEach(button => button.click())')
                time.sleep(4)
                chromium.picture(driver, HERE / "mlflow.png")


if __name__ == "__main__":
    main()
