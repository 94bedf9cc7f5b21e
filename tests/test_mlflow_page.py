"""The run in MLflow's own page, in a real browser."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, Command, environment, needs
from test_run import mlflow_runs

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def page(command: Command, tmp_path: Path, digits: Path) -> Iterator[str]:
    """The address of the page over a store with one finished run."""
    needs(CHROMIUM and DRIVER, "chromium with its driver")
    done = command(
        "model=pvt_small", "task=coco_retinanet", *SMALL, f"dataset.root={digits}",
        "schedule.steps=30", "schedule.batch_size=2", "trainer.log_every=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/results/mlflow.db"],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def wait_until_up(address: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{address} was not up after {seconds} s")


def test_the_page_shows_metrics_and_pictures(page: str, tmp_path: Path) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=1500,1100", f"--user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(argument)
    (run,) = mlflow_runs(tmp_path / "results")
    place = f"{page}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        wait = WebDriverWait(driver, 60)

        def show(tab: str, *words: str) -> None:
            driver.get(f"{place}{tab}")
            wait.until(lambda d: all(w in d.find_element(By.TAG_NAME, "body").text for w in words))

        show("", "pvt_small", "seed0", "val/AP", "cost/gflops", "Finished")
        driver.save_screenshot(str(tmp_path / "overview.png"))
        show("/model-metrics", "train", "val", "gflops")
        driver.save_screenshot(str(tmp_path / "metrics.png"))
        show("/artifacts/pictures/predictions.png", "predictions.png")
        wait.until(
            lambda d: any(
                int(image.get_property("naturalWidth")) > 500  # type: ignore[arg-type]
                for image in d.find_elements(By.TAG_NAME, "img")
            )
        )
        driver.save_screenshot(str(tmp_path / "picture.png"))
    finally:
        driver.quit()
