"""What a reader takes and what it leaves out is said; data with nothing to learn is refused."""

import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ade20k_tree import write_ade20k_tree
from conftest import Command
from faulty_trees import rotate
from imagenet_tree import WNIDS, write_imagenet_tree
from PIL import Image

from pvt_bench.builders import open_data
from pvt_bench.config.command_line import compose_cells
from pvt_bench.datasets.image_files import DamagedImage, open_image
from pvt_bench.errors import InputError

WORDS = (
    "model=resnet18", "trainer.workers=0", "schedule.epochs=null", "schedule.steps=1",
    "schedule.batch_size=2",
)  # fmt: skip
CLASSES = (
    *WORDS, "task=imagenet_classification", "dataset=imagenet", "dataset.size=32",
    "dataset.test_resize=36", "schedule.mixup=0", "schedule.cutmix=0", "schedule.repeats=1",
    "schedule.warmup_epochs=0",
)  # fmt: skip
SCENES = (
    *WORDS, "task=ade20k_semantic_fpn", "dataset=ade20k", "dataset.shorter_side=64",
    "dataset.longer_side=128", "dataset.crop=64",
)  # fmt: skip


def views(words: tuple[str, ...], root: Path, *more: str) -> dict[str, Any]:
    """The opened data of a run, as it is before the first step."""
    words = (*words, f"dataset.root={root}", f"results_dir={root.parent}/results", *more)
    return open_data(compose_cells(list(words))[0].config)


def leave_behind(folder: Path) -> None:
    """What macOS, Windows and people leave beside images."""
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
        (folder / name).write_bytes(b"\0\5\26\7")


LEFT = ("._*", ".DS_Store", ".db", ".ini", ".txt")

# Classification.


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp", "gif", "ppm", "jp2"])
def test_every_format_of_pillow_is_read(suffix: str, tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "data")
    before = list(views(CLASSES, root)["val"])
    for path in [*root.glob("val/*/*.JPEG")]:
        with Image.open(path) as image:
            quality = {"lossless": True} if suffix == "webp" else {}
            image.save(path.with_suffix(f".{suffix}"), **quality)
        path.unlink()
    after = views(CLASSES, root)["val"]
    pairs = list(zip(before, after, strict=True))
    assert all(one[1]["label"] == two[1]["label"] for one, two in pairs)
    tolerance = 8 if suffix == "gif" else 0  # of 256 colours
    assert all((one[0].int() - two[0].int()).abs().max() <= tolerance for one, two in pairs)


def test_the_command_says_what_it_left_out(command: Command, tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "data")
    for wnid in WNIDS:
        leave_behind(root / "train" / wnid)
        with Image.open(root / f"train/{wnid}/{wnid}_0.JPEG") as image:
            image.save(root / f"train/{wnid}/more.webp")
    (root / "train/__MACOSX").mkdir()
    done = command(*CLASSES, f"dataset.root={root}")
    assert done.returncode == 0, done.stderr
    (line,) = [each for each in done.stdout.splitlines() if "left out of training" in each]
    assert {f"3 files {end}" for end in LEFT} == set(line.split(": ")[1].split(", "))


def test_one_class_is_refused(tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "data")
    for wnid in WNIDS[1:]:
        for split in ("train", "val"):
            (root / split / wnid).rename(tmp_path / f"{split}{wnid}")
    with pytest.raises(InputError, match="has one class, tench"):
        views(CLASSES, root)


def test_the_way_from_tiny_imagenet_can_be_typed(tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "tiny image net")
    expected = [int(target["label"]) for _, target in views(CLASSES, root)["val"]]
    lines = []
    for wnid in WNIDS:
        (root / "train" / wnid / "images").mkdir()
        for path in (root / "train" / wnid).glob("*.JPEG"):
            path.rename(path.parent / "images" / path.name)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for path in (root / "val" / wnid).iterdir():
            (root / "val/images").mkdir(exist_ok=True)
            path.rename(root / "val/images" / path.name)
            lines.append(f"{path.name}\t{wnid}\t0\t0\t9\t9")
        (root / "val" / wnid).rmdir()
    (root / "val/val_annotations.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match="Tiny ImageNet") as caught:
        views(CLASSES, root)
    subprocess.run(["sh", "-ec", str(caught.value).split("Run there: ")[1]], cwd=root, check=True)
    assert [int(target["label"]) for _, target in views(CLASSES, root)["val"]] == expected


# Semantic segmentation.


def repaint(root: Path, change: Callable[[np.ndarray], np.ndarray], split: str = "*") -> Path:
    """Change the values of all masks."""
    for path in root.glob(f"annotations/{split}/*.png"):
        with Image.open(path) as mask:
            values = np.array(mask)
        Image.fromarray(change(values).astype(np.uint8)).save(path)
    return root


NOTHING: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "0 and 255": (lambda v: np.where(v == 3, 255, 0), "no pixel of a class"),
    "0 and 1": (lambda v: (v == 3) * 1, "the pixels of one class only, 1"),
    "255 and 2": (lambda v: np.where(v == 3, 255, 2), "the pixels of one class only, 2"),
    "all 0": (lambda v: v * 0, "no pixel of a class"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_masks_with_nothing_to_learn_are_refused(name: str, tmp_path: Path) -> None:
    change, said = NOTHING[name]
    root = repaint(write_ade20k_tree(tmp_path / "data"), change, "training")
    with pytest.raises(InputError, match=said):
        views(SCENES, root)


def test_masks_of_0_and_255_through_the_command(
    command: Command, tmp_path: Path, results: Path
) -> None:
    root = repaint(write_ade20k_tree(tmp_path / "data"), NOTHING["0 and 255"][0])
    done = command(*SCENES, f"dataset.root={root}")
    assert done.returncode == 2
    assert "Their values are 0, 255. Expected 1 to 3 for the classes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(results.glob("runs/*/*/*"))


def test_classes_without_a_pixel_are_named(command: Command, tmp_path: Path) -> None:
    """The tree has no pixel of its second class."""
    root = write_ade20k_tree(tmp_path / "data")
    leave_behind(root / "images/training")
    (root / "images/validation/._ADE_val_00000001.jpg").write_bytes(b"\0\5\26\7")
    (root / "annotations/training/._ADE_train_00000001.png").write_bytes(b"\0\5\26\7")
    done = command(*SCENES, f"dataset.root={root}")
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "nothing in training is of 1 of 3 classes: building" in said
    assert "mIoU is over 2 of 3 classes: the validation has nothing of building" in said
    assert "2 files ._*" in said


@pytest.mark.parametrize(("images", "masks"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_pairs_may_be_composed_or_not(images: str, masks: str, tmp_path: Path) -> None:
    root = write_ade20k_tree(tmp_path / "data")
    for folder, form in (("images", images), ("annotations", masks)):
        for path in [*(root / folder).glob("*/*_00000001.*")]:
            path.rename(path.with_name(unicodedata.normalize(form, f"Ä{path.name}")))
    assert len(views(SCENES, root)["val"]) == 3


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    root = write_ade20k_tree(tmp_path / "data")
    path = root / "images/training/ADE_train_00000001.jpg"
    path.with_suffix(".webp").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="have one name but for its end"):
        views(SCENES, root)


def test_images_turned_by_exif_beside_masks_that_are_not(tmp_path: Path) -> None:
    root = write_ade20k_tree(tmp_path / "data")
    for path in root.glob("images/*/*.jpg"):
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(path) as image:
            image.load()
            image.save(path, exif=exif)
    with pytest.raises(InputError, match=r"use dataset\.exif=ignore"):
        views(SCENES, root)
    assert len(views(SCENES, root, "dataset.exif=ignore")["val"]) == 3


# Images of more than 8 bits.

GREY = np.full((32, 32), 20, np.uint8)
GREY[8:24, 8:24] = 220
READ: dict[str, tuple[np.ndarray, str, int | None]] = {
    "16 bits": (GREY.astype(np.uint16) * 257, "png", None),
    "16 bits, big endian": ((GREY.astype(np.uint16) * 257).astype(">u2"), "tif", None),
    "32 bits of 8": (GREY.astype(np.int32), "tif", None),
    "32 bits of 16": (GREY.astype(np.int32) * 257, "tif", None),
    "12 bits in 16": (GREY.astype(np.uint16) * 16, "png", 12),
    "12 bits in a TIFF": (GREY.astype(np.uint16) * 16, "tif", 12),
    "10 bits in 32": (GREY.astype(np.int32) * 4, "tif", 10),
    "dark 16 bits": (GREY.astype(np.uint16) // 20 * 256, "png", 16),
    "fractions to 1": (GREY.astype(np.float32) / 255, "tif", None),
    "fractions to 255": (GREY.astype(np.float32), "tif", None),
    "two values": (GREY > 100, "png", None),
}


@pytest.mark.parametrize("name", READ)
def test_deep_images_keep_their_content(name: str, tmp_path: Path) -> None:
    values, suffix, bits = READ[name]
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    expected = {"dark 16 bits": GREY // 20, "two values": (GREY > 100) * 255}.get(name, GREY)
    read = np.asarray(open_image(path, bits=bits))
    assert np.array_equal(read, np.repeat(expected[..., None], 3, axis=2))


REFUSED: dict[str, tuple[np.ndarray, str, int | None]] = {
    "12 bits in 16": (GREY.astype(np.uint16) * 16, "png", None),
    "one value left": (GREY.astype(np.uint16) // 20 + 40_000, "png", None),
    "negative": (GREY.astype(np.int32) - 100, "tif", None),
    "32 bits": (GREY.astype(np.int32) * 100_000, "tif", None),
    "more than 12 bits": (GREY.astype(np.uint16) * 257, "png", 12),
    "fractions beyond": (GREY.astype(np.float32) * 3, "tif", None),
    "infinite": (np.where(GREY > 100, np.inf, GREY).astype(np.float32), "tif", None),
    "no number": (np.where(GREY > 100, np.nan, GREY).astype(np.float32), "tif", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_deep_images_of_unknown_range_are_refused(name: str, tmp_path: Path) -> None:
    values, suffix, bits = REFUSED[name]
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path)
    with pytest.raises(InputError, match=r"dataset\.bits=12") as caught:
        open_image(path, bits=bits)
    assert not isinstance(caught.value, DamagedImage)  # which training may skip


@pytest.mark.parametrize("bits", ["3", "0", "40", "twelve", "12.5"])
def test_bits_that_no_image_has_are_refused(bits: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.bits"):
        views(CLASSES, write_imagenet_tree(tmp_path / "data"), f"dataset.bits={bits}")


def test_12_bits_through_the_command(command: Command, tmp_path: Path, results: Path) -> None:
    root = write_imagenet_tree(tmp_path / "data")
    for number, path in enumerate(sorted(root.glob("*/*/*.JPEG"))):
        Image.fromarray(GREY.astype(np.uint16) * 16).save(path.with_suffix(".png"))
        path.unlink()
        assert number < 20
    done = command(*CLASSES, f"dataset.root={root}")
    assert done.returncode == 2
    assert re.search(r"has values from 320 to 3520 .* Use dataset\.bits=12", done.stderr)
    assert not list(results.glob("runs/*/*/*"))
    image, _ = views(CLASSES, root, "dataset.bits=12")["val"][0]
    assert image.max() == pytest.approx(220 / 255, abs=0.03)


def test_images_of_classes_as_they_are_stored(tmp_path: Path) -> None:
    root = write_imagenet_tree(tmp_path / "data")
    (path,) = [*root.glob("val/*/*_00000001.JPEG")]
    rotate(path)
    upright, stored = (
        views(CLASSES, root, f"dataset.exif={exif}")["val"][0][0] for exif in ("apply", "ignore")
    )
    assert not torch.equal(upright, stored)
