"""The built-in data: scenes of real handwritten digits, written to disk as the real sets are."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from faster_coco_eval.core import mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from pvt_bench.datasets.ade20k.reader import ADE20K, ADE20KSegmentation
from pvt_bench.datasets.ade20k.tree import NAMES as ADE20K_NAMES
from pvt_bench.datasets.coco.reader import Coco, CocoDetection
from pvt_bench.datasets.digits.scenes import SIDE, Region, Scene, compose_scenes
from pvt_bench.datasets.digits.scenes import VERSION as SCENES_VERSION
from pvt_bench.datasets.folders import ImageFolder
from pvt_bench.datasets.imagenet.files import NAMES as IMAGENET_NAMES
from pvt_bench.datasets.imagenet.reader import ImageNet, ImageNetClassification
from pvt_bench.datasets.views import Views
from pvt_bench.errors import InputError
from pvt_bench.files import replacing

# Raise it, here and in conf/dataset/digits.yaml, with every change to what is written.
VERSION = 2
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WNIDS = tuple(f"n{digit:08d}" for digit in range(10))
CANVAS = 1  # its value in ADE20K's masks; the digits follow, and crowd regions are 0
CROP_SIDE = 64  # pixels
CROP_MARGIN = 1.3  # side of what is cut out, over the longer side of the digit's box

Options = dict[str, Any]
Pixels = NDArray[np.uint8]


class Digits(Views):
    """The digits at `root`: written there if the folder is absent, else read.

    `root` itself is a tree in COCO's layout; below it `imagenet/` has the digits cut out of the
    same scenes, and `ade20k/` their masks.

    name: name of the dataset in tables and folders.
    root: folder of the digits, written where it is absent.
    classification: options of single digits, those of ImageNet's layout.
    detection: options of scenes with boxes, those of COCO's layout.
    segmentation: options of scenes with masks, those of ADE20K's layout.
    """

    READERS: ClassVar[dict[str, type[ImageFolder]]] = {
        "classification": ImageNet,
        "detection": Coco,
        "segmentation": ADE20K,
    }
    FOLDERS: ClassVar = {"classification": "imagenet", "detection": ".", "segmentation": "ade20k"}

    def __init__(
        self,
        name: str,
        root: str,
        classification: Options,
        detection: Options,
        segmentation: Options,
    ) -> None:
        self.name = name
        self.root = Path(root).expanduser()
        self.options = {
            "classification": classification,
            "detection": detection,
            "segmentation": segmentation,
        }
        write_digits(self.root)

    def reader(self, view: str) -> Any:
        """The dataset in whose layout a view is written."""
        super().reader(view)
        root = str(self.root / self.FOLDERS[view])
        return self.READERS[view](self.name, root, **self.options[view])

    def classification(self, split: str) -> ImageNetClassification:
        """Single digits, with a little of what is around them."""
        return self.reader("classification").classification(split)

    def detection(self, split: str, masks: bool = False) -> CocoDetection:
        """Scenes with the boxes, labels and masks of their digits."""
        return self.reader("detection").detection(split, masks)

    def segmentation(self, split: str) -> ADE20KSegmentation:
        """Scenes with a label for each pixel: the canvas, then the ten digits."""
        return self.reader("segmentation").segmentation(split)


def write_digits(root: Path) -> None:
    """Write both splits below `root`, all or nothing; do nothing if `root` exists.

    Takes a few seconds, and gives the same bytes each time with the same Pillow and NumPy.
    """
    if root.exists():
        return
    try:
        with replacing(root) as beside:
            for split in Coco.SPLITS:
                _write_split(beside, split)
            _write_names(beside)
    except OSError as error:
        # Another process may have been first, and then wrote the same.
        if not root.is_dir():
            raise InputError(
                f"The digits cannot be written to {root}: {error.strerror}. "
                "Use results_dir=/path or dataset.root=/path for a place that can be written."
            ) from error


def _write_split(root: Path, split: str) -> None:
    writers = (_CocoWriter(root, split), _ImageNetWriter(root, split), _ADE20KWriter(root, split))
    for number, scene in enumerate(compose_scenes(split), start=1):
        pixels = np.round(scene.canvas * 255).astype(np.uint8)
        for writer in writers:
            writer.add(number, scene, pixels)
    writers[0].finish()


def _write_names(root: Path) -> None:
    names = "".join(f"{wnid} {name}\n" for wnid, name in zip(WNIDS, NAMES, strict=True))
    (root / "imagenet" / IMAGENET_NAMES[0]).write_text(names)
    rows = ["Idx\tName", *(f"{i}\t{name}" for i, name in enumerate(("canvas", *NAMES), start=1))]
    (root / "ade20k" / ADE20K_NAMES).write_text("\n".join(rows) + "\n")


def _save_jpeg(pixels: Pixels, path: Path) -> None:
    Image.fromarray(pixels).save(path, format="JPEG", quality=95, subsampling="4:4:4")


class _CocoWriter:
    """Writes scenes, and their digits as annotations."""

    def __init__(self, root: Path, split: str) -> None:
        self.folder = root / Coco.SPLITS[split]
        self.folder.mkdir(parents=True)
        self.annotation_file = root / "annotations" / f"instances_{Coco.SPLITS[split]}.json"
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, number: int, scene: Scene, pixels: Pixels) -> None:
        name = f"{number:012d}.jpg"
        _save_jpeg(pixels, self.folder / name)
        self.images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        for region in scene.regions:
            self.annotations.append(_annotate(region, len(self.annotations) + 1, number))

    def finish(self) -> None:
        document = {
            "info": {
                "description": "Scenes of handwritten digits",
                "version": str(SCENES_VERSION),
            },
            "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "https://doi.org/10.24432/C50P49"}],
            "images": self.images,
            "annotations": self.annotations,
            "categories": [
                {"id": digit + 1, "name": name, "supercategory": "digit"}
                for digit, name in enumerate(NAMES)
            ],
        }
        self.annotation_file.parent.mkdir(exist_ok=True)
        self.annotation_file.write_text(json.dumps(document, sort_keys=True))


def _annotate(region: Region, annotation_id: int, image_id: int) -> dict[str, Any]:
    rle = mask_api.encode(np.asfortranarray(region.mask, np.uint8))
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": region.digit + 1,
        "bbox": [float(value) for value in region.box],
        "area": float(region.mask.sum()),
        "iscrowd": int(region.is_crowd),
        "segmentation": {"size": [SIDE, SIDE], "counts": rle["counts"].decode()},
    }


class _ImageNetWriter:
    """Cuts every digit that stands alone out of its scene, into the folder of its class."""

    def __init__(self, root: Path, split: str) -> None:
        self.folder = root / "imagenet" / ImageNet.SPLITS[split]
        for wnid in WNIDS:
            (self.folder / wnid).mkdir(parents=True)

    def add(self, number: int, scene: Scene, pixels: Pixels) -> None:
        for place, region in enumerate(scene.regions):
            if not region.is_crowd:
                name = f"scene_{number:08d}_{place}.JPEG"
                _save_jpeg(_cut_out(region, pixels), self.folder / WNIDS[region.digit] / name)


def _cut_out(region: Region, pixels: Pixels) -> Pixels:
    """A square around a region, moved to lie within the scene, (CROP_SIDE, CROP_SIDE, 3)."""
    x, y, width, height = region.box
    side = min(SIDE, round(max(width, height) * CROP_MARGIN))
    left, top = (
        min(max(0, start + extent // 2 - side // 2), SIDE - side)
        for start, extent in ((x, width), (y, height))
    )
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(square.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC))


class _ADE20KWriter:
    """Writes scenes, and what each of their pixels is."""

    def __init__(self, root: Path, split: str) -> None:
        folder = ADE20K.SPLITS[split]
        self.name = "ADE_train" if split == "train" else "ADE_val"
        self.images = root / "ade20k" / "images" / folder
        self.annotations = root / "ade20k" / "annotations" / folder
        self.images.mkdir(parents=True)
        self.annotations.mkdir(parents=True)

    def add(self, number: int, scene: Scene, pixels: Pixels) -> None:
        values = np.full((SIDE, SIDE), CANVAS, np.uint8)
        for region in scene.regions:
            values[region.mask] = 0 if region.is_crowd else CANVAS + 1 + region.digit
        _save_jpeg(pixels, self.images / f"{self.name}_{number:08d}.jpg")
        Image.fromarray(values).save(self.annotations / f"{self.name}_{number:08d}.png")
