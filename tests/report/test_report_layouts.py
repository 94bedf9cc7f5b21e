"""Published tables filled from runs: only runs of their cells, every figure from the CSV."""

import re
from pathlib import Path

import pytest
from report_runs import COST, make_run, settings
from test_experiments import NAMES, cells

from pvt_bench.config.folders import data_dir
from pvt_bench.errors import InputError
from pvt_bench.report.making import write_published_table
from pvt_bench.report.sources import cells as cells_of_tables
from pvt_bench.report.sources.cells import cell_settings
from pvt_bench.report.sources.runs import load_runs
from pvt_bench.report.tables.filling import published_table
from pvt_bench.report.tables.gaps import misses
from pvt_bench.report.tables.layouts import UNPUBLISHED, _schedule, load_layout
from pvt_bench.report.tables.published import FIGURES
from pvt_bench.report.tables.rows import Row, Table

TASK = "task=coco_retinanet"
ON_COCO = (TASK, "dataset=coco", "model.weights=imagenet")
PUBLISHED_AP = {"1x": "40.4", "3x": "42.2"}


def table_of(folder: Path, name: str = "coco_retinanet") -> Table:
    return published_table(load_runs(folder), load_layout(name), "the command")


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, and nothing known from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cells_of_tables._known.cache_clear()
    return tmp_path / "cache" / "pvt_bench"


MASK_RCNN = ("task=coco_mask_rcnn", "model=pvt_v2_b4", "dataset=coco")


def test_a_cell_is_composed_as_its_run_is() -> None:
    (run,) = cells("pvt_v2", *MASK_RCNN)
    with_recipe, without = cell_settings([MASK_RCNN, (*MASK_RCNN, "~recipe_on")])
    assert run.schedule.lr == pytest.approx(1.428571e-4)  # of the recipe on that data
    assert float(with_recipe["schedule.lr"]) == run.schedule.lr != float(without["schedule.lr"])


def test_cells_are_composed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cell_settings([MASK_RCNN])
    (file,) = cache.iterdir()
    cells_of_tables._known.cache_clear()
    monkeypatch.setattr(cells_of_tables, "compose_each", None)
    assert cell_settings([MASK_RCNN]) == first
    monkeypatch.setattr(cells_of_tables, "PACKAGES", ("omegaconf",))
    assert cells_of_tables._file().name != file.name


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_cache_is_composed_anew(cache: Path, content: str) -> None:
    first = cell_settings([MASK_RCNN])
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_text(content)
    cells_of_tables._known.cache_clear()
    assert cell_settings([MASK_RCNN]) == first
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.parent.write_text("a file in the place of the folder")
    assert cell_settings([MASK_RCNN])[0]["task.name"] == "coco_mask_rcnn"


def test_a_schedule_has_a_file_or_none() -> None:
    assert _schedule("ade20k_semantic_fpn", "320k") is None
    assert _schedule("ade20k_semantic_fpn", "40k") == "ade20k_semantic_fpn_40k"


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
    latency = published_table(load_runs(tmp_path), load_layout("latency"), "")
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
    left_out = any("with other settings than its cells" in note for note in table.notes)
    assert left_out != bool(rows_of(table, "pvt_small")["1x"].values["gflops"].n)


def test_the_command_admits_the_runs_that_the_report_admits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = ("model=pvt_small", TASK, "mode=cost")
    own = make_run(tmp_path, settings(*cost), COST)
    changed = make_run(tmp_path, settings(*cost, "model.sr_ratios=[4,2,1,1]"), COST)
    layout = load_layout("coco_retinanet")
    cells = {("pvt_small", "1x")}
    for records, left_out in (({own}, False), ({changed}, True), ({own, changed}, True)):
        paths = write_published_table(tmp_path, layout, "", cells, records)
        assert [path.name for path in paths] == ["coco_retinanet.md", "coco_retinanet.csv"]
        text = paths[0].read_text()
        assert text.count("34.22") == (own in records), "in the row of 1x alone"
        assert UNPUBLISHED not in text
        shown = " ".join(capsys.readouterr().out.split())
        assert ("with other settings than its cells" in shown) == left_out


def test_a_record_from_before_tasks_named_their_data(tmp_path: Path) -> None:
    config = settings("model=pvt_small", *ON_COCO)
    assert config["task"].pop("dataset") == "coco"
    make_run(tmp_path, config, {**COST, "val/AP": 0.4}, digests={"model.weights": "d"})
    assert rows_of(table_of(tmp_path), "pvt_small")["1x"].values["AP"].n == 1


def test_scores_on_other_data_stand_nowhere(tmp_path: Path) -> None:
    score(tmp_path, 0.9, TASK)
    table = table_of(tmp_path)
    assert all(row.values["AP"].n == 0 for row in table.rows)
    assert any("Scores on other data are ignored (1)" in note for note in table.notes)
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
    assert any("Speeds under other conditions are ignored (1)" in note for note in table.notes)


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


def test_a_table_of_the_users_own_search_path(tmp_path: Path, cache: Path) -> None:
    """Its cells are composed each time: the cache knows nothing of the user's files."""
    text = (data_dir("experiments") / "table" / "pretraining.yaml").read_text()
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "mine.yaml").write_text(text.replace("imagenet,null", "null,mine.pth"))
    report = load_layout("pretraining").report
    layout = load_layout("mine", report, [f"hydra.searchpath=[file://{tmp_path}]"])
    added = layout.rows[layout.rows["section"] == UNPUBLISHED]
    assert {*added["model.weights"]} == {"mine.pth"}
    (file,) = cache.iterdir()
    assert "table=pretraining" in file.read_text()
    assert "table=mine" not in file.read_text()


def test_a_table_that_is_not_there_is_explained() -> None:
    with pytest.raises(InputError, match=r"There is no table=imagnet\. Did you mean imagenet"):
        load_layout("imagnet")


def test_layouts_name_figures(tmp_path: Path) -> None:
    for path in sorted(data_dir("experiments").glob("table/*.yaml")):
        layout = load_layout(path.stem).report
        assert {*layout.columns} <= {*FIGURES}
        assert 0 < layout.tolerance <= 1
