"""The files of tables and studies: every cell composes; a table joins with what was published."""

import re

import pytest
from omegaconf import DictConfig, OmegaConf

from pvt_bench.config.command_line import compose_cells, swept_keys
from pvt_bench.config.folders import config_dir, data_dir
from pvt_bench.launching.preparing import cell_name
from pvt_bench.report.tables.published import FIGURES, figures_of, load_published

NAMES = sorted(path.stem for path in data_dir("experiments").glob("table/*.yaml"))
PUBLISHED = sorted(path.stem for path in data_dir("results").glob("published/*.csv"))
MODELS = {path.stem for path in config_dir().glob("model/*.yaml")}
STUDIES = sorted(path.stem for path in data_dir("experiments").glob("sweep/*.yaml"))
TABLES = pytest.mark.parametrize("name", NAMES)


def layout(name: str) -> DictConfig:
    """The table's own file."""
    read = OmegaConf.load(data_dir("experiments") / "table" / f"{name}.yaml")
    assert isinstance(read, DictConfig)
    return read


def cells(name: str, *words: str) -> list[DictConfig]:
    """The composed cells of a table, as the command would run them."""
    return [cell.config for cell in compose_cells([f"table={name}", *words])]


def test_files_and_published_numbers_have_the_same_stems() -> None:
    assert NAMES == PUBLISHED
    assert {layout(name).report.published for name in NAMES} == set(NAMES)


@TABLES
def test_every_cell_composes_and_every_agreed_row_is_a_cell(name: str) -> None:
    """A row that is no cell says so in the gaps, or is named below."""
    report, published = layout(name).report, load_published(name)
    keys, gaps = ["model.name", *report.get("keys", [])], set(report.get("gaps", {}))
    measured = set()
    for cell in cells(name):
        assert cell.dataset.name == "digits", "the user chooses the dataset"
        assert (cell.schedule.epochs is None) != (cell.schedule.steps is None)
        assert OmegaConf.missing_keys(cell) == set()
        measured.add(tuple(str(OmegaConf.select(cell, key)) for key in keys))
    agreed = published[published["agreed"] == "yes"]
    for _, row in agreed.iterrows():
        explained = gaps & {row["model"], f"{row['section']}/{row['model']}"}
        assert row["model"] in MODELS or explained, row["label"]
        key = (row["model"], *(row[column] for column in keys[1:]))
        assert key in measured | NOT_SWEPT[name] or explained, f"{row['section']}: {key}"


# Agreed rows that the table's own comment or note sends elsewhere.
NOT_SWEPT = {name: set[tuple[str, ...]]() for name in NAMES} | {
    "coco_retinanet": {("pvt_small", "1x 640")},
    "ade20k_semantic_fpn": {(f"pvt_{s}", "40k") for s in ("tiny", "small", "medium", "large")},
    "pvt_v2": {
        (model, "imagenet_classification") for model in ("pvt_small", "pvt_v2_b2", "pvt_v2_b2_li")
    },
}


@TABLES
def test_columns_and_gaps_are_of_this_table(name: str) -> None:
    report, published = layout(name).report, load_published(name)
    assert set(report.columns) <= set(FIGURES)
    assert set(report.get("keys", [])) <= set(published.columns)
    assert set(report.columns) & set(figures_of(published))
    rows = {*published["model"], *(published["section"] + "/" + published["model"])}
    assert set(report.get("gaps", {})) <= rows


@TABLES
def test_the_file_begins_as_a_lab_note(name: str) -> None:
    """Which paper and table, what to type, and only choices that there are."""
    text = (data_dir("experiments") / "table" / f"{name}.yaml").read_text()
    note = text.partition("hydra:")[0]
    assert re.search(r"(Table|Figure) \d", note)
    assert f"python -m pvt_bench table={name}" in note
    for group, choice in re.findall(r"\b(task|schedule|dataset|table)=(\w+)", text):
        folder = data_dir("experiments") if group == "table" else config_dir()
        assert (folder / group / f"{choice}.yaml").is_file(), f"{group}={choice}"


@pytest.mark.parametrize("task", ["coco_retinanet", "coco_mask_rcnn", "ade20k_semantic_fpn"])
def test_the_smallest_cell_runs_on_digits(task: str) -> None:
    (cell,) = cells(task, "model=pvt_tiny", f"schedule={task}_digits")
    assert (cell.model.name, cell.schedule.name) == ("pvt_tiny", "digits")


def test_a_schedule_of_another_size_is_counted_at_it() -> None:
    sizes = {(cell.schedule.name, *cell.task.protocol.size) for cell in cells("latency")}
    assert sizes == {("1x", 800, 1280), ("1x 640", 640, 960)}
    assert {cell.mode for cell in cells("latency")} == {"speed"}


def test_published_parameters_count_the_same_weights_everywhere() -> None:
    """A backbone adds as much to one published detector as to another.

    Tables 3 and 4 of arXiv 2102.12122 and Table 3 of arXiv 2106.13797: the two heads differ by
    9.9 M with PVT's channels, and a slip of the pen in either file would break the sum.
    """
    retina = _params("coco_retinanet", "schedule.name", "1x")
    mask = _params("coco_mask_rcnn", "schedule.name", "1x")
    retina |= _params("pvt_v2", "task.name", "coco_retinanet")
    mask |= _params("pvt_v2", "task.name", "coco_mask_rcnn")
    shared = [model for model in retina if model.startswith("pvt") and model in mask]
    assert len(shared) == 11
    for model in set(shared) - {"pvt_v2_b0"}:
        assert mask[model] - retina[model] == pytest.approx(9.92, abs=0.11), model


def _params(name: str, column: str, value: str) -> dict[str, float]:
    table = load_published(name)
    rows = table[(table["agreed"] == "yes") & (table[column] == value) & (table["params_m"] != "")]
    return dict(zip(rows["model"], rows["params_m"].astype(float), strict=True))


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_a_study_composes(name: str) -> None:
    cells = compose_cells([f"sweep={name}"])
    configs = [cell.config for cell in cells]
    assert all(OmegaConf.missing_keys(config) == set() for config in configs)
    # Each cell is another run, which the summary tells apart by what was swept.
    names = [
        cell_name(config, swept_keys([cell.overrides for cell in cells])) for config in configs
    ]
    assert len(set(names)) == len(names) >= 5
    settings = [str(OmegaConf.to_container(config, resolve=True)) for config in configs]
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_begins_as_a_lab_note(name: str) -> None:
    """What it asks, what to type, what to expect; and every line to copy composes."""
    text = (data_dir("experiments") / "sweep" / f"{name}.yaml").read_text()
    note = text.partition("defaults:")[0]
    assert note.startswith("# @package _global_\n")
    assert "Expect" in note
    commands = re.findall(r"python -m pvt_bench (.*?)(?:\s{2,}|$)", note, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        words = command.split()
        assert words[0] == f"sweep={name}"
        assert compose_cells(words)


def test_the_study_of_reduction_ratios_has_plain_attention_and_the_published_ones() -> None:
    ratios: dict[str, set[str]] = {}
    for cell in compose_cells(["sweep=sr_ratios"]):
        typed = dict(word.split("=") for word in cell.overrides)
        ratios.setdefault(typed["model"], set()).add(typed["model.sr_ratios"])
    assert set(ratios) == {"pvt_small", "pvt_v2_b2"}
    for each in ratios.values():
        assert len(each) >= 8
        assert {"[1,1,1,1]", "[8,4,2,1]"} <= each
