import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_tree import (
    CATEGORY_IDS,
    CMYK_IMAGE,
    CROWD_IMAGE,
    EMPTY_IMAGE,
    FLAT_BOX_ID,
    GREY_IMAGE,
    PALETTE_IMAGE,
    ROTATED_IMAGE,
    SIZES,
    UPRIGHT_SIZE,
    write_coco_tree,
)
from omegaconf import OmegaConf
from PIL import Image, ImageFile
from pycocotools.coco import COCO

from pvt_bench.config.registry import register
from pvt_bench.datasets.coco import annotations
from pvt_bench.datasets.coco.outlines import Outlines
from pvt_bench.datasets.coco.reader import Coco
from pvt_bench.datasets.images import read_image, resized_size
from pvt_bench.errors import InputError

# pycocotools is older than the second version of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

VAL = "annotations/instances_val2017.json"


@pytest.fixture
def root(tmp_path):
    return write_coco_tree(tmp_path / "coco")


def _coco(root, shorter_side=None, longer_side=None, flip=0.0):
    return Coco("coco", str(root), shorter_side, longer_side, flip)


def _edit(root, change, file=VAL):
    path = root / file
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _row(dataset, image_id):
    return dataset.image_ids.tolist().index(image_id)


def test_configuration_fits_the_class(root):
    config = OmegaConf.load(Path(__file__).parents[2] / "conf/dataset/coco.yaml")
    config.results_dir = str(root.parent)
    config.schedule = {"shorter_side": None, "longer_side": None}
    register()
    options = OmegaConf.to_container(config, resolve=True)
    assert options.pop("_target_") == "pvt_bench.datasets.coco.Coco"
    assert options["index"] == f"{options.pop('results_dir')}/datasets/index"
    del options["schedule"]
    dataset = Coco(**options | {"root": str(root)}).detection("val")
    image, target = dataset[0]
    assert image.shape == (3, 800, 1000)
    assert target["size"].tolist() == [80, 100]


def test_evaluation_keeps_every_image_and_training_those_with_usable_boxes(root):
    train, val = (_coco(root).detection(split) for split in ("train", "val"))
    assert val.image_ids.tolist() == list(range(1, 10))
    assert train.image_ids.tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    assert len(val) == 9
    assert len(train) == 8
    crowd_of = [view[_row(view, CROWD_IMAGE)][1]["iscrowd"].tolist() for view in (train, val)]
    assert crowd_of == [[False], [True, False]]
    assert val[_row(val, EMPTY_IMAGE)][1]["boxes"].shape == (0, 4)


def test_what_is_dropped_is_counted(root):
    def break_boxes(document):
        document["annotations"][0]["bbox"][2] = float("nan")
        document["annotations"][1]["bbox"][2] = float("inf")

    _edit(root, break_boxes, "annotations/instances_train2017.json")
    train, val = (_coco(root).detection(split) for split in ("train", "val"))
    assert list(train.dropped.values()) == [1, 2, 1, 1]
    assert list(val.dropped.values()) == [0, 0, 1, 0]
    assert FLAT_BOX_ID not in val.annotations.ids


def test_targets_are_those_of_the_file(root):
    dataset = _coco(root).detection("val")
    reference = COCO()
    reference.dataset = json.loads((root / VAL).read_text())
    reference.createIndex()
    for index, image_id in enumerate(dataset.image_ids):
        image, target = dataset[index]
        rows = [r for r in reference.imgToAnns[image_id] if r["id"] != FLAT_BOX_ID]
        assert target["image_id"].item() == image_id
        assert [dataset.category_ids[i] for i in target["labels"]] == [
            row["category_id"] for row in rows
        ]
        height, width = image.shape[-2:]
        for box, row in zip(target["boxes"].tolist(), rows, strict=True):
            x, y, w, h = row["bbox"]
            assert box == pytest.approx([x, y, min(x + w, width), min(y + h, height)])
    assert dataset.class_names == [f"kind{i}" for i in CATEGORY_IDS]
    assert dataset.category_ids == list(CATEGORY_IDS)
    assert dataset.num_classes == 3
    assert {target["labels"].dtype, target["image_id"].dtype, target["size"].dtype} == {torch.int64}
    assert target["boxes"].dtype == image.dtype == torch.float32


def test_masks_equal_pycocotools(root):
    dataset = _coco(root).detection("val", masks=True)
    reference = COCO()
    reference.dataset = dataset.ground_truth
    reference.createIndex()
    for index in range(len(dataset)):
        image, target = dataset[index]
        first, last = dataset.annotations.offsets[index : index + 2]
        assert target["masks"].dtype == torch.bool
        assert target["masks"].shape == (last - first, *image.shape[-2:])
        for mask, row in zip(target["masks"], dataset.annotations.ids[first:last], strict=True):
            assert np.array_equal(mask, reference.annToMask(reference.anns[row]))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_and_masks_follow_the_resized_and_flipped_image(root, flip):
    plain = _coco(root).detection("train", masks=True)
    dataset = _coco(root, 256, 400, flip).detection("train", masks=True)
    for (before, _), (image, target) in zip(plain, dataset, strict=True):
        assert image.shape[-2:] == resized_size(*target["size"].tolist(), 256, 400)
        assert 0 <= image.min() <= image.max() <= 1
        shrunk = torch.nn.functional.adaptive_avg_pool2d(image, before.shape[-2:])
        shrunk = shrunk.flip(-1) if flip else shrunk
        assert (shrunk - before).abs().mean() < 0.05
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            y, x = torch.nonzero(mask, as_tuple=True)
            tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            # A mask is known to half a pixel of the file, which is four to six of these.
            assert (tight - box).abs().max() <= 3


def test_evaluation_is_never_flipped(root):
    plain, flipping = (_coco(root, flip=flip).detection("val") for flip in (0.0, 1.0))
    assert torch.equal(plain[0][0], flipping[0][0])


def test_training_draws_one_of_several_sides_and_the_test_takes_the_last(root):
    coco = _coco(root, [64, 96, 128], 1000)
    torch.manual_seed(0)
    train, val = coco.detection("train"), coco.detection("val")
    drawn = {min(train[0][0].shape[-2:]) for _ in range(40)}
    assert drawn == {64, 96, 128}
    assert {min(image.shape[-2:]) for image, _ in val} == {128}


def _same(first, second):
    for (image, target), (other, others) in zip(first, second, strict=True):
        assert torch.equal(image, other)
        assert target.keys() == others.keys()
        assert all(torch.equal(target[key], others[key]) for key in target)
    for name in ("class_names", "category_ids", "dropped", "fingerprint"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_was_kept_is_what_the_file_says(root, tmp_path, monkeypatch, split):
    def view(index):
        return Coco("coco", str(root), None, None, 0.0, index).detection(split, masks=True)

    plain, index = view(None), str(tmp_path / "index")
    _same(plain, view(index))
    monkeypatch.setattr(annotations, "read_document", pytest.fail)
    _same(plain, view(index))
    monkeypatch.undo()
    _edit(
        root,
        lambda document: document["annotations"].pop(1),
        f"annotations/instances_{split}2017.json",
    )
    changed = view(index)
    assert changed.fingerprint != plain.fingerprint
    assert len(changed.annotations.ids) == len(plain.annotations.ids) - 1
    assert changed[0][1]["masks"].shape[0] == 2


def test_segmentations_are_kept_as_they_are():
    values = [
        [[1.1, 2.2, 3.3, 4.4, 510.66, 0.1]],
        [[1, 2, 3, 4, 5, 6], [7.5, 8, 9, 10, 11, 12.25]],
        {"size": [3, 4], "counts": [5, 7]},
        {"size": [3, 4], "counts": "abc"},
        None,
        [],
        [[]],
        [["a"]],
        [1, 2],
        "text",
    ]
    packed = Outlines.pack(values)
    assert len(packed) == len(values)
    assert [packed[row] for row in range(len(values))] == values


def test_a_damaged_image_may_be_skipped_in_training(root):
    for split in ("train", "val"):
        (root / f"{split}2017" / "000000000002.jpg").write_bytes(b"")
    coco = Coco("coco", str(root), None, None, 0.0, on_damaged="skip")
    train, val = coco.detection("train"), coco.detection("val")
    assert train[1][1]["image_id"] == 3
    assert train.damaged.nonzero().flatten().tolist() == [1]
    _raised(lambda: val[1], "000000000002.jpg", "cannot be read")


def test_flip_is_drawn_from_its_probability(root):
    dataset = _coco(root, flip=0.5).detection("train")
    torch.manual_seed(0)
    left = [dataset[0][1]["boxes"][0, 0].item() for _ in range(200)]
    assert sorted(set(left)) == [10.0, 60.0]
    assert 70 <= left.count(10.0) <= 130


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # As MMDetection and Detectron2 resize COCO's most frequent sizes.
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((640, 428), (1196, 800)),
        ((333, 500), (800, 1201)),
        ((200, 800), (333, 1333)),
        ((1600, 1200), (1067, 800)),
    ],
)
def test_resized_size(size, expected):
    assert resized_size(*size, 800, 1333) == expected
    assert resized_size(*size, None, None) == size


def test_images_of_every_mode_become_upright_rgb(root):
    dataset = _coco(root).detection("val")
    images = {i: dataset[_row(dataset, i)][0] for i in (GREY_IMAGE, PALETTE_IMAGE, CMYK_IMAGE)}
    for number, image in images.items():
        assert image.shape == (3, *SIZES[number - 1])
        assert image.std() > 0.1
    assert torch.equal(images[GREY_IMAGE][0], images[GREY_IMAGE][2])
    upright = dataset[_row(dataset, ROTATED_IMAGE)][0]
    assert upright.shape == (3, *UPRIGHT_SIZE)
    with Image.open(root / f"val2017/{ROTATED_IMAGE:012d}.jpg") as stored:
        turned = np.rot90(np.asarray(stored), -1)
    assert np.array_equal((upright * 255).round().byte().permute(1, 2, 0), turned)


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "1"])
def test_colours_survive_the_conversion(tmp_path, mode):
    colour = (255, 0, 0) if mode in ("CMYK", "P", "RGBA") else (255, 255, 255)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (16, 16), colour).convert(mode).save(path)
    assert (read_image(path).float().mean((1, 2)) - torch.tensor(colour)).abs().max() <= 3


def test_the_truth_is_that_of_the_file(root):
    """But for the box without height, all is there as in the file; by image, not in its order."""
    document = json.loads((root / VAL).read_text())
    truth = _coco(root).detection("val").ground_truth
    usable = [row for row in document["annotations"] if row["id"] != FLAT_BOX_ID]
    for part, rows in (("images", document["images"]), ("annotations", usable)):
        assert sorted(truth[part], key=lambda row: row["id"]) == rows
    assert truth["categories"] == sorted(document["categories"], key=lambda row: row["id"])


def test_survives_pickling(root):
    dataset = _coco(root).detection("train", masks=True)
    image, target = pickle.loads(pickle.dumps(dataset))[0]
    assert torch.equal(image, dataset[0][0])
    assert torch.equal(target["masks"], dataset[0][1]["masks"])


def test_file_names_may_lead_into_subfolders(root):
    (root / "val2017/more").mkdir()
    (root / "val2017/000000000001.jpg").rename(root / "val2017/more/first.jpg")
    _edit(root, lambda document: document["images"][0].update(file_name="more/first.jpg"))
    assert _coco(root).detection("val")[0][0].shape == (3, *SIZES[0])


def _raised(action, *words):
    with pytest.raises(InputError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


def test_a_missing_tree_says_what_is_expected_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.delenv("PVT_BENCH_DATA", raising=False)
    _raised(lambda: Coco("coco", None, None, None, 0), "PVT_BENCH_DATA", "dataset.root=/path")
    monkeypatch.setenv("PVT_BENCH_DATA", str(tmp_path))
    absent = ("There is no folder", "looks for coco/ in it", "dataset.root=/path", "dataset=digits")
    _raised(lambda: Coco("coco", None, None, None, 0), str(tmp_path / "coco"), *absent)
    (tmp_path / "coco").mkdir()
    words = ("train2017/", "instances_val2017.json", "dataset.root=/path", "dataset=digits")
    open_coco = Coco("coco", None, None, None, 0).detection
    _raised(lambda: open_coco("val"), str(tmp_path / "coco"), *words)
    (tmp_path / "coco").rmdir()
    write_coco_tree(tmp_path / "coco")
    assert Coco("coco", None, None, None, 0).root == tmp_path / "coco"
    (tmp_path / "coco" / VAL).unlink()
    _raised(lambda: Coco("coco", None, None, None, 0).detection("val"), f"{VAL} missing")


def test_other_views_and_splits_are_refused(root):
    coco = _coco(root)
    _raised(lambda: coco.classification("train"), "dataset=coco has no classification", "detection")
    _raised(lambda: coco.segmentation("train"), "no segmentation view")
    _raised(lambda: coco.detection("vall"), "'vall'", "val")


def test_missing_images_are_named_and_counted(root):
    for number in (2, 3, 4, 5):
        (root / f"val2017/{number:012d}.jpg").unlink()
    words = ("4 of 9 images", "000000000002.jpg", str(root / "val2017"))
    _raised(lambda: _coco(root).detection("val"), *words)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_an_image_cut_short_is_named(root, share, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    dataset = _coco(root).detection("val")
    path = root / "val2017/000000000003.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    _raised(lambda: dataset[2], str(path), "cannot be read")


def test_an_image_of_another_size_is_named(root):
    path = root / "val2017/000000000003.jpg"
    Image.new("RGB", (50, 60)).save(path)
    _raised(lambda: _coco(root).detection("val")[2], str(path), "50 x 60", "72 x 96")


def test_json_cut_short_is_named_with_the_position(root):
    content = (root / VAL).read_text()
    (root / VAL).write_text(content[:1000])
    _raised(lambda: _coco(root).detection("val"), VAL, "cut short", "char 1000", "again")
    (root / VAL).write_bytes(b"\xff\xfe\x00garbage")
    _raised(lambda: _coco(root).detection("val"), VAL, "JSON cut short or malformed")


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"images": []}', '{"images": [], "annotations": {}}']
)
def test_json_of_another_shape_is_named(root, content):
    (root / VAL).write_text(content)
    _raised(lambda: _coco(root).detection("val"), VAL, "JSON lacks a key", "the list")


@pytest.mark.parametrize(
    ("part", "row", "values", "words"),
    [
        (
            "annotations",
            4,
            {"category_id": 2},
            ["annotation 5", "category_id 2", "unknown category"],
        ),
        ("annotations", 4, {"category_id": 99}, ["annotation 5", "category_id 99"]),
        (
            "annotations",
            4,
            {"image_id": 10**12},
            ["annotation 5", f"image_id {10**12}", "unknown image"],
        ),
        ("annotations", 4, {"id": 2}, ["duplicate annotation id", f"{VAL} 2 (2 times)"]),
        (
            "annotations",
            4,
            {"bbox": [1, 2, 3]},
            ["malformed box", "annotation 5", "[1, 2, 3]", "Expected [x, y, w, h]"],
        ),
        ("images", 1, {"id": 1}, ["duplicate image id", f"{VAL} 1 (2 times)"]),
        ("images", 1, {"height": None}, ["entry 1 of 'images'", "'height'"]),
        ("categories", 1, {"id": 1}, ["duplicate category id", f"{VAL} 1 (2 times)"]),
        ("categories", 1, {"id": None}, ["'id'", "'categories'"]),
    ],
)
def test_unusable_entries_are_named(root, part, row, values, words):
    _edit(root, lambda document: document[part][row].update(values))
    _raised(lambda: _coco(root).detection("val"), VAL, *words)


def test_entries_that_are_missing_or_no_objects_are_named(root):
    _edit(root, lambda document: document["annotations"][3].pop("bbox"))
    _raised(lambda: _coco(root).detection("val"), "annotation 4", "malformed box")
    _edit(root, lambda document: document["images"].insert(2, "image"))
    _raised(lambda: _coco(root).detection("val"), "entry 2 of 'images'")


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        {"size": [80, 100], "counts": "abc"},
        {"size": [80, 100], "counts": [5, 5]},
        {"size": [8, 10], "counts": [0, 80]},
    ],
)
def test_an_unusable_mask_is_named(root, segmentation):
    _edit(root, lambda document: document["annotations"][1].update(segmentation=segmentation))
    assert len(_coco(root).detection("val")[0][1]["boxes"]) == 3
    dataset = _coco(root).detection("val", masks=True)
    _raised(lambda: dataset[0], VAL, "annotation 2", "polygons or run lengths")


def test_data_without_usable_boxes_is_refused(root):
    def empty(document):
        document["annotations"].clear()

    for split, file in (("val", VAL), ("train", "annotations/instances_train2017.json")):
        _edit(root, empty, file)
        _raised(lambda split=split: _coco(root).detection(split), f"no usable annotation: {file}")
