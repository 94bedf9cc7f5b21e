"""Whatever a foreign file holds is read, or refused by the name of the file."""

import io
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty_trees import (
    TRAIN,
    VAL,
    claim_size,
    cut,
    save_noise,
    write_dds,
    write_heic,
    write_plain_coco,
)
from imagenet_tree import WNIDS, write_imagenet_tree
from PIL import Image, features
from test_imagenet import _imagenet

from pvt_bench.datasets.ade20k.reader import class_names
from pvt_bench.datasets.coco.annotations import read_annotations
from pvt_bench.datasets.faults.images import Job, inspect
from pvt_bench.datasets.image_files import open_image
from pvt_bench.errors import InputError
from pvt_bench.screen import say

# Images.


def images() -> Iterator[bytes]:
    """An image in each format and mode that Pillow writes."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "RGBA", "I;16"):
            file = io.BytesIO()
            try:
                Image.fromarray(pixels).convert(mode).save(file, kind)
            except (AttributeError, KeyError, OSError, ValueError):
                continue  # the format has no such mode
            yield file.getvalue()


def damage(content: bytes, draw: random.Random) -> bytes:
    """Change a few bytes, most of them in the header, and perhaps cut the end off."""
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        reach = 200 if draw.random() < 0.7 else len(damaged)
        damaged[draw.randrange(min(len(damaged), reach))] = draw.choice([0, 1, 127, 128, 255])
    return bytes(damaged[: draw.randrange(1, len(damaged))] if draw.random() < 0.2 else damaged)


@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_read_or_refused(tmp_path: Path) -> None:
    """By the reader with the file's name, by the check as a fault of it."""
    path = tmp_path / "image"
    draw = random.Random(0)
    refusals: list[str] = []
    read = 0
    for content in images():
        for _ in range(4):
            path.write_bytes(damage(content, draw))
            assert {fault.where for fault in inspect(Job(tmp_path, path.name))} <= {path.name}
            try:
                read += open_image(path).mode == "RGB"
            except InputError as error:
                refusals.append(str(error))
    assert all(str(path) in each for each in refusals)
    assert read > 50
    assert len(refusals) > 50


def test_a_large_image_is_read_without_a_warning(tmp_path: Path) -> None:
    """Of more pixels than Pillow takes for harmless."""
    path = tmp_path / "aerial.png"
    Image.new("1", (10_000, 9_500)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path).size == (10_000, 9_500)
        assert {fault.kind.severity for fault in inspect(Job(tmp_path, path.name))} == {"note"}


UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "huge": (claim_size, "cut it into tiles"),
    "bomb": (lambda path: claim_size(path, 60_000, 60_000), "cut it into tiles"),
    "DDS": (write_dds, "Convert it to PNG or JPEG"),
    "HEIC": (write_heic, "Convert it to PNG or JPEG"),
    "cut": (cut, "copy or download it again"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_skipped_where_that_is_wanted(name: str, tmp_path: Path) -> None:
    spoil, words = UNREADABLE[name]
    root = write_imagenet_tree(tmp_path / "imagenet")
    victim = root / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    save_noise(victim, (100, 80))
    spoil(victim)
    strict = _imagenet(root).classification("train")
    place = strict.files.paths().index(f"{WNIDS[0]}/{victim.name}")
    with pytest.raises(InputError) as caught:
        strict[place]
    assert str(victim) in str(caught.value)
    assert words in str(caught.value)
    view = _imagenet(root, on_damaged="skip").classification("train")
    assert view[place][1]["image_id"] != place + 1
    assert view.damaged.nonzero().flatten().tolist() == [place]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.avif"
    Image.new("RGB", (40, 30), "red").save(path)
    assert open_image(path).size == (40, 30)
    cut(path)
    with pytest.raises(InputError, match="again"):
        open_image(path)


# Texts.


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_annotations_in_other_encodings_are_the_same(encoding: str, tmp_path: Path) -> None:
    path = write_plain_coco(tmp_path / "coco") / VAL
    expected = read_annotations(path, training=False).as_document()
    path.write_bytes(path.read_text().encode(encoding))
    assert read_annotations(path, training=False).as_document() == expected


JSONS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "a number": b"3",
    "Latin": '{"images": "é"}'.encode("latin-1"),
    "half of UTF-16": "[]".encode("utf-16")[:-1],
    "too deep": b"[" * 100_000,
    "a number of 5,000 digits": b"[" + b"9" * 5000 + b"]",
}


@pytest.mark.parametrize("name", JSONS)
def test_other_texts_in_place_of_annotations(name: str, tmp_path: Path) -> None:
    path = write_plain_coco(tmp_path / "coco") / TRAIN
    path.write_bytes(JSONS[name])
    with pytest.raises(InputError, match="JSON") as caught:
        read_annotations(path, training=True)
    assert TRAIN in str(caught.value)


def test_half_characters_are_refused_by_the_reader_too(tmp_path: Path) -> None:
    path = write_plain_coco(tmp_path / "coco") / VAL
    document = json.loads(path.read_text())
    document["images"][1]["file_name"] = "\ud800.jpg"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"entry 1 of 'images' \(no usable 'file_name'"):
        read_annotations(path, training=False)


TEXTS = {
    "LOC_synset_mapping.txt": "folders",
    "LOC_val_solution.csv": "kaggle",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "devkit",
    "ILSVRC2012_devkit_t12/data/meta.mat": "devkit",
}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\0" * 500, b"MATLAB 7.3 MAT-file" * 20])
@pytest.mark.parametrize("name", TEXTS)
def test_other_files_beside_the_images_of_imagenet(
    name: str, content: bytes, tmp_path: Path
) -> None:
    root = write_imagenet_tree(tmp_path / "imagenet", TEXTS[name])
    (root / name).write_bytes(content)
    if TEXTS[name] == "folders" and content.isascii():
        _imagenet(root).classification("val")  # which has a name for none of the classes
        return
    with pytest.raises(InputError) as caught:
        _imagenet(root).classification("val")
    assert Path(name).name in str(caught.value)


def test_names_of_classes_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "objectInfo150.txt").write_bytes("Idx\tName\n1\tcafé".encode("latin-1"))
    with pytest.raises(InputError, match=r"objectInfo150\.txt"):
        class_names(tmp_path)


def test_any_name_of_a_file_can_be_shown(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    say("left out: caf\udce9.txt")
    assert capsysbinary.readouterr().out == b"left out: caf\\udce9.txt\n"


def test_a_class_folder_that_is_not_utf8(tmp_path: Path) -> None:
    write_imagenet_tree(tmp_path)
    folder = tmp_path / "train" / WNIDS[0]
    folder.rename(f"{folder}{os.fsdecode(bytes([255]))}")
    with pytest.raises(InputError, match=r"class folder .*\\udcff is not UTF-8.*Rename the folder"):
        _imagenet(tmp_path).classification("train")
