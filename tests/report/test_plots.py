"""The pictures: what they show, and that it can be read in print and without colours."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from report_runs import COST, TASK, make_run, report, settings, train

from pvt_bench.report.pictures.charts import Chart, Point, Series, pareto, table_charts
from pvt_bench.report.pictures.plots import DPI, STYLE, TEXT, WIDTH, draw, render
from pvt_bench.report.pictures.run_charts import run_charts, size_charts
from pvt_bench.report.sources.runs import load_runs
from pvt_bench.report.tables.filling import published_table
from pvt_bench.report.tables.layouts import load_layout

MODELS = [
    *("resnet18", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x4d"),
    *("resnext101_64x4d", "pvt_tiny", "pvt_small", "pvt_medium", "pvt_large", "pvt_v2_b0"),
    *("pvt_v2_b1", "pvt_v2_b2_li", "pvt_v2_b2", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5"),
    *("swin_tiny_patch4_window7_224", "regnety_040", "deit_small_patch16_224"),
]


def scatter(seed: int) -> Chart:
    """Twenty models whose scores grow with their costs, as they do."""
    draw = np.random.default_rng(seed)
    costs = draw.lognormal(1.5, 0.7, 20)
    scores = 70 + 5 * np.log(costs) + draw.normal(0, 1.5, 20)
    deviations = draw.uniform(0.1, 0.5, 20)
    measured = tuple(
        Point(float(x), float(y), name, float(d))
        for x, y, name, d in zip(costs, scores, MODELS, deviations, strict=True)
    )
    published = tuple(Point(point.x, point.y + 0.3, point.label) for point in measured[:5])
    series = (Series("measured", measured), Series("published", published, published=True))
    return Chart("a", "Scores", "points", "GFLOPs", "Top-1", series, pareto(measured))


def drawn(chart: Chart) -> Figure:
    with rc_context(STYLE):
        figure = draw(chart)
        figure.draw_without_rendering()
    return figure


def written(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def labels(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_text()]


def extent(text: Text) -> Bbox:
    """What the letters cover, without the line that leads to an annotation."""
    return Text.get_window_extent(text)


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_twenty_points_do_not_overlap(seed: int) -> None:
    figure = drawn(scatter(seed))
    found = labels(figure)
    assert len(found) == 20
    boxes = [extent(text) for text in found]
    for (one, box), (other, another) in itertools.combinations(zip(found, boxes, strict=True), 2):
        assert not box.overlaps(another), (one.get_text(), other.get_text())
    axes = figure.axes[0]
    marks = axes.transData.transform([(p.x, p.y) for s in scatter(seed).series for p in s.points])
    for text, box in zip(found, boxes, strict=True):
        assert not [mark for mark in marks if box.contains(*mark)], text.get_text()
        inside = axes.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1


def test_labels_leave_the_front_free() -> None:
    points = tuple(Point(x, y, f"model {x}") for x, y in ((1, 1), (4, 2), (9, 3)))
    front = (points[0], Point(4, 1), points[1], Point(9, 2), points[2])
    figure = drawn(Chart("a", "Steps", "points", "x", "y", (Series("measured", points),), points))
    corners = figure.axes[0].transData.transform([(point.x, point.y) for point in front])
    for text in labels(figure):
        for start, end in itertools.pairwise(corners):
            assert not extent(text).overlaps(Bbox([start - 0.5, end + 0.5])), text.get_text()


def test_where_names_have_no_room_numbers_stand_for_them() -> None:
    points = tuple(
        Point(1 + i / 1e3, 1 + i / 1e3, f"a model with a long name {i}") for i in range(20)
    )
    figure = drawn(Chart("a", "Crowded", "points", "x", "y", (Series("measured", points),)))
    names = {text.get_text() for text in labels(figure)}
    assert names <= {point.label for point in points} | {str(n) for n in range(1, 21)}
    assert names


@pytest.mark.parametrize("kind", ["points", "lines", "bars"])
def test_text_can_be_read_at_the_width_of_a_column(kind: str) -> None:
    chart = scatter(0)
    series = tuple(
        Series(s.name, tuple(Point(p.x, n, p.label, p.deviation) for n, p in enumerate(s.points)))
        for s in chart.series
    )
    figure = drawn(Chart("a", "Title", kind, "GFLOPs", "y", series))
    assert figure.get_figwidth() == WIDTH == 3.5
    assert TEXT >= 8
    assert {text.get_fontsize() for text in written(figure)} == {TEXT}


def test_series_are_told_apart_without_colours() -> None:
    series = [Series(f"s{n}", (Point(0, n), Point(1, n)), line=True) for n in range(10)]
    series.append(Series("published", (Point(0, 1),), published=True))
    axes = drawn(Chart("a", "Lines", "lines", "x", "y", tuple(series))).axes[0]
    styles = [(line.get_marker(), str(line._unscaled_dash_pattern)) for line in axes.lines]
    assert len({marker for marker, _ in styles}) == 9
    assert len(set(styles)) == 11
    published = axes.lines[-1]
    assert (published.get_markerfacecolor(), published.get_linestyle()) == ("none", "None")


def test_nothing_is_cut_off() -> None:
    long = (Point(1, 0, "a name that is long enough for two lines"), Point(2, 1, "b"))
    for chart in (scatter(0), Chart("a", "T", "bars", "x", "", (Series("m", long),))):
        figure = drawn(chart)
        covered = figure.get_tightbbox()  # inches
        assert min(covered.x0, covered.y0) > -0.01
        assert covered.x1 < figure.get_figwidth() + 0.01
        assert covered.y1 < figure.get_figheight() + 0.01


def test_pictures_are_written_as_png_and_svg_and_the_same_twice() -> None:
    first, second = (
        dict(render(scatter(0), ("png", "svg"))),
        dict(render(scatter(0), ("png", "svg"))),
    )
    assert first == second
    with Image.open(io.BytesIO(first["png"])) as image:
        assert image.width == round(WIDTH * DPI)
    assert first["svg"].startswith(b"<?xml")


def test_the_front_is_what_nothing_beats() -> None:
    points = scatter(1).series[0].points
    expected = {
        point
        for point in points
        if not any(
            (other.x <= point.x and other.y > point.y) or (other.x < point.x and other.y >= point.y)
            for other in points
        )
    }
    assert {*pareto(points)} == expected
    xs = [point.x for point in pareto(points)]
    assert xs == sorted(xs)


def test_scores_stand_over_costs_with_their_deviations(tmp_path: Path) -> None:
    for model, scores in {"pvt_tiny": (0.3, 0.34), "pvt_small": (0.5,)}.items():
        for seed, score in enumerate(scores):
            train(tmp_path, f"model={model}", f"seed={seed}", score=score)
    (table,) = report(tmp_path)
    charts = {chart.name: chart for chart in table_charts(table, "x-")}
    assert {*charts} == {"x-AP-gflops", "x-AP-params_m", "x-AP-seeds"}
    points = {point.label: point for point in charts["x-AP-gflops"].series[0].points}
    assert points["pvt_tiny"].x == COST["cost/gflops"]
    assert points["pvt_tiny"].y == pytest.approx(32)
    assert points["pvt_tiny"].deviation == pytest.approx(np.std([30, 34], ddof=1))
    assert points["pvt_small"].link == table.rows[-1].origins[0].link or points["pvt_small"].link
    bars = charts["x-AP-seeds"].series[0].points
    assert [(point.label, point.more) for point in bars] == [
        ("pvt_tiny", "n = 2"),
        ("pvt_small", "n = 1"),
    ]
    frame = charts["x-AP-gflops"].frame()
    assert sorted(frame["AP"].round(6)) == [32.0, 50.0]


def test_reduction_ratios_trade_along_a_line(tmp_path: Path) -> None:
    for ratios, gflops, score in (("[8,4,2,1]", 9.0, 0.4), ("[4,2,1,1]", 19.0, 0.5)):
        config = settings(TASK, "model=pvt_small", f"model.sr_ratios={ratios}")
        make_run(tmp_path, config, {**COST, "cost/gflops": gflops, "val/AP": score})
    train(tmp_path, "model=resnet18")
    (table,) = report(tmp_path)
    chart = next(chart for chart in table_charts(table) if chart.name == "AP-tradeoff")
    (line,) = chart.series
    assert (line.name, line.line) == ("pvt_small", True)
    assert [(p.label, p.x, p.y) for p in line.points] == [
        ("[8, 4, 2, 1]", 9.0, 40.0),
        ("[4, 2, 1, 1]", 19.0, 50.0),
    ]


def test_published_points_are_another_series(tmp_path: Path) -> None:
    for model in ("pvt_small", "resnet50"):
        config = settings(TASK, f"model={model}", "dataset=coco", "model.weights=imagenet")
        make_run(tmp_path, config, {**COST, "val/AP": 0.4}, digests={"model.weights": "d"})
    table = published_table(load_runs(tmp_path), load_layout("coco_retinanet"), "")
    charts = {chart.name: chart for chart in table_charts(table)}
    measured, published = charts["AP-params_m"].series
    assert (measured.published, published.published) == (False, True)
    assert len(measured.points) == 2
    assert ("PVT-Small pvt_small 1x", 34.2, 40.4) in {(p.label, p.x, p.y) for p in published.points}
    ours = charts["AP-gflops"]
    assert "Where no GFLOPs are published, ours are taken." in ours.note
    assert {p.x for p in ours.series[1].points} == {COST["cost/gflops"]}


def test_gflops_over_input_sizes_with_the_published_ones(tmp_path: Path) -> None:
    words = ("task=imagenet_classification", "mode=cost")
    for model, gflops in {"pvt_small": (3.8, 15.0), "resnet50": (4.1, 16.4)}.items():
        for side, value in zip((224, 448), gflops, strict=True):
            size = f"task.protocol.size=[{side},{side}]"
            make_run(tmp_path, settings(f"model={model}", *words, size), {"cost/gflops": value})
    make_run(tmp_path, settings("model=pvt_tiny", *words), {"cost/gflops": 1.9})
    (chart,) = size_charts(load_runs(tmp_path))
    lines = {series.name: series for series in chart.series}
    assert {*lines} == {"pvt_small", "resnet50", "published"}
    assert [(p.x, p.y) for p in lines["pvt_small"].points] == [(224, 3.8), (448, 15.0)]
    assert (224, 3.8) in {(p.x, p.y) for p in lines["published"].points}


def test_curves_and_classes_come_from_the_runs(tmp_path: Path) -> None:
    for seed, (model, scale) in enumerate((("pvt_tiny", 1.0), ("pvt_small", 2.0))):
        points = [(n, {"train/loss": scale / n, "train/images_seen": 4 * n}) for n in range(1, 6)]
        files = {"per_class.csv": f"class,AP,AP50,images\none,{scale / 4},1,3\ntwo,,1,0\n"}
        train(tmp_path, f"model={model}", score=0.3 + seed / 10, points=points, files=files)
    (table,) = report(tmp_path)
    loss, classes = run_charts(table, load_runs(tmp_path).source)
    assert [series.name for series in loss.series] == ["pvt_small", "pvt_tiny"]
    assert [(p.x, p.y) for p in loss.series[1].points] == [(4 * n, 1 / n) for n in range(1, 6)]
    assert (classes.kind, classes.x) == ("bars", "AP")
    shown = {series.name: [(p.label, p.x) for p in series.points] for series in classes.series}
    assert shown == {"pvt_small": [("one", 50.0)], "pvt_tiny": [("one", 25.0)]}


def test_of_many_curves_the_best_are_in_colours_and_the_legend_is_as_they_end(
    tmp_path: Path,
) -> None:
    for place, model in enumerate(MODELS[:10]):
        for seed in (0, 1):
            points = [
                (n, {"train/loss": (1 + place / 10) / n**2, "train/images_seen": 4 * n})
                for n in range(1, 5)
            ]
            train(
                tmp_path, f"model={model}", f"seed={seed}", score=0.3 + place / 100, points=points
            )
    (table,) = report(tmp_path)
    loss, *_ = run_charts(table, load_runs(tmp_path).source)
    figure = drawn(loss)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*MODELS[9:1:-1], "others"]
    lines = [(str(line.get_color()), line.get_label()) for line in figure.axes[0].lines]
    assert [label for colour, label in lines if colour == "0.8"] == ["others"] * 4
    assert len({*lines}) == 9
    assert len({colour for colour, _ in lines}) == 9
    assert len(lines) == 20
    # From 2 to 0.06: on a logarithmic axis, with plain numbers.
    assert figure.axes[0].get_yscale() == "log"
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels(which="both")]
    assert "0.1" in ticks
    assert not [text for text in ticks if "e" in text]
