"""The page in a real browser: sorted, filtered, pointed at, followed, and silent on the network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import browser_at, find, requests
from report_runs import COST, TASK, make_run, settings, train, write_page

HOSTILE = "<script>document.title='taken'</script>|100%_x_</td>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of five models, two seeds of one, one of them with a hostile name."""
    folder = tmp_path_factory.mktemp("page")
    results = folder / "results"
    points = [(n, {"train/loss": 3 / n, "train/images_seen": 4 * n}) for n in range(1, 9)]
    files = {"per_class.csv": "class,AP,images\none,0.5,4\n<b>two</b>,0.25,3\n"}
    scores = {"resnet18": 0.2, "resnet50": 0.35, "pvt_tiny": 0.3, "pvt_small": 0.4}
    for model, score in scores.items():
        config = settings(TASK, f"model={model}")
        row = {**COST, "cost/gflops": 100 + 300 * score, "val/AP": score}
        make_run(results, config, row, points=points, files=files)
    train(results, "model=pvt_small", "seed=1", score=0.44, points=points, files=files)
    odd = settings(TASK, "model=pvt_tiny")
    odd["model"]["name"] = HOSTILE
    make_run(results, odd, {**COST, "val/AP": 0.1})
    return write_page(folder)


driver = browser_at(800, 1600)


@pytest.fixture
def browser(driver: Any, page: Path) -> Iterator[Any]:
    """The page, opened from disk."""
    driver.get(page.as_uri())
    yield driver
    # Chromium's own list of a directory's files warns of itself.
    runs = (page.parents[1] / "runs").as_uri()
    said = [each["message"] for each in driver.get_log("browser")]
    assert [each for each in said if not each.startswith(runs)] == [], "the console is silent"
    assert not requests(driver), "nothing is asked of the network"


def column(driver: Any, place: int) -> list[str]:
    """The texts of a column of the first table, of the rows that are shown."""
    rows = find(driver, "#rows-1 tbody tr")
    return [find(row, "td")[place].text for row in rows if row.is_displayed()]


def test_a_click_on_a_heading_sorts(browser: Any) -> None:
    headings = [each.text for each in find(browser, "#rows-1 thead th")]
    place = headings.index("AP")
    button = find(browser, "#rows-1 thead button")[place]
    button.click()
    rising = [float(text.split()[0]) for text in column(browser, place)]
    assert rising == sorted(rising) == [10.0, 20.0, 30.0, 35.0, 42.0]
    button.click()
    assert column(browser, place)[0] == "42.0 ± 2.8"
    assert find(browser, "#rows-1 th[aria-sort='descending']")[0].text.startswith("AP")
    find(browser, "#rows-1 thead button")[0].click()
    assert [name for name in column(browser, 0) if name != HOSTILE] == [
        "pvt_small", "pvt_tiny", "resnet18", "resnet50",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "models"),
    [
        ("pvt", ["pvt_small", "pvt_tiny"]),
        ("RESNET gflops<170", ["resnet18"]),
        ("AP>=35", ["pvt_small", "resnet50"]),
        ("ap<35 resnet", ["resnet18"]),
        ("model=pvt_tiny", ["pvt_tiny"]),
        ("nothing has this", []),
    ],
)
def test_typing_filters(browser: Any, typed: str, models: list[str]) -> None:
    find(browser, "#filter-1")[0].send_keys(typed)
    assert sorted(column(browser, 0)) == models
    assert find(browser, "output")[0].text == f"{len(models)} rows"
    find(browser, "#filter-1")[0].clear()
    find(browser, "#filter-1")[0].send_keys(" ")
    assert len(column(browser, 0)) == 5


def test_pointing_at_a_mark_tells_what_it_is(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    figure = find(browser, "figure[id$='AP-gflops']")[0]
    marks = {each.get_attribute("aria-label"): each for each in find(figure, ".point")}
    label = next(each for each in marks if each.startswith("pvt_small"))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", marks[label])
    ActionChains(browser).move_to_element(marks[label]).perform()
    tip = find(browser, "#tip")[0]
    assert tip.is_displayed()
    lines = tip.text.splitlines()
    assert lines[0] == "pvt_small · measured"
    assert lines[2] == "AP: 42 ± 2.8284"
    pointed = find(browser, "#rows-1 tr.pointed td")
    assert pointed[0].get_attribute("textContent") == "pvt_small"
    box, window = tip.rect, browser.execute_script("return document.documentElement.clientWidth")
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= window


def test_a_mark_and_a_row_lead_to_the_run(browser: Any, page: Path) -> None:
    for selector in ("#rows-1 td.runs a", "figure[id$='AP-gflops'] a.point"):
        for each in find(browser, selector):
            assert (page.parent / each.get_dom_attribute("href") / "status.json").is_file()
    browser.execute_script("arguments[0].click()", find(browser, "#rows-1 td.runs a")[0])
    assert browser.current_url.startswith(page.parents[1].as_uri() + "/runs/")
    browser.back()


def test_every_picture_has_its_numbers_behind_it(browser: Any) -> None:
    data = json.loads(find(browser, "#data")[0].get_attribute("textContent"))
    figures = find(browser, "figure")
    assert len(figures) == len(data) >= 5
    for figure, chart in zip(figures, data, strict=True):
        browser.execute_script("arguments[0].open = true", find(figure, "details")[0])
        browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
        shown = [
            [cell.get_attribute("textContent") for cell in find(row, "td")]
            for row in find(figure, "details tbody tr")
        ]
        points = [(s["name"], *point) for s in chart["series"] for point in s["points"]]
        assert len(shown) == len(points)
        for cells, point in zip(shown, points, strict=True):
            assert cells[0] == point[0]
            assert cells[1] == point[3]
            assert float(cells[2].replace(",", "")) == pytest.approx(point[1], rel=1e-4)


def test_names_are_text(browser: Any) -> None:
    assert browser.title.startswith("pvt-bench: ")
    assert HOSTILE in column(browser, 0)
    assert not find(browser, "figure b")


def test_a_series_can_be_hidden(browser: Any) -> None:
    figure = find(browser, "figure[id$='loss']")[0]
    before = len(find(figure, ".point"))
    button = find(figure, ".legend button")[0]
    browser.execute_script("arguments[0].click()", button)
    assert button.get_attribute("aria-pressed") == "false"
    assert 0 < len(find(figure, ".point")) < before
    browser.execute_script("arguments[0].click()", button)
    assert len(find(figure, ".point")) == before


def test_light_and_dark(browser: Any, tmp_path: Path) -> None:
    def paper() -> str:
        script = "return getComputedStyle(document.body).backgroundColor"
        return str(browser.execute_script(script))

    for scheme, expected in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 29)")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert paper() == expected
    find(browser, "#theme")[0].click()
    assert paper() == "rgb(255, 255, 255)"
    find(browser, "#theme")[0].click()
    assert paper() == "rgb(22, 24, 29)"
    browser.save_screenshot(str(tmp_path / "dark.png"))


def test_nothing_is_wider_than_the_window(browser: Any) -> None:
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    width, window = browser.execute_script(script)
    assert width <= window
