"""Published tables filled from runs: only runs of their cells, every figure from the CSV."""

import re
from pathlib import Path

import pytest
from report_runs import COST, make_run, settings
from test_experiments import NAMES, cells

from pvt_bench.config.schema import data_dir
from pvt_bench.errors import InputError
from pvt_bench.report.sources.runs import canonical, flatten, load_runs
from pvt_bench.report.tables.beside import misses
from pvt_bench.report.tables.filling import published_table
from pvt_bench.report.tables.layouts import UNPUBLISHED, load_layout
from pvt_bench.report.tables.published import FIGURES
from pvt_bench.report.tables.rows import Row, Table
from pvt_bench.report.tables.settings import GROUPS, has_schedule
from pvt_bench.report.tables.settings import settings as cell_settings

TASK = "task=coco_retinanet"
ON_COCO = (TASK, "dataset=coco", "model.weights=imagenet")
PUBLISHED_AP = {"1x": "40.4", "3x": "42.2"}


def table_of(folder: Path, name: str = "coco_retinanet") -> Table:
    return published_table(load_runs(folder), name, "the command")


def rows_of(table: Table, model: str) -> dict[str, Row]:
    """The published rows of a model, by their schedules."""
    return {
        row.texts[2]: row
        for row in table.rows
        if row.texts[1] == model and row.section == "PVT, Table 3"
    }


def score(folder: Path, value: float, *words: str) -> Path:
    digests = {"model.weights": "d"} if "model.weights=imagenet" in words else None
    return make_run(
        folder, settings("model=pvt_small", *words), {**COST, "val/AP": value}, digests=digests
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_set_to_what_hydra_composes(name: str) -> None:
    """The files are read in Hydra's order: of each table, its first, middle and last cell."""
    task = load_layout(name).tasks
    words = [f"dataset={task[0].partition('_')[0]}"] if len(task) == 1 else []
    composed = cells(name, *words)
    for cell in {0: composed[0], 1: composed[len(composed) // 2], 2: composed[-1]}.values():
        dataset = cell.task.name.partition("_")[0]
        if cell.dataset.name != dataset:
            continue
        from pvt_bench.builders import plain

        keys = ("model.weights", "task.protocol.size", "dataset.index")  # swept, or a place
        whole = {key: str(value) for key, value in flatten({g: plain(cell)[g] for g in GROUPS})}
        ours = cell_settings(cell.task.name, cell.model.name, dataset, cell.schedule.name, True)
        assert ours is not None
        assert {k: v for k, v in ours.items() if k not in keys} == {
            k: canonical(v) for k, v in whole.items() if k not in keys
        }


def test_some_cell_of_a_table_without_a_task_is_compared() -> None:
    (cell,) = cells("pvt_v2", "task=coco_mask_rcnn", "model=pvt_v2_b4", "dataset=coco")
    assert cell.schedule.lr == pytest.approx(1.428571e-4)  # of the recipe on that data
    ours = cell_settings("coco_mask_rcnn", "pvt_v2_b4", "coco", None, True)
    assert ours is not None
    assert float(ours["schedule.lr"]) == cell.schedule.lr
    assert not has_schedule("ade20k_semantic_fpn", "320k")
    assert has_schedule("ade20k_semantic_fpn", "40k")


def test_every_published_figure_is_that_of_the_file(tmp_path: Path) -> None:
    make_run(tmp_path, settings("model=pvt_small", TASK, "mode=cost"), COST)
    for name in NAMES:
        layout, table = load_layout(name), table_of(tmp_path, name)
        published = [row for row in table.rows if row.section != UNPUBLISHED]
        agreed = layout.rows[layout.rows["section"] != UNPUBLISHED]
        assert 0 < len(agreed) == len(published)
        for (_, line), row in zip(agreed.iterrows(), published, strict=True):
            assert (row.section, row.texts[0]) == (line["section"], line["label"])
            shown = {figure: line.get(figure, "") for figure in layout.report.columns}
            assert row.published == shown


def test_a_cost_is_counted_for_every_schedule(tmp_path: Path) -> None:
    make_run(tmp_path, settings("model=pvt_small", TASK, "mode=cost"), COST)
    for row in rows_of(table_of(tmp_path), "pvt_small").values():
        assert row.values["params_m"].mean == COST["cost/params_m"]
        assert row.values["gflops"].mean == COST["cost/gflops"]
        assert row.values["params_m"].n == 1
    at_640 = settings("model=pvt_small", TASK, "mode=cost", "task.protocol.size=[640,960]")
    make_run(tmp_path, at_640, {"cost/gflops": 157.2})
    latency = published_table(load_runs(tmp_path), "latency", "")
    found = {row.texts[2]: row.values["gflops"].mean for row in latency.rows[1:]}
    assert found == {"1x": COST["cost/gflops"], "1x 640": 157.2}


def test_a_score_stands_in_the_row_of_its_schedule(tmp_path: Path) -> None:
    for seed, value in enumerate((0.401, 0.405, 0.409)):
        score(tmp_path, value, *ON_COCO, f"seed={seed}")
    score(tmp_path, 0.421, *ON_COCO, "schedule=coco_retinanet_3x")
    table = table_of(tmp_path)
    rows = rows_of(table, "pvt_small")
    assert {key: row.published["AP"] for key, row in rows.items()} == PUBLISHED_AP
    assert rows["1x"].values["AP"].mean == pytest.approx(40.5)
    assert rows["1x"].values["AP"].deviation == pytest.approx(0.4)
    assert rows["1x"].difference("AP") == pytest.approx(0.1)
    assert (rows["1x"].n, rows["3x"].values["AP"].mean) == (3, pytest.approx(42.1))
    assert not [row for row in table.rows if row.section == UNPUBLISHED]


@pytest.mark.parametrize(
    "words",
    [
        (*ON_COCO, "model.sr_ratios=[4,2,1,1]"),
        (*ON_COCO, "model.drop_path=0.3"),
        (*ON_COCO, "schedule.lr=1e-3"),
        (*ON_COCO, "dataset.shorter_side=400"),
        (*ON_COCO, "task.network.detections=10"),
        (TASK, "dataset=coco"),
    ],
    ids=lambda words: words[-1],
)
def test_a_run_that_was_set_to_anything_else_stands_nowhere(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    score(tmp_path, 0.5, *words)
    table = table_of(tmp_path)
    assert all(row.values["AP"].n == 0 for row in table.rows)
    # Its cost is that of the cell where the network is the same.
    left_out = any("set to anything else than its cells" in note for note in table.notes)
    assert left_out != bool(rows_of(table, "pvt_small")["1x"].values["gflops"].n)


def test_a_record_from_before_tasks_named_their_data(tmp_path: Path) -> None:
    config = settings("model=pvt_small", *ON_COCO)
    assert config["task"].pop("dataset") == "coco"
    make_run(tmp_path, config, {**COST, "val/AP": 0.4}, digests={"model.weights": "d"})
    assert rows_of(table_of(tmp_path), "pvt_small")["1x"].values["AP"].n == 1


def test_scores_on_other_data_stand_nowhere(tmp_path: Path) -> None:
    score(tmp_path, 0.9, TASK)
    table = table_of(tmp_path)
    assert all(row.values["AP"].n == 0 for row in table.rows)
    assert any("The scores of 1 runs on other data are left out" in note for note in table.notes)
    row = rows_of(table, "pvt_small")["1x"]
    assert row.values["gflops"].mean == COST["cost/gflops"], "its cost is that of the network"


def test_a_tested_network_stands_in_a_table_without_schedules(tmp_path: Path) -> None:
    words = ("model=pvt_small", "task=imagenet_classification", "dataset=imagenet")
    config = settings(*words, "mode=test", "weights=w.safetensors")
    make_run(tmp_path, config, {"val/top1": 0.798}, digests={"weights": "d"})
    (row,) = [row for row in table_of(tmp_path, "pvt_v2").rows if row.n]
    assert row.texts == ("PVTv1-Small", "pvt_small", "imagenet_classification")
    assert row.values["top1"].mean == pytest.approx(79.8)
    assert row.published["top1"] == "79.8"


def test_speeds_are_of_one_condition(tmp_path: Path) -> None:
    config = settings("model=pvt_small", TASK, "mode=speed")
    for device, latency in (("V100", 60.0), ("H200", 20.0)):
        make_run(tmp_path, config, {"speed/latency_ms": latency}, device=device)
    table = table_of(tmp_path, "latency")
    shown = {row.texts[2]: row.values["latency_ms"].mean for row in table.rows if row.n}
    assert set(shown.values()) in ({60.0}, {20.0})
    assert any("1 speeds under other conditions are left out" in note for note in table.notes)


def test_a_planted_wrong_score_is_missed(tmp_path: Path) -> None:
    layout = load_layout("coco_retinanet").report
    score(tmp_path, 0.409, *ON_COCO)  # half a point above the published 40.4
    sentences, compared = misses(layout, table_of(tmp_path), layout.tolerance)
    assert sentences == []
    assert compared == 2, "AP and the parameters"
    score(tmp_path, 0.385, *ON_COCO, "schedule=coco_retinanet_3x")
    sentences, _ = misses(layout, table_of(tmp_path), layout.tolerance)
    assert sentences == ["PVT, Table 3, PVT-Small pvt_small 3x: AP is 38.5, published 42.2."]
    assert misses(layout, table_of(tmp_path), 4.0)[0] == []


def test_a_planted_wrong_cost_is_missed(tmp_path: Path) -> None:
    layout = load_layout("imagenet").report
    words = ("task=imagenet_classification", "mode=cost")
    make_run(tmp_path, settings("model=resnet101", *words), {"cost/params_m": 44.549})
    assert misses(layout, table_of(tmp_path, "imagenet"), 0.5)[0] == [], "the gap explains it"
    make_run(tmp_path, settings("model=pvt_tiny", *words), {"cost/params_m": 14.2})
    sentences, _ = misses(layout, table_of(tmp_path, "imagenet"), 0.5)
    assert len(sentences) == 2, "of both papers' tables"
    assert re.search(r"PVT-Tiny pvt_tiny: Params \(M\) is 14\.20, published 13\.2\.", sentences[0])


def test_a_table_that_is_not_there_is_explained() -> None:
    with pytest.raises(InputError, match=r"There is no table=imagnet\. Did you mean imagenet"):
        load_layout("imagnet")


def test_layouts_name_figures(tmp_path: Path) -> None:
    for path in sorted(data_dir("experiments").glob("table/*.yaml")):
        layout = load_layout(path.stem).report
        assert {*layout.columns} <= {*FIGURES}
        assert 0 < layout.tolerance <= 1
