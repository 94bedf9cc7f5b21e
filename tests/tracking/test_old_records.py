"""Records from before fingerprints covered images are neither lost nor taken for other ones."""

import json
from pathlib import Path

import pytest
from ade20k_tree import write_ade20k_tree
from coco_tree import write_coco_tree
from conftest import Command
from test_fingerprints import flip_byte

from pvt_bench import names, records
from pvt_bench.builders import open_data
from pvt_bench.config.command_line import compose_cells
from pvt_bench.errors import InputError
from pvt_bench.identity import first_identity, read_keys
from pvt_bench.tracking.record import Record

DETR = (
    "model=resnet18", "task=coco_detr", "dataset=coco", "schedule.steps=1",
    "schedule.batch_size=2", "schedule.epochs=null",
)  # fmt: skip


class Made:
    """A command on a tree, and the record that an older version made of it."""

    def __init__(self, tmp_path: Path, root: Path, *words: str) -> None:
        self.words = [*words, f"dataset.root={root}", f"results_dir={tmp_path}/results"]
        config, data = self.compose()
        former = {f"dataset.{split}": view.former_fingerprint for split, view in data.items()}
        keys = read_keys(config)
        keys["task"].pop("revision", None)
        label = names.label(config)
        key = first_identity(keys, former)
        with Record.open(keys, config.results_dir, label, key) as record:
            record.update(state="finished", result={"val/AP": 0.4})
            self.directory = record.directory

    def compose(self, *words: str):
        config = compose_cells([*self.words, *words])[0].config
        return config, open_data(config)

    def open(self, *words: str) -> Path:
        """The record of the command today."""
        with records.open_record(*self.compose(*words)) as record:
            return record.directory


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco_tree(tmp_path / "coco")


@pytest.fixture
def old(tmp_path: Path, coco: Path) -> Made:
    return Made(tmp_path, coco, *DETR)


def test_the_user_is_asked_first(old: Made) -> None:
    with pytest.raises(InputError, match="old_records=keep") as raised:
        old.open()
    assert str(old.directory) in str(raised.value)
    with pytest.raises(InputError, match="old_records=ignore"):
        records.find_record(*old.compose())


def test_a_record_that_is_kept_is_that_of_the_same_images_alone(old: Made, coco: Path) -> None:
    assert old.open("old_records=keep") == old.directory
    assert old.open() == old.directory
    assert records.find_record(*old.compose()) == old.directory
    victim = coco / "val2017/000000000001.jpg"
    flip_byte(victim, victim.stat().st_size - 3)
    assert old.open() != old.directory
    assert json.loads((old.directory / "status.json").read_text())["state"] == "finished"


def test_a_record_that_is_ignored_stays_and_a_new_one_begins(old: Made, capsys) -> None:
    new = old.open("old_records=ignore")
    assert new != old.directory
    assert old.directory.exists()
    assert f"is left as it is (old_records=ignore): {old.directory}" in capsys.readouterr().out
    # From now on the command has a record of its own.
    assert old.open() == old.open("old_records=keep") == new


def test_names_and_sizes_of_images_are_enough(tmp_path: Path, capsys) -> None:
    root = write_ade20k_tree(tmp_path / "ade20k")
    words = ("model=resnet18", "task=ade20k_trans2seg", "dataset=ade20k")
    old = Made(tmp_path, root, *words)
    assert old.open() == old.directory
    assert (
        f"taken over, since names and sizes of its images are those of today: {old.directory}"
        in (capsys.readouterr().out)
    )


def test_a_record_of_an_older_network_is_another_run(tmp_path: Path, coco: Path, capsys) -> None:
    words = [word.replace("detr", "retinanet") for word in DETR]
    old = Made(tmp_path, coco, *words)
    assert old.open("old_records=keep") != old.directory
    assert str(old.directory) in capsys.readouterr().out
    assert old.directory.exists()


def test_the_command_asks_before_it_trains(
    old: Made, command: Command, tmp_path: Path, empty_store: Path
) -> None:
    refused = command(*old.words)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: There is an older record of this command")
    swept = command("-m", *old.words, "seed=0,1")
    assert swept.returncode == 2
    assert "1 of 2 cells cannot run, and nothing was queued" in swept.stderr
    assert [path.parent for path in tmp_path.glob("results/runs/*/*/*/status.json")] == [
        old.directory
    ]


class First:
    """A command on the built-in data, and the record of version 1 that was made by it."""

    def __init__(self, tmp_path: Path, digits: Path) -> None:
        self.words = [
            "model=lenet5", "task=imagenet_classification", "dataset=digits",
            f"dataset.root={digits}", f"results_dir={tmp_path}/results", "schedule.steps=2",
        ]  # fmt: skip
        config, data = self.compose()
        wanted = records.describe(config, data)
        key = first_identity(wanted.keys, wanted.content)
        assert key != wanted.identity
        with Record.open(wanted.keys, config.results_dir, wanted.label, key) as record:
            record.update(state="finished", result={"val/top1": 0.4})
            self.directory = record.directory

    def compose(self, *words: str):
        config = compose_cells([*self.words, *words])[0].config
        return config, open_data(config)


@pytest.fixture
def first(tmp_path: Path, digits: Path) -> First:
    return First(tmp_path, digits)


def test_a_record_of_the_first_version_is_that_of_the_same_command(first: First) -> None:
    assert records.find_record(*first.compose()) == first.directory
    with records.open_record(*first.compose()) as record:
        assert record.directory == first.directory
        assert record.status["result"] == {"val/top1": 0.4}
    for word in ("seed=1", "schedule.lr=0.5", "schedule.steps=3"):
        assert records.find_record(*first.compose(word)) != first.directory


def test_a_rerun_starts_over_in_its_place(first: First) -> None:
    with records.open_record(*first.compose("rerun=true")) as record:
        assert record.directory == first.directory
        assert record.status["state"] == "queued"
    assert records.find_record(*first.compose()) == first.directory


def test_a_damaged_record_beside_it_is_no_hindrance(first: First) -> None:
    beside = first.directory.with_name(f"{first.directory.name[:-10]}{'0' * 10}")
    beside.mkdir()
    (beside / "config.yaml").write_text("[")
    (beside / "status.json").write_text("null")
    assert records.find_record(*first.compose()) == first.directory
