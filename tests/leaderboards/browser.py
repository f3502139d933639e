"""A headless Chromium for tests of the page."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def start(width: int = 1280, height: int = 900, dark: bool = False):
    """A Chromium that logs its console and every request; the caller quits it.

    Skips the test, and only then, where no Chromium or no driver for it is installed.
    """
    chromium = next((found for name in _NAMES if (found := shutil.which(name))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return driver


def open_page(driver, path: Path) -> None:
    driver.get(path.resolve().as_uri())


def requests(driver) -> list[str]:
    """Addresses of everything that was requested so far, the page itself left out."""
    time.sleep(0.2)
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if not url.startswith(("data:", "chrome")) and not url.endswith("/index.html")]
