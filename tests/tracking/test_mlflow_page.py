"""Runs and sweeps in MLflow's own page, in a real browser."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from conftest import SMALL, environment, needs
from forking import run_forked
from test_run import mlflow_runs

from pvt_bench.tracking.views import FIRST_VIEW

if TYPE_CHECKING:
    from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


RATIOS = ("[8,4,2,1]", "[4,2,1,1]", "[8,8,4,2]", "[16,8,4,2]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, digits: Path, empty_store: Path) -> Path:
    """Results with one finished training and a sweep of four costs."""
    place = tmp_path_factory.mktemp("page")
    (place / "results").mkdir()
    shutil.copy(empty_store, place / "results")
    training = (
        "model=pvt_small", *SMALL, f"dataset.root={digits}",
        "schedule.steps=10", "schedule.batch_size=2", "trainer.log_every=1",
    )  # fmt: skip
    sweep = ("-m", "model=pvt_small", f"model.sr_ratios={','.join(RATIOS)}", "mode=cost")
    for words in (training, sweep):
        done = run_forked([*words, "task=coco_retinanet"], place, environment(), timeout=300)
        assert done.returncode == 0, done.stderr
    return place / "results"


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    """MLflow's page over the store."""
    needs(CHROMIUM and DRIVER, "chromium with its driver")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1", "--backend-store-uri", f"sqlite:///{store}/mlflow.db"],
        cwd=store, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_up(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def browser(tmp_path: Path) -> "Iterator[webdriver.Chrome]":
    """A browser without a window that asks nothing of the network."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1500,1100", f"--user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver: "webdriver.Chrome", place: str, *words: str) -> None:
    """Go to a place, and wait until all the words stand on the page."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(place)
    body = (By.TAG_NAME, "body")
    WebDriverWait(driver, 60).until(
        lambda page: all(word in page.find_element(*body).text for word in words)
    )


def wait_until_up(address: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{address} was not up after {seconds} s")


def wait_for(driver: "webdriver.Chrome", selector: str) -> None:
    """Wait until something that the selector finds is on the page."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))


def wait_for_picture(driver: "webdriver.Chrome", width: int) -> None:
    """Wait until a picture at least that wide has come."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(
        lambda page: any(
            int(image.get_property("naturalWidth")) > width  # type: ignore[arg-type]
            for image in page.find_elements(By.TAG_NAME, "img")
        )
    )


def test_a_run_shows_its_description_metrics_and_pictures(
    address: str, store: Path, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    (run,) = (run for run in mlflow_runs(store) if "val/AP" in run.data.metrics)
    place = f"{address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    show(
        browser,
        place,
        "pvt_small",
        "seed0",
        "val/AP",
        "cost/gflops",
        "Finished",
        "schedule: digits",
    )
    wait_for_picture(browser, 500)
    browser.save_screenshot(str(tmp_path / "overview.png"))
    show(browser, f"{place}/model-metrics", "train", "val", "gflops", "cost\n(4)")
    browser.save_screenshot(str(tmp_path / "metrics.png"))
    runs = f"{address}/#/experiments/{run.info.experiment_id}/runs"
    curves = f"{runs}?viewStateShareKey={FIRST_VIEW}&compareRunsMode=CHART"
    show(browser, curves, "curves and scores", "train\n(5)", "1 matching run")
    browser.save_screenshot(str(tmp_path / "curves.png"))
    show(browser, f"{place}/system-metrics", "cpu_utilization_percentage")
    show(browser, f"{place}/artifacts/pictures/predictions.png", "predictions.png")
    wait_for_picture(browser, 500)
    browser.save_screenshot(str(tmp_path / "picture.png"))


def test_a_sweep_holds_its_cells_and_they_can_be_compared(
    address: str, store: Path, browser: "webdriver.Chrome", tmp_path: Path
) -> None:
    runs = mlflow_runs(store)
    (parent,) = (run for run in runs if run.data.tags.get("kind") == "sweep")
    cells = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(cells) == len(RATIOS)
    experiment = parent.info.experiment_id
    show(browser, f"{address}/#/experiments/{experiment}/runs", parent.info.run_name)
    browser.save_screenshot(str(tmp_path / "list.png"))
    ids = json.dumps([run.info.run_id for run in cells])
    where = f"runs={quote(ids)}&experiments={quote(json.dumps([experiment]))}"
    place = f"{address}/#/compare-runs?{where}"
    show(browser, place, "Parallel Coordinates Plot", "cost/gflops", "model.sr_ratios")
    wait_for(browser, ".js-plotly-plot")
    browser.save_screenshot(str(tmp_path / "compare.png"))
    view = f"{address}/#/experiments/{experiment}/runs?viewStateShareKey={parent.info.run_id}"
    # Cells without their parent, the swept key first: sections of the page by itself have no such.
    shown = ("what was swept\n(1)", "4 matching runs", "coco_retinanet: parameters and GFLOPs")
    show(browser, f"{view}&compareRunsMode=CHART", *shown)
    wait_for(browser, ".js-plotly-plot")
    browser.save_screenshot(str(tmp_path / "view.png"))
    show(browser, view, *(f"sr_ratios={ratios}"[:14] for ratios in RATIOS))
    place = f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}"
    show(browser, place, parent.info.run_name, "4 done", "Finished")
    browser.save_screenshot(str(tmp_path / "parent.png"))
