"""What people see: the report and MLflow's page on a real, small sweep, in a real browser."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import browser as chromium
import pytest
from studies import study

from energybench.run.result import Result, result_files
from energybench.study.collect import Collected
from energybench.study.report import page_of_sweep
from energybench.tracking import view

pytest.importorskip("selenium", reason=chromium.NEEDS)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not chromium.available(), reason=chromium.NEEDS),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's connections to its driver
]

FAKES = Path(__file__).parents[1] / "fakes"
PATIENCE_S = 120


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def until(driver, found, what):
    """Waits for a page that draws itself; `found` gives what is waited for, or nothing."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if got := found():
            return got
        time.sleep(0.2)
    raise AssertionError(f"{what} did not appear in {PATIENCE_S} s; the page says: {text_of(driver)[:2000]}")


def text_of(driver):
    return driver.execute_script("return document.body ? document.body.innerText : ''")


# -- the report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two networks on two generations, one of them with synthetic data."""
    results = study(networks=("caffenet", "cnn2d"), counts=(1, 2), seeds=(0, 1))
    return page_of_sweep(Collected(tuple(results)), tmp_path_factory.mktemp("page")).as_uri()


def shown_rows(driver, table):
    return driver.execute_script(
        "return [...document.getElementById(arguments[0]).tBodies[0].rows].filter(row => !row.hidden)"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim()))",
        table,
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_fits_the_screen_and_is_readable(driver, page, width, dark):
    chromium.show(driver, page, width=width, dark=dark)
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    ink, paper = driver.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert contrast(ink, paper) >= 7
    label = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert contrast(driver.execute_script(f"return {label}"), paper) >= 4.5
    assert [line for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []


def contrast(one, other):
    """WCAG's contrast ratio of two rgb() colours."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_settings_are_sorted_and_filtered(driver, page):
    chromium.show(driver, page)
    table = "settings-gpu-measured"
    button = f"document.querySelector('#{table} thead th:nth-child(2) button')"
    value = lambda row: float(row[1].split()[0].replace(",", ""))  # noqa: E731
    for order in (False, True):
        driver.execute_script(f"{button}.click()")
        energies = [value(row) for row in shown_rows(driver, table)]
        assert energies == sorted(energies, reverse=order)
    assert driver.execute_script(f"return {button}.closest('th').getAttribute('aria-sort')") == "descending"
    driver.execute_script(
        "const input = document.querySelector('#settings .filter input');"
        "input.value = 'pascal batch=64'; input.dispatchEvent(new Event('input'))"
    )
    rows = shown_rows(driver, table)
    assert len(rows) == 4
    assert all("batch=64" in row[0] and "pascal" in row[0] for row in rows)
    assert "4 of 24 rows" in driver.execute_script("return document.querySelector('#settings .filter').innerText")


def test_what_does_not_exist_is_sorted_last(driver, page):
    chromium.show(driver, page)
    heads = driver.execute_script(
        "return [...document.querySelectorAll('#settings-gpu-measured thead th')].map(head => head.innerText)"
    )
    index = next(number for number, head in enumerate(heads) if head.startswith("top-1"))
    for _ in range(2):
        driver.execute_script(f"document.querySelectorAll('#settings-gpu-measured thead button')[{index}].click()")
        assert [row[index] for row in shown_rows(driver, "settings-gpu-measured")][-12:] == ["–"] * 12


def test_the_report_prints_on_paper(driver, page, tmp_path):
    chromium.show(driver, page, dark=True)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert paper == "rgb(255, 255, 255)"
    chromium.printed(driver, tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_without_scripts_everything_is_there(page):
    """The page itself, not what a script makes of it."""
    found = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(Path(page.removeprefix("file://")).read_text())
    words = " ".join(found)
    assert "model=cnn2d batch=256 gpu=pascal gpu.count=2" in words
    assert "Show rows with" not in re.sub(r"// Sorting.*", "", words, flags=re.DOTALL)


# -- MLflow's page


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two real runs, recorded in SQLite by the real tracker: their folder."""
    pytest.importorskip("mlflow", reason="needs MLflow (pip install 'energybench[mlflow]')")
    folder = tmp_path_factory.mktemp("sweep")
    command = [
        *(sys.executable, "-m", "energybench", "dataset=tiny", "engine=standin", "meter=scripted", "batch=8,16", "-m"),
        *("gpu=pascal", "budget.epochs=2", "measure.baseline_s=0.2", "measure.context_s=0"),
    ]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment(folder):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ENERGYBENCH_"))}
    return {
        **kept,
        "PYTHONPATH": str(FAKES),
        "ENERGYBENCH_PLUGINS": "standin,scripted",
        "ENERGYBENCH_LOCKS": str(folder),
    }


@pytest.fixture(scope="module")
def address(sweep):
    """What `energybench ui` prints, once the page answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "energybench", "ui", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=sweep, env=environment(sweep), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = server.stdout.readline()
        yield re.search(r"http\S+", line)[0] if answers(f"http://127.0.0.1:{port}/health") else pytest.fail(line)
    finally:
        server.terminate()
        server.wait(timeout=60)
        server.stdout.close()


def answers(url):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.2)
    return False


def shows(driver, value):
    """Whether the page shows a number, however it rounds it."""
    told = re.findall(r"\d[\d,]*(?:\.\d+)?", text_of(driver))
    return any(abs(float(text.replace(",", "")) / value - 1) < 0.02 for text in told)


def results_of(sweep):
    found = [Result.read(path) for path in result_files(sweep / "runs")]
    return sorted(found, key=lambda result: result.config["batch"])


def test_the_sweep_leaves_its_report(sweep, driver):
    [page] = (sweep / "runs").rglob("report.html")
    chromium.show(driver, page.as_uri())
    text = text_of(driver)
    for result in results_of(sweep):
        assert f"batch={result.config['batch']}" in text
        assert f"{result.metrics['energy_j']:.0f}" in text.replace(",", "")
    assert "Energy of the GPUs, measured" in text
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{sweep / 'mlflow.db'}")
    parent = json.loads((page.parent / "sweep.json").read_text())["tracking_run_id"]
    assert "report.html" in {file.path for file in client.list_artifacts(parent)}


def test_runs_stand_side_by_side_on_mlflow_s_page(sweep, address, driver):
    """The address that `ui` prints shows the runs, not the sweep alone, with the columns that matter."""
    chromium.show(driver, address, width=1900)
    wanted = ["lenet batch=8", "lenet batch=16", "energy_j", "time_s", "energy_per_image_j", "batch"]
    until(driver, lambda: all(word in text_of(driver) for word in wanted), f"one of {wanted}")
    for result in results_of(sweep):
        until(driver, lambda result=result: shows(driver, result.metrics["energy_j"]), str(result.metrics["energy_j"]))


def test_charts_of_the_runs_are_drawn(address, driver):
    chromium.show(driver, f"{address}&compareRunsMode=CHART", width=1900)
    until(driver, lambda: "Runs side by side" in text_of(driver), "the section of charts")
    count = "return document.querySelectorAll('.js-plotly-plot .bars path, .js-plotly-plot .bars rect').length"
    until(driver, lambda: driver.execute_script(count) >= 2, "a bar for each run")


def test_mlflow_compares_the_runs(sweep, address, driver):
    results = results_of(sweep)
    root, _, rest = address.partition("/#/experiments/")
    ids = [result.tracking["run_id"] for result in results]
    chromium.show(driver, view.compare_address(root, rest.partition("/")[0], ids), width=1900)
    until(driver, lambda: "Comparing 2 Runs" in text_of(driver), "the comparison")
    for result in results:  # of the metrics MLflow draws the first, in the order of their names, until one scrolls
        numbers = [result.metrics[name] for name in ("energy_j", "energy_uncertainty_j", "energy_per_image_j")]
        until(driver, lambda numbers=numbers: all(shows(driver, one) for one in numbers), f"{numbers}")
    assert all(f"lenet batch={result.config['batch']}" in text_of(driver) for result in results)
