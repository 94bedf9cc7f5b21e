"""The tables that runs make: every number from its record, seeds together, protocols apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import COST, TASK, make_run, read_result, report, settings, train

from pvt_bench.errors import InputError
from pvt_bench.report.tables.published import FIGURES
from pvt_bench.report.tables.rows import Row, Table


def texts(table: Table, row: Row) -> list[str]:
    return [cell.text for cell in table.cells(row)]


def test_every_number_is_that_of_its_record(tmp_path: Path) -> None:
    scores = {"resnet50": [0.301], "pvt_tiny": [0.41, 0.39, 0.42], "pvt_small": [0.5, 0.44]}
    records = {
        model: [
            train(tmp_path, f"model={model}", f"seed={seed}", score=score)
            for seed, score in enumerate(of_model)
        ]
        for model, of_model in scores.items()
    }
    (table,) = report(tmp_path)
    assert len(table.rows) == 3
    for row in table.rows:
        results = [read_result(directory) for directory in records[row.texts[0]]]
        assert {origin.link for origin in row.origins} == {*map(str, records[row.texts[0]])}
        for name in ("AP", "AP50"):
            numbers = 100 * np.array([result[FIGURES[name].metric] for result in results])
            value = row.values[name]
            assert value.n == len(numbers)
            assert value.mean == pytest.approx(numbers.mean(), abs=1e-9)
            if len(numbers) > 1:
                assert value.deviation == pytest.approx(numbers.std(ddof=1), abs=1e-9)
        assert row.values["params_m"].mean == COST["cost/params_m"]
        assert row.values["gflops"].mean == COST["cost/gflops"]
    shown = {row.texts[0]: texts(table, row) for row in table.rows}
    assert shown["resnet50"] == ["resnet50", "34.22", "285.80", "30.1", "40.1", "1"]
    assert shown["pvt_tiny"] == ["pvt_tiny", "34.22", "285.80", "40.7 ± 1.5", "50.7 ± 1.5", "3"]


def test_a_row_says_that_its_code_was_changed(tmp_path: Path) -> None:
    commits = {"pvt_tiny": f"{'c0ffee1' * 5}-dirty", "resnet50": "c0ffee1" * 5}
    for model, commit in commits.items():
        path = train(tmp_path, f"model={model}", score=0.4) / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": commit}))
    (table,) = report(tmp_path)
    shown = {row.texts[0]: row.origins[0].version for row in table.rows}
    assert shown == {"pvt_tiny": "c0ffee1-dirty", "resnet50": "c0ffee1"}


def test_the_best_of_a_column_stands_out(tmp_path: Path) -> None:
    for model, score in (("pvt_tiny", 0.4), ("pvt_small", 0.5), ("resnet18", 0.1)):
        train(tmp_path, f"model={model}", score=score)
    make_run(tmp_path, settings(TASK, "model=pvt_tiny", "mode=speed"), {"speed/latency_ms": 9.0})
    make_run(tmp_path, settings(TASK, "model=resnet18", "mode=speed"), {"speed/latency_ms": 5.0})
    (table,) = report(tmp_path)
    best = {
        (row.texts[0], heading)
        for row in table.rows
        for heading, cell in zip(table.headings, table.cells(row), strict=True)
        if cell.best
    }
    assert best >= {("pvt_small", "AP"), ("pvt_small", "AP50"), ("resnet18", "Latency (ms)")}
    assert not {("pvt_tiny", "AP"), ("resnet18", "AP"), ("pvt_tiny", "Latency (ms)")} & best
    assert "The best of a column is bold." in table.notes


def test_what_differs_within_a_model_makes_rows_and_columns(tmp_path: Path) -> None:
    for ratios in ("[8,4,2,1]", "[4,2,1,1]"):
        for seed in (0, 1):
            train(tmp_path, "model=pvt_small", f"model.sr_ratios={ratios}", f"seed={seed}")
    train(tmp_path, "model=pvt_tiny")
    (table,) = report(tmp_path)
    assert list(table.texts.values()) == ["model", "sr_ratios"]
    assert sorted(row.texts for row in table.rows) == [
        ("pvt_small", "[4, 2, 1, 1]"),
        ("pvt_small", "[8, 4, 2, 1]"),
        ("pvt_tiny", "[8, 4, 2, 1]"),
    ]
    assert sorted(row.n for row in table.rows) == [1, 2, 2]


def test_a_changed_model_never_passes_for_its_own(tmp_path: Path) -> None:
    train(tmp_path, "model=pvt_small", "model.sr_ratios=[4,2,1,1]")
    train(tmp_path, "model=resnet50")
    (table,) = report(tmp_path)
    assert list(table.texts.values()) == ["model"]
    assert table.remarks == ["pvt_small differs from its file: model.sr_ratios=[4, 2, 1, 1]."]


OTHER_PROTOCOLS = [
    ("schedule.name=other",),
    ("schedule.steps=100",),
    ("dataset.detection.shorter_side=64",),
    ("task.protocol.size=[640,960]",),
    ("task.protocol.num_classes=11",),
    ("+task.module.score=0.1",),
    ("mode=test", "weights=w.safetensors"),
    ("task=coco_mask_rcnn",),
    ("dataset=coco", "schedule=coco_retinanet_digits"),
]


@pytest.mark.parametrize("words", OTHER_PROTOCOLS, ids=" ".join)
def test_other_protocols_never_share_a_table(tmp_path: Path, words: tuple[str, ...]) -> None:
    train(tmp_path, "model=pvt_tiny")
    config = settings(TASK, "model=pvt_tiny", *words)
    digests = {"weights": "d"} if "mode=test" in words else None
    make_run(tmp_path, config, {**COST, "val/AP": 0.5}, digests=digests)
    apart = report(tmp_path)
    assert len(apart) == 2
    assert [len(table.rows) for table in apart] == [1, 1]
    assert apart[0].title != apart[1].title
    (mixed,) = report(tmp_path, "mixed=true")
    assert sorted(row.values["AP"].mean for row in mixed.rows) == [40.0, 50.0]
    assert any(note.startswith("These rows do not share one protocol") for note in mixed.notes)


def test_other_data_under_the_same_name_never_shares_a_table(tmp_path: Path) -> None:
    train(tmp_path, "model=pvt_tiny", digests={"evaluation": "a"})
    train(tmp_path, "model=pvt_small", digests={"evaluation": "b"})
    assert [len(table.rows) for table in report(tmp_path)] == [1, 1]


def test_costs_and_speeds_join_the_same_network_only(tmp_path: Path) -> None:
    scored = make_run(tmp_path, settings(TASK, "model=pvt_tiny"), {"val/AP": 0.4})
    changed = "model.sr_ratios=[4,2,1,1]"
    cost = make_run(tmp_path, settings(TASK, "model=pvt_tiny", "mode=cost"), COST)
    make_run(tmp_path, settings(TASK, "model=pvt_tiny", "mode=cost", changed), {"cost/gflops": 9.0})
    speed = {"speed/latency_ms": 7.5, "speed/images_per_s": 100.0}
    timed = make_run(tmp_path, settings(TASK, "model=pvt_tiny", "mode=speed"), speed, device="H200")
    scores, costs = report(tmp_path)
    (row,) = scores.rows
    assert {origin.link for origin in row.origins} == {str(scored), str(cost), str(timed)}
    assert (row.values["gflops"].mean, row.values["latency_ms"].mean) == (285.802, 7.5)
    assert any("at batch 1" in note and "on H200" in note for note in scores.notes)
    assert [each.values["gflops"].mean for each in costs.rows] == [9.0]


def test_speeds_of_two_devices_have_tables_of_their_own(tmp_path: Path) -> None:
    train(tmp_path, "model=pvt_tiny")
    for device in ("H200", "CPU"):
        config = settings(TASK, "model=pvt_tiny", "mode=speed")
        make_run(tmp_path, config, {"speed/latency_ms": 7.0}, device=device)
    titles = [table.title for table in report(tmp_path)]
    assert len(titles) == 3
    assert titles[1:] == ["coco_retinanet: speed on CPU", "coco_retinanet: speed on H200"]


def test_missing_is_missing_and_failed_is_failed(tmp_path: Path) -> None:
    train(tmp_path, "model=pvt_tiny", score=float("nan"))
    train(tmp_path, "model=pvt_small", "seed=0")
    for seed, state in ((1, "failed"), (2, "interrupted")):
        train(tmp_path, "model=pvt_small", f"seed={seed}", score=None, state=state)
    train(tmp_path, "model=resnet18", score=None, state="failed")
    make_run(tmp_path, settings(TASK, "model=resnet18", "mode=cost"), COST)
    (table,) = report(tmp_path, "columns=gflops,AP")
    shown = {row.texts[0]: texts(table, row)[1:] for row in table.rows}
    assert shown == {
        "pvt_tiny": ["finished", "285.80", "–"],
        "pvt_small": ["1 finished, 1 failed, 1 interrupted", "285.80", "40.0"],
        "resnet18": ["failed", "285.80", "–"],
    }
    assert table.remarks == ["Of the 3 runs of pvt_small: 1 failed, 1 interrupted."]


def test_rows_that_hide_a_difference_say_so(tmp_path: Path) -> None:
    for lr, score in ((1e-4, 0.3), (3e-4, 0.5)):
        train(tmp_path, "model=pvt_tiny", f"schedule.lr={lr}", score=score)
    (apart,) = report(tmp_path)
    assert list(apart.texts.values()) == ["model", "lr"]
    (together,) = report(tmp_path, "rows=model.name")
    assert texts(together, together.rows[0])[3] == "40.0 ± 14.1"
    assert "Some rows combine runs that differ in schedule.lr." in together.notes


def test_columns_sections_and_order_are_as_typed(tmp_path: Path) -> None:
    for model, optimizer, score in (
        ("resnet18", "sgd", 0.3), ("resnet101", "sgd", 0.5), ("pvt_tiny", "adamw", 0.4),
    ):  # fmt: skip
        words = (f"model={model}", f"schedule.optimizer={optimizer}", "schedule.lr=7e-4")
        train(tmp_path, *words, score=score, points=[(5, {"train/loss": 2 * score})])
    (table,) = report(
        tmp_path, "columns=AP,train/loss,schedule.lr", "by=schedule.optimizer", "sort=-AP"
    )
    assert table.headings == ["model", "lr", "AP", "train/loss"]
    sections = {name: [row.texts[0] for row in rows] for name, rows in table.sections}
    assert sections == {
        "schedule.optimizer sgd": ["resnet101", "resnet18"],
        "schedule.optimizer adamw": ["pvt_tiny"],
    }
    by_name = {row.texts[0]: texts(table, row) for row in table.rows}
    assert by_name["resnet101"] == ["resnet101", "0.0007", "50.0", "1.0000"]
    (sorted_by_name,) = report(tmp_path, "sort=model.name")
    names = [row.texts[0] for row in sorted_by_name.rows]
    assert names == ["pvt_tiny", "resnet18", "resnet101"]


@pytest.mark.parametrize(
    ("condition", "models"),
    [
        ("model.name=pvt_*", ["pvt_small", "pvt_tiny"]),
        ("model.name!=pvt_tiny", ["pvt_small", "resnet18"]),
        ("AP>35", ["pvt_small", "pvt_tiny"]),
        ("val/AP<=0.3", ["resnet18"]),
        ("schedule.lr=7e-4", ["pvt_small", "pvt_tiny", "resnet18"]),
        ("model.sr_ratios=[8,4,2,1]", ["pvt_small", "pvt_tiny"]),
        ("state=finished", ["pvt_small", "pvt_tiny", "resnet18"]),
        ("sweep=sizes-0a1b2c", ["pvt_small", "pvt_tiny"]),
        ("sweep=sizes", ["pvt_small", "pvt_tiny"]),
        ("sweep!=sizes", ["resnet18"]),
    ],
)
def test_conditions(tmp_path: Path, condition: str, models: list[str]) -> None:
    for model, score in (("pvt_tiny", 0.4), ("pvt_small", 0.5), ("resnet18", 0.3)):
        sweep = {"sweep": "sizes-0a1b2c" if model.startswith("pvt") else "others-3d4e5f"}
        train(tmp_path, f"model={model}", "schedule.lr=7e-4", score=score, tags=sweep)
    (table,) = report(tmp_path, f"where={condition}")
    assert sorted(row.texts[0] for row in table.rows) == models


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("where=model.nam=x", r"no run has that key. Did you mean model\.name"),
        ("where=AP", "is not a condition"),
        ("where=AP>high", "'high' is not a number"),
        ("where=seed=9", "none of the 1 runs meets it. They have 0"),
        ("columns=APP", "There is no column APP. Did you mean AP"),
        ("rows=model.nam", r"Did you mean model\.name"),
        ("by=schedul.name", r"Did you mean schedule\.name"),
        ("sort=gflop", "no table has that column. Did you mean gflops"),
        ("formats=md,pfd", "formats=pfd: unknown format. Choose one of: csv, html, md"),
    ],
)
def test_a_wrong_word_is_explained(tmp_path: Path, word: str, message: str) -> None:
    train(tmp_path, "model=pvt_tiny")
    with pytest.raises(InputError, match=message):
        report(tmp_path, word)
