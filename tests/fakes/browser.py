"""A real browser without a window."""

from __future__ import annotations

import base64
import shutil
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
NEEDS = "needs chromium and chromium-driver (apt-get install chromium chromium-driver) and selenium"


def available():
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def browser(profile: Path):
    """Chromium with a profile of its own in `profile`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(120)
    try:
        yield driver
    finally:
        driver.quit()


def show(driver, url, *, width=1280, height=900, dark=False, scale=1):
    """Opens a page as a screen of this size and these colours shows it."""
    screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(url)


def picture(driver, path, *, height=None):
    """What is on the screen, or the page down to `height`, as a PNG."""
    options = {"format": "png"}
    if height is not None:
        width = driver.execute_script("return window.innerWidth")
        options["captureBeyondViewport"] = True
        options["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


def printed(driver, path):
    """The page as it would be printed, as a PDF."""
    found = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    path.write_bytes(base64.b64decode(found["data"]))
