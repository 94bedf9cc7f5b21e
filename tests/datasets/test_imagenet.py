import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from imagenet_tree import SIZE, TRAIN_PER_CLASS, VAL, WNIDS, save_image, write_imagenet_tree
from omegaconf import OmegaConf
from PIL import Image
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pvt_bench.config.folders import config_dir
from pvt_bench.datasets.imagenet.reader import Erasing, ImageNet
from pvt_bench.datasets.images import MEAN, STD, read_image
from pvt_bench.datasets.loading import Seeded
from pvt_bench.errors import InputError

LAYOUTS = ("folders", "devkit", "kaggle")


@pytest.fixture
def root(tmp_path):
    return write_imagenet_tree(tmp_path / "imagenet")


def _imagenet(tree, **changes):
    config = OmegaConf.load(config_dir() / "dataset" / "imagenet.yaml")
    config.results_dir = "unused"
    options = OmegaConf.to_container(config, resolve=True)
    assert options.pop("_target_") == "pvt_bench.datasets.imagenet.ImageNet"
    del options["results_dir"]
    return ImageNet(**options | {"root": str(tree), "index": None} | changes)


def _raised(action, *words):
    with pytest.raises(InputError) as caught:
        action()
    for word in words:
        assert word in str(caught.value)


def _entries(view):
    names = [name.decode() for name in view.files.names]
    return list(zip(names, view.files.labels.tolist(), strict=True))


def test_labels_are_those_of_torchvision(root):
    for split in ("train", "val"):
        view = _imagenet(root).classification(split)
        reference = ImageFolder(root / split)
        assert view.files.wnids == reference.classes
        expected = {Path(path).name: label for path, label in reference.samples}
        assert dict(_entries(view)) == expected
        assert len(view) == len(expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_validation_images_as_they_come(tmp_path, layout):
    view = _imagenet(write_imagenet_tree(tmp_path / layout, layout)).classification("val")
    assert [label for _, label in _entries(view)] == [WNIDS.index(wnid) for wnid in VAL]
    for number, (image, target) in enumerate(view, start=1):
        assert target["image_id"] == number
        assert target["size"].tolist() == [SIZE[1], SIZE[0]]
        assert image.shape == (3, 224, 224)
        # Red tells the label: the middle has lost the white stripe, the colours survive JPEG.
        assert image[0, :, -50:].mean() * 255 == pytest.approx(60 * target["label"], abs=3)
    assert {v.dtype for v in target.values()} == {torch.int64}


def test_the_layout_of_the_validation_images_does_not_count(tmp_path):
    views = [
        _imagenet(write_imagenet_tree(tmp_path / layout, layout)).classification("val")
        for layout in LAYOUTS
    ]
    assert len({view.fingerprint for view in views}) == 1
    save_image(tmp_path / "kaggle/val/ILSVRC2012_val_00000002.JPEG", 2, (300, 80))
    changed = _imagenet(tmp_path / "kaggle").classification("val")
    assert changed.fingerprint != views[0].fingerprint


def test_names_of_classes(root):
    view = _imagenet(root).classification("val")
    assert (view.num_classes, view.dropped) == (3, {})
    assert view.class_names == ["tench", "n02084071", "power drill"]
    (root / "LOC_synset_mapping.txt").write_text("n01440764 dog, Tinca\nn02084071 dog, cur\n")
    names = _imagenet(root).classification("val").class_names
    assert names == ["dog (n01440764)", "dog (n02084071)", "power drill"]


def test_only_the_validation_images(tmp_path):
    root = write_imagenet_tree(tmp_path / "imagenet", "devkit")
    whole = _imagenet(root).classification("val")
    (root / "train").rename(root / "elsewhere")
    view = _imagenet(root).classification("val")
    assert (view.files.wnids, view.fingerprint) == (whole.files.wnids, whole.fingerprint)
    _raised(lambda: _imagenet(root).classification("train"), "train missing", "dataset.root=/path")


def test_a_class_without_validation_images_keeps_its_label(root):
    for path in (root / "val" / WNIDS[1]).iterdir():
        path.unlink()
    (root / "val" / WNIDS[1]).rmdir()
    view = _imagenet(root).classification("val")
    assert view.num_classes == 3
    assert view.files.labels.tolist() == [2, 0]
    save_image(root / "val" / "n99999999" / "a.JPEG", 0)
    _raised(lambda: _imagenet(root).classification("val"), "n99999999", "same classes")


def test_the_test_transform_is_the_official_one(root):
    view = _imagenet(root).classification("val")
    official = transforms.Compose(
        [transforms.Resize(256, interpolation=3), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    with Image.open(view.folder / view.files.path(0)) as image:
        assert (view[0][0] - official(image.convert("RGB"))).abs().max() < 1e-6


def _seed(number):
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


def test_the_training_transform_is_timms(root):
    """The same numbers drawn from the same generators, up to the rounding of normalising."""
    view = _imagenet(root, random_erasing=0.0).classification("train")
    reference = create_transform(
        224,
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with Image.open(view.folder / view.files.path(0)) as image:
        for number in range(40):
            _seed(number)
            expected = reference(image.convert("RGB"))
            _seed(number)
            assert ((view[0][0] - mean) / std - expected).abs().max() < 1e-5


def test_erasing_is_timms():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    erasing, reference = Erasing(0.25), RandomErasing(1.0, mode="pixel", device="cpu")
    erased = 0
    for number in range(400):
        _seed(number)
        changed = erasing(image.clone())
        if torch.equal(changed, image):
            continue
        erased += 1
        _seed(number)
        random.random()  # whether to erase
        expected = reference((image - mean) / std)
        assert ((changed - mean) / std - expected).abs().max() < 1e-5
    assert 70 <= erased <= 130


def test_an_image_may_lose_all_bits(root):
    """At magnitude 10 every posterizing leaves none, which recent versions of Pillow refuse."""
    view = _imagenet(root, auto_augment="rand-m10-inc1", random_erasing=0.0).classification("train")
    random.seed(0)
    black = [not view[0][0].any() for _ in range(300)]
    assert 1 <= sum(black) <= 60


def test_what_is_erased_is_standard_normal_once_normalised():
    random.seed(0)
    torch.manual_seed(0)
    image = torch.full((3, 224, 224), 0.25)
    erased = Erasing(1.0)(image.clone())
    noise = (erased - 0.25).abs() > 1e-5
    normalised = (erased - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    for channel in range(3):
        values = normalised[channel][noise[channel]]
        assert abs(values.mean()) < 0.05
        assert abs(values.std() - 1) < 0.05
    share = noise.float().mean()
    assert 0.02 <= share <= 1 / 3
    assert torch.equal(Erasing(0.0)(image), image)


def test_randomness_is_the_loaders(root):
    view = Seeded(_imagenet(root).classification("train"), seed=3)
    first, again, other = view[0, 5, 0][0], view[0, 5, 0][0], view[1, 5, 0][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_crops_cover_the_asked_share(root):
    view = _imagenet(
        root, scale=[0.25, 0.25], ratio=[1.0, 1.0], auto_augment=None, random_erasing=0.0
    ).classification("train")
    # A quarter of 100 x 80 is a square of 45 pixels; the white stripe is 25 wide.
    widths = [(view[0][0][1, 100] > 0.6).float().mean().item() for _ in range(60)]
    assert min(widths) == 0
    assert 0.4 < max(widths) <= 26 / 45 + 0.02


@pytest.mark.parametrize("mode", ["CMYK", "L", "I;16", "P", "rotated"])
def test_images_of_every_mode(root, mode):
    path = root / "val" / WNIDS[0] / "ILSVRC2012_val_00000003.JPEG"
    grey = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (80, 1))
    exif = Image.Exif()
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path, format="PNG")
    elif mode == "P":
        Image.fromarray(grey).convert("P").save(path, format="PNG")
    elif mode == "rotated":
        exif[0x0112] = 3
        Image.fromarray(grey[:, ::-1]).save(path, format="JPEG", exif=exif)
    else:
        Image.fromarray(grey).convert(mode).save(path, format="JPEG", quality=98)
    assert (read_image(path).float() - torch.from_numpy(grey)).abs().max() <= 6
    view = _imagenet(root).classification("val")
    image, target = view[2]
    assert image.shape == (3, 224, 224)
    assert target["size"].tolist() == [80, 100]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_image_is_named(root, content):
    path = root / "val" / WNIDS[0] / "ILSVRC2012_val_00000003.JPEG"
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    for choice in ("error", "skip"):
        view = _imagenet(root, on_damaged=choice).classification("val")
        _raised(lambda view=view: view[2], str(path), "cannot be read")


def test_a_damaged_image_may_be_skipped_in_training(root, capsys):
    view = _imagenet(root, on_damaged="skip").classification("train")
    first, last = view.folder / view.files.path(0), view.folder / view.files.path(len(view) - 1)
    first.write_bytes(b"")
    last.write_bytes(b"")
    for _ in range(2):
        assert view[0][1]["image_id"] == 2
        assert view[len(view) - 1][1]["image_id"] == 2
    assert view.damaged.nonzero().flatten().tolist() == [0, len(view) - 1]
    printed = capsys.readouterr().out
    assert printed.count("skipped, 1 so far") == printed.count("skipped, 2 so far") == 1
    assert str(first) in printed
    strict = _imagenet(root).classification("train")
    _raised(lambda: strict[0], str(first))
    for path in (root / "train").rglob("*.JPEG"):
        path.write_bytes(b"")
    _raised(lambda: view[0], "No image")


def test_skipped_images_of_all_readers_are_counted(root):
    view = _imagenet(root, on_damaged="skip").classification("train")
    for index in (0, 5):
        (view.folder / view.files.path(index)).write_bytes(b"")
    loader = torch.utils.data.DataLoader(view, batch_size=2, num_workers=2)
    assert len(list(loader)) == 3 * TRAIN_PER_CLASS // 2
    assert view.damaged.nonzero().flatten().tolist() == [0, 5]


def test_a_missing_tree_says_what_is_expected_and_what_to_type(tmp_path, monkeypatch):
    words = ("no ImageNet tree", "val missing", "<WordNet id>", "dataset.root=/path")
    _raised(lambda: _imagenet(tmp_path).classification("val"), str(tmp_path), *words)
    (tmp_path / "val").mkdir()
    _raised(lambda: _imagenet(tmp_path).classification("val"), "ILSVRC2012_devkit_t12", "Kaggle")
    (tmp_path / "val" / WNIDS[0]).mkdir()
    _raised(lambda: _imagenet(tmp_path).classification("val"), "no images")
    monkeypatch.delenv("PVT_BENCH_DATA", raising=False)
    _raised(lambda: _imagenet(tmp_path, root=None), "PVT_BENCH_DATA", "holds imagenet/")
    monkeypatch.setenv("PVT_BENCH_DATA", str(tmp_path))
    _raised(lambda: _imagenet(tmp_path, root=None), "no folder", "looks for imagenet/ in it")
    (tmp_path / "imagenet").mkdir()
    assert _imagenet(tmp_path, root=None).root == tmp_path / "imagenet"


def test_a_truth_that_does_not_belong_is_named(tmp_path):
    root = write_imagenet_tree(tmp_path / "a", "devkit")
    save_image(root / "val" / "ILSVRC2012_val_00000006.JPEG", 0)
    _raised(lambda: _imagenet(root).classification("val"), "5 lines", "6 images")
    meta = root / "ILSVRC2012_devkit_t12/data/meta.mat"
    meta.write_bytes(b"nonsense")
    _raised(lambda: _imagenet(root).classification("val"), "meta.mat", "cannot be read")
    root = write_imagenet_tree(tmp_path / "b", "kaggle")
    save_image(root / "val" / "ILSVRC2012_val_00000006.JPEG", 0)
    _raised(lambda: _imagenet(root).classification("val"), "1 of 6", "ILSVRC2012_val_00000006")
    (root / "LOC_val_solution.csv").write_text("a,b\n1,2\n")
    _raised(lambda: _imagenet(root).classification("val"), "not Kaggle's", "ImageId")


def test_other_views_and_splits_are_refused(root):
    imagenet = _imagenet(root)
    _raised(lambda: imagenet.detection("train"), "dataset=imagenet has no detection", "=coco")
    _raised(lambda: imagenet.segmentation("val"), "ade20k")
    _raised(lambda: imagenet.classification("vall"), "'vall'")
    _raised(lambda: _imagenet(root, on_damaged="ignore").classification("val"), "ignore", "skip")


def test_the_list_of_files_is_kept_until_a_folder_changes(root, tmp_path, monkeypatch):
    from pvt_bench.datasets.imagenet import files as imagenet_files

    index = str(tmp_path / "index")
    before = _imagenet(root, index=index).classification("train")
    plain = _imagenet(root).classification("train")
    scan = imagenet_files._scan_folders
    monkeypatch.setattr(imagenet_files, "_scan_folders", pytest.fail)
    kept = _imagenet(root, index=index).classification("train")
    for view in (before, kept):
        assert _entries(view) == _entries(plain)
        assert view.fingerprint == plain.fingerprint
    monkeypatch.setattr(imagenet_files, "_scan_folders", scan)
    save_image(root / "train" / WNIDS[0] / "new.JPEG", 0)
    assert len(_imagenet(root, index=index).classification("train")) == len(plain) + 1


def test_survives_pickling(root):
    view = _imagenet(root).classification("val")
    assert torch.equal(pickle.loads(pickle.dumps(view))[0][0], view[0][0])
