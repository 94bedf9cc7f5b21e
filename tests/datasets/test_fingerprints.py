"""Data is told apart by what is read of it, wherever it lies and whenever it was written."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from ade20k_tree import write_ade20k_tree
from coco_tree import write_coco_tree
from conftest import Command
from imagenet_tree import write_imagenet_tree

from pvt_bench.builders import open_data
from pvt_bench.config.command_line import compose_cells
from pvt_bench.datasets import fingerprints
from pvt_bench.datasets.coco.annotations import read_annotations
from pvt_bench.datasets.fingerprints import fingerprint, full_digest
from pvt_bench.errors import InputError

FILES = ["a.jpg", "deep/b.jpg", "c.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small files and one of which only a sample is read."""
    for number, name in enumerate(FILES):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (1_000_000 if name == "c.jpg" else 100))
    return tmp_path / "files"


def flip_byte(path: Path, place: int) -> None:
    """Change a byte in place; size and time of the file stay."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def of(folder: Path, files: list[str] = FILES, labels: str = "", index: Path | None = None) -> str:
    return fingerprint(labels, folder, files, index)


def test_neither_place_nor_time_counts(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copyfile)
    os.utime(copied / "a.jpg", (1, 1))
    assert of(copied) == of(folder)


@pytest.mark.parametrize(
    ("name", "place"), [("a.jpg", 50), ("c.jpg", 0), ("c.jpg", 999_999), ("c.jpg", 500_000)]
)
def test_content_counts(folder: Path, name: str, place: int) -> None:
    before = of(folder)
    if place == 500_000:  # the start of the eighth of sixteen blocks
        place = 7 * (1_000_000 - fingerprints.BLOCK) // (fingerprints.BLOCKS - 1)
    flip_byte(folder / name, place)
    assert of(folder) != before


def test_order_size_and_labels_count(folder: Path) -> None:
    before = of(folder)
    assert of(folder, FILES[::-1]) != before
    assert of(folder, labels="others") != before
    (folder / "c.jpg").write_bytes(b"\2" * 1_000_001)
    assert of(folder) != before


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Few files count as many; the files of which samples were read."""
    monkeypatch.setattr(fingerprints, "MANY", 1)
    read: list[Path] = []
    sample = fingerprints._sample
    monkeypatch.setattr(fingerprints, "_sample", lambda path: (read.append(path), sample(path))[1])
    return read


def test_many_files_are_read_once(folder: Path, tmp_path: Path, many: list[Path]) -> None:
    index = tmp_path / "index"
    first = of(folder, index=index)
    assert len(many) == 3
    assert of(folder, index=index) == first == of(folder)
    assert len(many) == 6  # three of them without the index


def test_a_change_in_place_is_noticed(folder: Path, tmp_path: Path, many: list[Path]) -> None:
    index = tmp_path / "index"
    before = of(folder, index=index)
    flip_byte(folder / "a.jpg", 3)
    assert of(folder, index=index) != before
    assert of(folder, index=index) == of(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg"):
        of(folder, [*FILES, "none.jpg"])


def test_the_full_digest_is_of_every_byte(folder: Path) -> None:
    files = [folder / name for name in FILES]
    single = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    before = full_digest(files)
    assert before == hashlib.sha256(b"".join(single)).hexdigest()
    flip_byte(folder / "c.jpg", 5_000)  # of no sample
    assert full_digest(files) != before


def test_annotations_of_equal_size_and_time_are_read_anew(tmp_path: Path) -> None:
    path = write_coco_tree(tmp_path / "coco") / "annotations/instances_val2017.json"
    before = read_annotations(path, training=False, index=tmp_path / "index")
    stat, text = path.stat(), path.read_text()
    path.write_text(text.replace("kind90", "kind91"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = read_annotations(path, training=False, index=tmp_path / "index")
    assert before.categories == ["kind1", "kind3", "kind90"]
    assert after.categories == ["kind1", "kind3", "kind91"]


# A tree of each layout, the task that reads it, and an image and a label of its validation.
TREES = {
    "coco": (write_coco_tree, "coco_retinanet", "val2017/000000000001.jpg"),
    "imagenet": (write_imagenet_tree, "imagenet_classification", "val/*/*.JPEG"),
    "ade20k": (write_ade20k_tree, "ade20k_semantic_fpn", "images/validation/*.jpg"),
}


@pytest.mark.parametrize("name", TREES)
def test_every_dataset_covers_its_images(name: str, tmp_path: Path) -> None:
    write, task, image = TREES[name]
    root = write(tmp_path / "first")
    copied = shutil.copytree(root, tmp_path / "second", copy_function=shutil.copyfile)

    def prints(place: Path) -> list[str]:
        words = ["model=resnet18", f"task={task}", f"dataset={name}", f"dataset.root={place}"]
        config = compose_cells([*words, f"results_dir={tmp_path}/results"])[0].config
        return [view.fingerprint for view in open_data(config).values()]

    before = prints(root)
    assert prints(copied) == before
    victim = sorted(copied.glob(image))[0]
    flip_byte(victim, victim.stat().st_size - 3)
    after = prints(copied)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_the_same_annotations_over_other_images_are_another_run(
    command: Command, tmp_path: Path, results: Path
) -> None:
    """As COCO-C, dehazed or re-exported images come: two rows, also in a sweep over the roots."""
    first = write_coco_tree(tmp_path / "a")
    second = shutil.copytree(first, tmp_path / "b")
    for path in second.glob("*2017/*.jpg"):
        flip_byte(path, path.stat().st_size - 3)
    words = (
        "model=resnet18", "task=coco_retinanet", "dataset=coco", "trainer=cpu", "trainer.workers=0",
        "dataset.shorter_side=32", "dataset.longer_side=64", "schedule.steps=1",
        "schedule.epochs=null", "schedule.batch_size=2", "schedule.milestones=[]",
    )  # fmt: skip
    alone = command(*words, f"dataset.root={first}")
    assert alone.returncode == 0, alone.stderr
    swept = command("-m", *words, f"dataset.root={first},{second}")
    assert swept.returncode == 0, swept.stderr
    done = [json.loads(path.read_text()) for path in results.glob("runs/*/*/*/status.json")]
    assert [(each["state"], each["attempt"]) for each in done] == [("finished", 1)] * 2
