"""What every reader keeps to, whatever the view."""

from pathlib import Path

import pytest
import torch
from ade20k_tree import write_ade20k_tree
from coco_tree import write_coco_tree
from hydra.utils import instantiate
from imagenet_tree import write_imagenet_tree
from omegaconf import OmegaConf

from pvt_bench.config.folders import config_dir
from pvt_bench.config.registry import register
from pvt_bench.datasets.loading import eval_loader, train_loader
from pvt_bench.datasets.views import VIEWS, Views, datasets_with
from pvt_bench.errors import InputError

WRITE = {"coco": write_coco_tree, "imagenet": write_imagenet_tree, "ade20k": write_ade20k_tree}
SIZE_KEYS = {
    "coco": {"shorter_side": 64, "longer_side": 128},
    "imagenet": {"size": 32, "test_resize": 40},
    "ade20k": {"shorter_side": 64, "longer_side": 256, "crop": 64},
}
OFFERED = {view: datasets_with(view) for view in VIEWS}
PAIRS = [(view, dataset) for view, datasets in OFFERED.items() for dataset in datasets]


def _open(name: str, tmp_path: Path, digits: Path) -> Views:
    config = OmegaConf.load(config_dir() / "dataset" / f"{name}.yaml")
    config.results_dir = str(tmp_path / "results")
    config.root = str(digits if name == "digits" else WRITE[name](tmp_path / name))
    config.update(SIZE_KEYS.get(name, {}))
    config.schedule = {"shorter_side": None, "longer_side": None}
    register()
    options = OmegaConf.to_container(config, resolve=True)
    del options["results_dir"], options["schedule"]
    return instantiate(options, _convert_="all")


def test_which_datasets_have_which_view():
    assert OFFERED == {
        "classification": ["imagenet", "digits"],
        "detection": ["coco", "digits"],
        "segmentation": ["ade20k", "digits"],
    }


@pytest.mark.parametrize(("view", "name"), PAIRS)
def test_every_view_keeps_to_the_interface(view: str, name: str, tmp_path: Path, digits: Path):
    dataset = _open(name, tmp_path, digits)
    for split in ("train", "val"):
        data = getattr(dataset, view)(split)
        assert len(data.class_names) == data.num_classes == len(set(data.class_names))
        assert len(bytes.fromhex(data.fingerprint)) == 32
        assert all(isinstance(count, int) for count in data.dropped.values())
        ids = []
        for index in range(min(len(data), 20)):
            image, target = data[index]
            assert image.dtype == torch.float32
            assert image.shape[0] == 3
            assert target["size"].shape == (2,)
            assert target["image_id"].shape == ()
            ids.append(int(target["image_id"]))
            if view == "segmentation":
                size = image.shape[-2:] if split == "train" else tuple(target["size"].tolist())
                assert target["segments"].shape == size
                assert target["segments"].dtype == torch.uint8
        assert len(set(ids)) == len(ids)
        with pytest.raises(IndexError):
            data[len(data)]


@pytest.mark.parametrize(("view", "name"), PAIRS)
def test_loaders_give_the_same_with_and_without_workers(
    view: str, name: str, tmp_path: Path, digits: Path
):
    dataset = _open(name, tmp_path, digits)
    train, val = (getattr(dataset, view)(split) for split in ("train", "val"))
    for make in (
        lambda workers: train_loader(train, 2, 7, workers, first=0, stop=2),
        lambda workers: eval_loader(torch.utils.data.Subset(val, range(3)), 2, workers),
    ):
        for (images, targets), (others, other_targets) in zip(make(0), make(2), strict=True):
            assert all(map(torch.equal, images, others))
            for target, other in zip(targets, other_targets, strict=True):
                assert all(torch.equal(target[key], other[key]) for key in target)


@pytest.mark.parametrize("name", sorted({name for names in OFFERED.values() for name in names}))
def test_views_that_a_dataset_has_not_are_refused(name: str, tmp_path: Path, digits: Path):
    dataset = _open(name, tmp_path, digits)
    for view, names in OFFERED.items():
        if name not in names:
            with pytest.raises(InputError) as caught:
                getattr(dataset, view)("train")
            assert f"dataset={name} has no {view} view" in str(caught.value)
            assert f"Use {' or '.join(f'dataset={other}' for other in names)}." in str(caught.value)
