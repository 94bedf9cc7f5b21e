import colorsys
import random

import numpy as np
import pytest
import torch
from ade20k_tree import NAMES, SIZES, write_ade20k_tree
from omegaconf import OmegaConf
from PIL import Image

from pvt_bench.config.folders import config_dir
from pvt_bench.datasets.ade20k import augmentation as augment
from pvt_bench.datasets.ade20k.reader import ADE20K, Resizing
from pvt_bench.datasets.images import MEAN
from pvt_bench.datasets.loading import Seeded
from pvt_bench.errors import InputError

AS_IT_IS = {
    "shorter_side": None,
    "resize_range": [1.0, 1.0],
    "flip": 0.0,
    "photometric_distortion": False,
}


@pytest.fixture
def root(tmp_path):
    return write_ade20k_tree(tmp_path / "ade20k")


def _ade20k(tree, **changes):
    config = OmegaConf.load(config_dir() / "dataset" / "ade20k.yaml")
    options = OmegaConf.to_container(config)
    assert options.pop("_target_") == "pvt_bench.datasets.ade20k.ADE20K"
    return ADE20K(**options | {"root": str(tree)} | changes)


def _raised(action, *words):
    with pytest.raises(InputError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


def _red(image):
    return (image[0] > 0.6) & (image[2] < 0.2)


def _blue(image):
    return (image[2] > 0.6) & (image[0] < 0.2)


def test_the_truth_of_the_test_has_the_files_size(root):
    view = _ade20k(root).segmentation("val")
    assert len(view) == len(SIZES)
    for index, (height, width) in enumerate(SIZES):
        image, target = view[index]
        expected = torch.full((height, width), 0, dtype=torch.uint8)
        expected[:, width // 2 :] = 2
        expected[:8] = 255
        assert torch.equal(target["segments"], expected)
        assert target["size"].tolist() == [height, width]
        assert target["image_id"] == index + 1
        assert {target["image_id"].dtype, target["size"].dtype} == {torch.int64}
        assert image.dtype == torch.float32


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # The most frequent sizes of ADE20K: 683 rounds up to 704.
        ((512, 683), (512, 704)),
        ((683, 512), (704, 512)),
        ((256, 256), (512, 512)),
        ((480, 640), (512, 704)),
        ((300, 2400), (256, 2048)),
        ((1500, 2000), (512, 704)),
    ],
)
def test_sizes_of_the_test(size, expected):
    assert Resizing(512, 2048, (0.5, 2.0), 512, 0.75, 32).test_size(*size) == expected


def test_sizes_of_the_training(root):
    resizing = Resizing(512, 2048, (0.5, 2.0), 512, 0.75, 32)
    random.seed(0)
    sides = [min(resizing.draw_size(480, 640)) for _ in range(2000)]
    assert min(sides) in range(256, 260)
    assert max(sides) in range(1020, 1025)
    assert abs(np.mean(sides) - 640) < 20
    height, width = resizing.draw_size(480, 640)
    assert abs(width / height - 4 / 3) < 0.01
    image, target = _ade20k(root).segmentation("train")[0]
    assert image.shape == (3, 512, 512)
    assert target["segments"].shape == (512, 512)
    assert target["size"].tolist() == list(SIZES[0])


def test_image_and_segments_stay_together(root):
    """Whatever is drawn, red pixels are wall and blue ones sky."""
    view = _ade20k(root, crop=96, photometric_distortion=False).segmentation("train")
    for number in range(40):
        random.seed(number)
        image, target = view[number % len(view)]
        segments = target["segments"]
        counted = segments != 255
        red, blue = _red(image) & counted, _blue(image) & counted
        assert (segments != 0)[red].sum() <= 0.03 * red.sum()
        assert (segments != 2)[blue].sum() <= 0.03 * blue.sum()
        assert red.sum() + blue.sum() >= 0.8 * counted.sum()


def test_flips_are_drawn(root):
    view = _ade20k(root, **AS_IT_IS | {"flip": 0.5, "crop": 64}).segmentation("train")
    random.seed(0)
    flipped = [view[0][1]["segments"][20, 0].item() == 2 for _ in range(200)]
    assert 70 <= sum(flipped) <= 130


def test_small_images_are_filled_up(root):
    view = _ade20k(root, **AS_IT_IS | {"crop": 100}).segmentation("train")
    image, target = view[0]
    assert image.shape == (3, 100, 100)
    assert (target["segments"][48:] == 255).all()
    assert (target["segments"][:, 64:] == 255).all()
    assert torch.equal(image[:, 60, 10], torch.tensor(MEAN))
    assert (target["segments"][8:48, :64] != 255).all()


def test_crops_avoid_a_class_that_fills_them():
    segments = torch.zeros(100, 100, dtype=torch.uint8)
    segments[:, 90:] = 1
    segments[:50] = 255
    shares = {0.75: [], 1.0: []}
    for largest, found in shares.items():
        random.seed(0)
        for _ in range(2000):
            part = augment.crop(segments, augment.draw_crop(segments, 30, largest, 255))
            assert part.shape == (30, 30)
            counts = torch.bincount(part[part != 255].flatten().long(), minlength=2)
            found.append((counts.max() / counts.sum().clamp(min=1)).item())
    # Of 71 rows 50 have a counted pixel, and 3 of 71 columns leave a quarter to the second class;
    # such a place is found by ten tries, or the last of them stays.
    good = 50 / 71 * 3 / 71
    bad = [np.mean(np.array(found) >= 0.75) for found in shares.values()]
    assert bad[1] == pytest.approx(50 / 71 - good, abs=0.04)
    assert bad[0] == pytest.approx((1 - good) ** 9 * (50 / 71 - good), abs=0.04)


def test_a_crop_covers_every_place():
    segments = torch.zeros(12, 20, dtype=torch.uint8)
    random.seed(0)
    places = {augment.draw_crop(segments, 10, 1.0, 255) for _ in range(2000)}
    assert places == {(top, left, 10, 10) for top in range(3) for left in range(11)}


def test_saturation_is_that_of_hsv():
    torch.manual_seed(0)
    image = torch.rand(3, 8, 8)
    image[:, 0, 0] = 0.4
    image[:, 0, 1] = 0.0
    for factor in (0.5, 1.0, 1.5):
        changed = augment.scale_saturation(image, factor)
        for y in range(8):
            for x in range(8):
                h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
                expected = colorsys.hsv_to_rgb(h, min(1, s * factor), v)
                assert changed[:, y, x].tolist() == pytest.approx(expected, abs=1e-5)


def test_colours_are_distorted_as_far_as_said(monkeypatch):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.2
    random.seed(0)
    outcomes = [augment.distort_colours(image) for _ in range(400)]
    assert all(outcome.min() >= 0 and outcome.max() <= 1 for outcome in outcomes)
    # Each of four changes is left out half of the time.
    same = np.mean([torch.equal(outcome, image) for outcome in outcomes])
    assert 0.03 < same < 0.11
    for name in ("CONTRAST", "SATURATION"):
        monkeypatch.setattr(augment, name, (1.0, 1.0))
    monkeypatch.setattr(augment, "HUE", 0.0)
    shifts = [(augment.distort_colours(image) - image).mean().item() for _ in range(400)]
    assert max(map(abs, shifts)) == pytest.approx(32 / 255, rel=0.1)
    monkeypatch.setattr(augment, "BRIGHTNESS", 0.0)
    monkeypatch.setattr(augment, "CONTRAST", (0.5, 1.5))
    ratios = [(augment.distort_colours(image) / image).mean().item() for _ in range(400)]
    assert (min(ratios), max(ratios)) == pytest.approx((0.5, 1.5), rel=0.1)


def test_hue_turns_at_most_18_of_180_degrees(monkeypatch):
    monkeypatch.setattr(augment, "BRIGHTNESS", 0.0)
    for name in ("CONTRAST", "SATURATION"):
        monkeypatch.setattr(augment, name, (1.0, 1.0))
    image = torch.tensor([0.6, 0.2, 0.2])[:, None, None].expand(3, 2, 2)
    random.seed(0)
    hues = [
        colorsys.rgb_to_hsv(*augment.distort_colours(image)[:, 0, 0].tolist())[0]
        for _ in range(300)
    ]
    turns = [hue - round(hue) for hue in hues]
    assert (min(turns), max(turns)) == pytest.approx((-0.1, 0.1), rel=0.1)


def test_randomness_is_the_loaders(root):
    view = Seeded(_ade20k(root).segmentation("train"), seed=3)
    first, again, other = view[0, 1, 0], view[0, 1, 0], view[1, 1, 0]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["segments"], again[1]["segments"])
    assert not torch.equal(first[0], other[0])


def test_names_and_fingerprint(root):
    view = _ade20k(root).segmentation("val")
    assert view.class_names == ["wall", "building", "sky"]
    assert (view.num_classes, view.dropped, len(NAMES)) == (3, {}, 3)
    (root / "objectInfo150.txt").unlink()
    unnamed = _ade20k(root).segmentation("val")
    assert unnamed.num_classes == 150
    assert unnamed.class_names[149] == "class 150"
    assert unnamed.fingerprint != view.fingerprint
    assert unnamed.fingerprint != _ade20k(root).segmentation("train").fingerprint
    Image.new("L", (64, 48), 7).save(root / "annotations/validation/ADE_val_00000001.png")
    assert _ade20k(root).segmentation("val").fingerprint != unnamed.fingerprint


def test_masks_that_cannot_be_used_are_named(root):
    view = _ade20k(root).segmentation("val")
    path = root / "annotations/validation/ADE_val_00000002.png"
    width, height = SIZES[1][::-1]
    Image.new("L", (width, height), 4).save(path)
    _raised(lambda: view[1], str(path), "value 4", "1 to 3")
    Image.new("L", (width, height), 255).save(path)
    assert (view[1][1]["segments"] == 255).all()
    Image.new("RGB", (width, height)).save(path)
    _raised(lambda: view[1], str(path), "RGB", "8 bits")
    Image.new("L", (width + 1, height)).save(path)
    _raised(lambda: view[1], str(path), f"{width + 1} x {height}", "belong together")
    path.write_bytes(path.read_bytes()[:50])
    _raised(lambda: view[1], str(path), "cannot be read")


@pytest.mark.parametrize("kind", ["images", "annotations"])
def test_damaged_files_may_be_skipped_in_training(root, kind):
    suffix = "jpg" if kind == "images" else "png"
    (root / kind / "training" / f"ADE_train_00000001.{suffix}").write_bytes(b"")
    _raised(lambda: _ade20k(root).segmentation("train")[0], "ADE_train_00000001", "cannot be read")
    view = _ade20k(root, on_damaged="skip").segmentation("train")
    assert view[0][1]["image_id"] == 2
    assert view.damaged.tolist() == [True, False, False]


def test_missing_files_are_named(root):
    (root / "annotations/validation/ADE_val_00000002.png").unlink()
    _raised(lambda: _ade20k(root).segmentation("val"), "1 of 3", "ADE_val_00000002", "annotations")
    (root / "images/validation/ADE_val_00000002.jpg").unlink()
    assert len(_ade20k(root).segmentation("val")) == 2
    (root / "images/validation/ADE_val_00000001.jpg").unlink()
    _raised(lambda: _ade20k(root).segmentation("val"), "1 of 2", "ADE_val_00000001", "images")


def test_a_missing_tree_says_what_is_expected_and_what_to_type(tmp_path, monkeypatch):
    words = ("no ADE20K tree", "annotations/validation missing", "objectInfo150.txt")
    words = (*words, "dataset.root=/path", "dataset=digits")
    _raised(lambda: _ade20k(tmp_path).segmentation("val"), *words)
    monkeypatch.delenv("PVT_BENCH_DATA", raising=False)
    _raised(lambda: _ade20k(tmp_path, root=None), "PVT_BENCH_DATA", "holds ade20k/")


def test_other_views_and_splits_are_refused(root):
    ade20k = _ade20k(root)
    _raised(lambda: ade20k.detection("train"), "dataset=ade20k has no detection", "=coco")
    _raised(lambda: ade20k.classification("val"), "segmentation", "imagenet")
    _raised(lambda: ade20k.segmentation("vall"), "'vall'")
