import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from subprocess import run

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO

from pvt_bench.config.folders import config_dir
from pvt_bench.datasets.digits import reader as ours
from pvt_bench.datasets.digits import scenes as digit_scenes
from pvt_bench.datasets.digits.reader import Digits, compose_scenes, write_digits
from pvt_bench.errors import InputError
from pvt_bench.measure.average_precision import evaluate

# pycocotools is older than the second version of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


@pytest.fixture
def root(digits):
    return digits


def _digits(root):
    config = OmegaConf.load(config_dir() / "dataset" / "digits.yaml")
    config.results_dir = "somewhere"
    options = OmegaConf.to_container(config, resolve=True)
    assert options.pop("_target_") == "pvt_bench.datasets.digits.Digits"
    assert options["root"] == f"{options.pop('results_dir')}/datasets/digits-v{ours.VERSION}"
    return Digits(**options | {"root": str(root)})


def _document(root, split="train"):
    return json.loads((root / f"annotations/instances_{split}2017.json").read_text())


def test_both_splits_are_read_as_coco(root):
    dataset = _digits(root)
    train, val = dataset.detection("train", masks=True), dataset.detection("val", masks=True)
    assert len(train) + train.dropped["images without boxes"] == 1000
    assert len(val) == 200
    assert train.class_names == list(ours.NAMES)
    image, target = train[0]
    assert image.shape == (3, 96, 96)
    assert target["masks"].shape == (len(target["boxes"]), 96, 96)


def test_scenes_are_as_described(root):
    document = _document(root)
    crowds = [row for row in document["annotations"] if row["iscrowd"]]
    alone = [row for row in document["annotations"] if not row["iscrowd"]]
    sides = [max(row["bbox"][2:]) for row in alone]
    assert min(sides) == 24
    assert max(sides) == 56
    counts = np.bincount([row["image_id"] for row in alone], minlength=1001)[1:]
    assert (np.bincount(counts)[1:] > 100).all()
    assert len(np.bincount(counts)) == 5
    assert 5 <= (counts == 0).sum() <= 40
    assert 10 <= len(crowds) <= 60
    labels = np.bincount([row["category_id"] for row in alone])[1:]
    assert labels.min() > 0.7 * labels.mean()
    assert [row["id"] for row in document["annotations"]] == list(
        range(1, len(document["annotations"]) + 1)
    )


def test_boxes_are_tight_around_masks_and_do_not_overlap(root):
    document = _document(root)
    reference = COCO()
    reference.dataset = document
    reference.createIndex()
    for rows in reference.imgToAnns.values():
        covered = np.zeros((96, 96), int)
        for row in rows:
            y, x = np.nonzero(reference.annToMask(row))
            tight = [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
            assert row["bbox"] == tight
            assert row["area"] == len(y)
            covered[y.min() : y.max() + 1, x.min() : x.max() + 1] += 1
        assert covered.max() == 1


def test_strokes_stand_out_from_the_canvas(root):
    dataset = _digits(root).detection("val", masks=True)
    contrasts, brightness = [], []
    for image, target in dataset:
        grey = image.mean(0)
        for (left, top, right, bottom), mask in zip(
            target["boxes"].int().tolist(), target["masks"], strict=True
        ):
            inside = torch.zeros_like(mask)
            inside[top:bottom, left:right] = True
            contrasts.append((grey[mask].mean() - grey[inside & ~mask].mean()).item())
        brightness.append(grey.mean().item())
    # Strokes are lighter than their canvas by 0.3 to 0.5; edges and the clip to 1 take some of it.
    assert np.quantile(contrasts, 0.02) > 0.1
    # A uniform brightness from 0.1 to 0.5 deviates by 0.115.
    assert np.std(brightness) > 0.09


def test_digits_are_still_digits(root):
    """A classifier of the 8 x 8 images reads the drawn ones, shrunk back within their boxes."""
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = digit_scenes._load_digits("train")

    def shrink(mask):
        y, x = np.nonzero(mask)
        cut = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
        image = Image.fromarray(cut.astype(np.float32)).resize((8, 8), Image.Resampling.BOX)
        return np.asarray(image).ravel()

    classifier = KNeighborsClassifier(5).fit([shrink(i > 0.45) for i in images], labels)
    dataset = _digits(root).detection("val", masks=True)
    targets = [target for _, target in dataset]
    alone = [~target["iscrowd"] for target in targets]
    drawn = torch.cat([t["masks"][a] for t, a in zip(targets, alone, strict=True)]).numpy()
    labels = torch.cat([t["labels"][a] for t, a in zip(targets, alone, strict=True)])
    assert classifier.score([shrink(mask) for mask in drawn], labels) > 0.85


def test_no_digit_is_in_both_splits():
    train, val = (
        {image.tobytes() for image in digit_scenes._load_digits(s)[0]} for s in digit_scenes.SCENES
    )
    assert len(train) + len(val) == 1797
    assert not train & val


def test_the_same_bytes_every_time_and_in_every_process(root, tmp_path):
    code = "import sys; from pathlib import Path; from pvt_bench.datasets.digits.reader import *;"
    code += "write_digits(Path(sys.argv[1]))"
    run([sys.executable, "-c", code, str(tmp_path / "again")], check=True)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    # Scenes and their JSON; scenes, masks and names; crops and names.
    assert len(files) == 1200 + 2 + 2400 + 1 + 2337 + 468 + 1
    assert all((root / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(digit_scenes, "SCENES", {"train": 5, "val": 3})


@pytest.mark.usefixtures("small")
def test_writers_at_once_leave_one_whole_tree(tmp_path):
    target = tmp_path / "data" / "digits"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_digits, [target] * 4))
    assert [path.name for path in target.parent.iterdir()] == ["digits"]
    assert len(_digits(target).detection("val")) == 3


@pytest.mark.usefixtures("small")
def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def compose(split):
        yield from compose_scenes(split)
        raise KeyboardInterrupt

    monkeypatch.setattr(ours, "compose_scenes", compose)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_a_tree_of_the_user_is_read_as_it_is(tmp_path):
    write_digits(tmp_path / "mine")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _digits(tmp_path / "mine").detection("val")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no COCO tree"):
        _digits(tmp_path / "other").detection("val")
    with pytest.raises(InputError, match=r"ImageNet tree(.|\n)*delete the folder"):
        _digits(tmp_path / "other").classification("val")
    with pytest.raises(InputError, match="no ADE20K tree"):
        _digits(tmp_path / "other").segmentation("val")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*file/digits"):
        write_digits(tmp_path / "file" / "digits")


def test_every_digit_that_stands_alone_is_cut_out(root):
    dataset = _digits(root)
    for split, least in (("train", 1800), ("val", 450)):
        view = dataset.classification(split)
        assert len(view) >= least
        assert view.class_names == list(ours.NAMES)
        rows = [row for row in _document(root, split)["annotations"] if not row["iscrowd"]]
        expected = Counter(row["category_id"] - 1 for row in rows)
        assert Counter(view.files.labels.tolist()) == expected
    image, target = view[0]
    assert image.shape == (3, 64, 64)
    assert target["size"].tolist() == [64, 64]


def test_crops_show_their_digit(root):
    """In the middle of a crop is the digit that its folder says, in the colours of its scene."""
    document = _document(root, "val")
    for row in document["annotations"][::20]:
        if row["iscrowd"]:
            continue
        place = [r["id"] for r in document["annotations"] if r["image_id"] == row["image_id"]]
        name = f"scene_{row['image_id']:08d}_{place.index(row['id'])}.JPEG"
        (path,) = (root / "imagenet" / "val").glob(f"*/{name}")
        assert path.parent.name == ours.WNIDS[row["category_id"] - 1]
        x, y, width, height = row["bbox"]
        with Image.open(root / f"val2017/{row['image_id']:012d}.jpg") as scene:
            drawn = np.asarray(scene.crop((x, y, x + width, y + height)), float).mean((0, 1))
        with Image.open(path) as crop:
            cut = np.asarray(crop, float)
        assert cut.shape == (64, 64, 3)
        share = 1 - 1 / ours.CROP_MARGIN
        edge = round(64 * share / 2)
        middle = cut[edge:-edge, edge:-edge]
        middle = middle.mean((0, 1)) if abs(width - height) <= 3 else None
        assert middle is None or np.abs(middle - drawn).max() < 25


def test_segments_are_the_masks(root):
    """ADE20K's values 1 for the canvas and 2 to 11 for the digits; crowd regions are ignored."""
    dataset = _digits(root)
    view, boxes = dataset.segmentation("train"), dataset.detection("train", masks=True)
    assert view.class_names == ["canvas", *ours.NAMES]
    crowds = {r["image_id"] for r in _document(root)["annotations"] if r["iscrowd"]}
    place = {int(image_id): index for index, image_id in enumerate(boxes.image_ids)}
    for image_id in [*range(1, 40), *sorted(crowds)]:
        image, target = view[image_id - 1]
        segments = target["segments"]
        assert target["image_id"] == image_id
        assert (segments == 255).any() == (image_id in crowds)
        expected = torch.zeros(96, 96, dtype=torch.uint8)
        if image_id in place:
            scene, truth = boxes[place[image_id]]
            assert torch.equal(scene, image)
            for label, mask in zip(truth["labels"], truth["masks"], strict=True):
                expected[mask] = 1 + label.to(torch.uint8)
        counted = segments != 255
        assert torch.equal(segments[counted], expected[counted])
    scores = [dataset.segmentation("val")[i][1]["segments"].unique().tolist() for i in range(200)]
    assert set().union(*scores) <= {*range(11), 255}


def test_its_ground_truth_scores_one_against_itself(root):
    truth = _digits(root).detection("val").ground_truth
    keys = ("image_id", "category_id", "bbox", "segmentation")
    detections = [
        {key: row[key] for key in keys} | {"score": 1.0}
        for row in truth["annotations"]
        if not row["iscrowd"]
    ]
    assert evaluate(truth, detections).scores["AP"] == pytest.approx(1.0)
    assert evaluate(truth, detections, "segm").scores["AP"] == pytest.approx(1.0)
