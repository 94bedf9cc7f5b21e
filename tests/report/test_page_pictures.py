"""The page in a browser: names in pictures, predictions, and tables wider than the window."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import browser_at, find, requests
from PIL import Image
from report_runs import COST, TASK, make_run, settings, train, write_page

MODELS = (
    "resnet18", "resnet50", "resnet101", "pvt_tiny", "pvt_small", "pvt_medium", "pvt_large",
    "pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b3",
)  # fmt: skip
SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def score(place: int) -> float:
    return 0.2 + 0.02 * place


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of eleven models with two seeds each, one that failed, and a table of costs."""
    folder = tmp_path_factory.mktemp("pictures")
    results = folder / "results"
    for (place, model), seed in itertools.product(enumerate(MODELS), (0, 1)):
        # The better a model, the higher its curve ends.
        points = [
            (n, {"train/loss": 0.2 + 0.05 * place + 3 / n, "train/images_seen": 4 * n})
            for n in range(1, 30)
        ]
        row = {**COST, "cost/gflops": 100.0 + 20 * place, "cost/params_m": 10.0 + place}
        row |= {f"val/{name}": score(place) + 0.01 * seed for name in SCORES}
        config = settings(TASK, f"model={model}", f"seed={seed}")
        record = make_run(results, config, row, points=points)
        (record / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (20 * place, 100, 0)).save(record / "pictures/predictions.png")
    train(results, "model=pvt_v2_b4", score=None, state="failed")
    make_run(results, settings(TASK, "model=pvt_v2_b5", "mode=cost"), COST)
    return write_page(folder)


driver = browser_at(800, 1600)


@pytest.fixture
def browser(driver: Any, page: Path) -> Iterator[Any]:
    """The page, opened from disk, which asks nothing of the network and reports no error."""
    driver.get(page.as_uri())
    driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 200))")
    yield driver
    assert [each["message"] for each in driver.get_log("browser")] == []
    assert not requests(driver)


def boxes(elements: list[Any]) -> list[tuple[float, float, float, float]]:
    rects = [each.rect for each in elements]
    return [(r["x"], r["y"], r["x"] + r["width"], r["y"] + r["height"]) for r in rects]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    along = min(one[3], other[3]) - max(one[1], other[1])
    return across > 1 and along > 4  # boxes of text are higher than its letters


def test_points_on_the_front_have_their_names(browser: Any) -> None:
    figure = find(browser, "figure[id$='AP-gflops']")[0]
    names = find(figure, "text.name")
    # Of these models the dearer is always the better: all are on the front.
    assert {each.text for each in names} == {*MODELS}
    assert len(find(figure, "text.front-name")) == len(MODELS)
    assert not [pair for pair in itertools.combinations(boxes(names), 2) if overlap(*pair)]
    marks = {
        str(each.get_attribute("aria-label")).split(" · ")[0]: box
        for each, box in zip(
            find(figure, ".point"), boxes(find(figure, ".point .mark")), strict=True
        )
    }
    for name, box in zip(names, boxes(names), strict=True):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        distances = {
            model: math.dist(centre, ((m[0] + m[2]) / 2, (m[1] + m[3]) / 2))
            for model, m in marks.items()
        }
        assert distances[name.text] < 110


def test_curves_are_named_where_they_end_and_in_that_order(browser: Any) -> None:
    figure = find(browser, "figure[id$='loss']")[0]
    best = [*reversed(MODELS[3:])]
    names = find(figure, "text.end-name")
    assert [each.text for each in names] == best
    tops = [each.rect["y"] for each in names]
    assert tops == sorted(tops)
    assert not [pair for pair in itertools.combinations(boxes(names), 2) if overlap(*pair)]
    assert [each.text for each in find(figure, ".legend button")] == [*best, "others"]


def test_seeds_look_alike_and_models_do_not(browser: Any) -> None:
    figure = find(browser, "figure[id$='loss']")[0]
    looks = [
        (line.get_attribute("stroke"), line.get_attribute("stroke-dasharray"))
        for line in find(figure, "path.line")
    ]
    quiet = [look for look in looks if look[0] == "var(--faint)"]
    assert len(quiet) == 2 * 3
    counts = {look: looks.count(look) for look in looks if look not in quiet}
    assert [*counts.values()] == [2] * 8
    for part in (0, 1):
        assert len({look[part] for look in counts}) == 8


def test_pictures_and_predictions_stand_below_their_table(browser: Any) -> None:
    trained, counted = find(browser, "main > section")
    tops = [
        find(trained, selector)[0].rect["y"] for selector in ("table.sortable", "figure", ".sheets")
    ]
    assert tops == sorted(tops)
    assert {str(f.get_attribute("id")).rpartition("_")[2] for f in find(trained, "figure")} == {
        "AP-gflops", "m", "AP-seeds", "loss",
    }  # fmt: skip
    assert not find(counted, "figure, .sheets")


def test_predictions_show_their_run_and_load_when_they_are_seen(browser: Any, page: Path) -> None:
    section = find(browser, "main > section")[0]
    items = find(section, ".sheets li")
    assert len(items) == 2 * len(MODELS)
    for place, item in enumerate(items):
        picture, run = find(item, "img")[0], find(item, "p a")[0]
        record = page.parent / run.get_dom_attribute("href")
        assert (record / "status.json").is_file()
        path = page.parent / picture.get_dom_attribute("src")
        assert path.resolve() == (record / "pictures/predictions.png").resolve()
        assert MODELS[-1 - place // 2] in find(item, "p")[0].get_attribute("textContent")
        assert picture.get_dom_attribute("loading") == "lazy"
    load = """const done = arguments[1];
        arguments[0].scrollIntoView();
        setTimeout(() => done(arguments[0].naturalWidth), 400);"""
    assert browser.execute_async_script(load, find(items[0], "img")[0]) == 64
    folded = find(items[-1], "img")[0]
    assert browser.execute_script("return arguments[0].naturalWidth", folded) == 0
    browser.execute_script("arguments[0].closest('details').open = true", folded)
    assert browser.execute_async_script(load, folded) == 64


def test_a_table_takes_the_width_and_says_where_it_has_more(browser: Any) -> None:
    frame = find(browser, ".frame")[0]
    wide, table = find(frame, ".wide")[0], find(frame, "table")[0]
    assert table.rect["width"] >= wide.rect["width"]
    room, needed = browser.execute_script(
        "return [arguments[0].clientWidth, arguments[0].scrollWidth]", wide
    )
    hint, first = find(frame, ".hint")[0], find(table, "tbody td")[0]
    if room >= 1500:
        assert needed <= room
        assert not hint.is_displayed()
        return
    assert needed > room
    assert hint.is_displayed()
    assert shadows(browser, frame) == ["0", "1"]
    left = first.rect["x"]
    scroll = """arguments[0].scrollLeft = 1e6; const done = arguments[1];
        requestAnimationFrame(() => setTimeout(done, 50));"""
    browser.execute_async_script(scroll, wide)
    assert shadows(browser, frame) == ["1", "0"]
    assert not hint.is_displayed()
    # The first column stays, so that each row has its name.
    assert first.rect["x"] == left


def shadows(browser: Any, frame: Any) -> list[str]:
    """Opacity of the shadow at the left and at the right end."""
    script = "return getComputedStyle(arguments[0], arguments[1]).opacity"
    return [browser.execute_script(script, frame, side) for side in ("::before", "::after")]
