"""A real browser, for the tests of pages."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import needs

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def open_browser(profile: Path, width: int) -> Iterator[Any]:
    """Chromium with a window of a width in pixels, until the end of the block."""
    needs(CHROMIUM and DRIVER, "chromium with its driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--window-size={width},1100", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def browser_at(*widths: int) -> Any:
    """A fixture of a module: a browser with a window of each of these widths in turn."""

    @pytest.fixture(scope="module", params=widths)
    def driver(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Any]:
        with open_browser(tmp_path_factory.mktemp("chromium"), request.param) as browser:
            yield browser

    return driver


def requests(driver: Any) -> list[str]:
    """The addresses that were asked for, but for files and data."""
    messages = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    addresses = [
        each["params"]["request"]["url"]
        for each in messages
        if each["method"] == "Network.requestWillBeSent"
    ]
    return [each for each in addresses if not each.startswith(("file:", "data:", "chrome:"))]


def find(driver: Any, selector: str) -> list[Any]:
    """Elements that match a CSS selector."""
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CSS_SELECTOR, selector)
