"""ImageNet-1K (ILSVRC 2012; Russakovsky et al. 2015, arXiv:1409.0575), or data in its format."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_augment
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

from pvt_bench.datasets.fingerprints import fingerprint
from pvt_bench.datasets.image_files import open_image
from pvt_bench.datasets.imagenet.files import class_names, list_files
from pvt_bench.datasets.imagenet.tree import ImageNetTree
from pvt_bench.datasets.images import MEAN, STD
from pvt_bench.datasets.views import View
from pvt_bench.errors import InputError


def posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's operation; an image that is left no bits is black."""
    if bits > 0:
        posterized: Image.Image = timm_posterize(image, bits, **options)
        return posterized
    return Image.new(image.mode, image.size)


# RandAugment of magnitude 9 with deviation 0.5 asks for 0 bits once in a thousand images, which
# Pillow up to 12 made black and Pillow 13 refuses with a ValueError that would end the training.
timm_posterize = timm_augment.posterize
for operation, function in timm_augment.NAME_TO_OP.items():
    if function is timm_posterize:
        timm_augment.NAME_TO_OP[operation] = posterize


class ImageNet(ImageNetTree):
    """A folder in ImageNet's layout; for the options of all layouts see `ImageFolder`.

    Training is that of PVT (arXiv 2102.12122, section 5.1), by timm.

    size: side of the images in pixels, cut out at random in training and in the middle in the test.
    test_resize: pixels of the shorter side in the test, before the middle is cut out.
    interpolation: how pixels are interpolated, such as bicubic or bilinear.
    scale: smallest and largest share of the image's area that training cuts out.
    ratio: smallest and largest ratio of width to height that training cuts out.
    flip: probability of a horizontal flip in training.
    color_jitter: strength of changes of colour in training; used where `auto_augment` is null.
    auto_augment: augmentation in training, in timm's notation; null is none.
    random_erasing: probability that a part of the image is erased in training.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        size: int,
        test_resize: int,
        interpolation: str,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        flip: float,
        color_jitter: float | None,
        auto_augment: str | None,
        random_erasing: float,
        index: str | None = None,
        on_damaged: str = "error",
        exif: str = "apply",
        bits: int | None = None,
    ) -> None:
        super().__init__(name, root, index, on_damaged, exif, bits)
        self.test_transform: Callable[[Image.Image], Tensor] = v2.Compose(
            [
                v2.Resize(test_resize, v2.InterpolationMode(interpolation)),
                v2.CenterCrop(size),
                to_float,
            ]
        )
        augment: Any = create_transform(
            size,
            is_training=True,
            scale=scale,
            ratio=ratio,
            hflip=flip,
            color_jitter=color_jitter,  # type: ignore[arg-type]  # None is none
            auto_augment=auto_augment,
            interpolation=interpolation,
            mean=MEAN,
            normalize=False,
        )
        # timm's last step makes a tensor.
        self.train_transform: Callable[[Image.Image], Tensor] = v2.Compose(
            [*augment.transforms[:-1], to_float, Erasing(random_erasing)]
        )

    def classification(self, split: str) -> "ImageNetClassification":
        """The images of "train" or "val" with their labels."""
        transform = self.train_transform if split == "train" else self.test_transform
        return ImageNetClassification(self, self.folder_of(split), transform)


class ImageNetClassification(View):
    """Images with `label` () int64 in the target: the place of the WordNet id among all, sorted.

    Images are ordered by file name, so that `image_id`, from 1 on, is the number in the official
    names of the validation images. `fingerprint` covers names, labels and content; it is the same
    whether validation images lie in one folder or in those of their classes.
    """

    former_covers_images = True

    def __init__(
        self, tree: ImageNet, split: str, transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.folder = tree.root / split
        self.files = list_files(tree, split, tree.index)
        super().__init__(len(self.files.labels), tree.on_damaged, split == "train")
        self.class_names = class_names(tree.root, self.files.wnids)
        self.transform = transform
        self.upright = tree.upright
        self.bits = tree.bits
        self.left_out = self.files.left_out
        counts = np.bincount(self.files.labels, minlength=self.num_classes)
        self.unseen = tuple(np.array(self.class_names, object)[counts == 0])
        if self.num_classes < 2:
            raise InputError(
                f"{self.folder} has one class, {self.class_names[0]}: there is nothing to tell "
                "apart. Expected a folder for each of two classes or more."
            )
        self.former_fingerprint = self.files.fingerprint
        self.fingerprint = fingerprint(
            self.files.labels_digest(), self.folder, self.files.paths(), tree.index
        )

    def load(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One image and its label."""
        image = open_image(self.folder / self.files.path(index), self.upright, self.bits)
        target: dict[str, Any] = {
            "label": torch.tensor(int(self.files.labels[index])),
            "image_id": torch.tensor(index + 1),
            "size": torch.tensor([image.height, image.width]),
        }
        return self.transform(image), target


def to_float(image: Image.Image) -> Tensor:
    """Contiguous float32 (3, H, W) in [0, 1] of an RGB image."""
    # Pillow separates the channels faster than torch or NumPy do.
    pixels = bytearray().join(channel.tobytes() for channel in image.split())
    channels = torch.frombuffer(pixels, dtype=torch.uint8).view(3, image.height, image.width)
    return channels.to(torch.float32).div_(255)


class Erasing(torch.nn.Module):
    """timm's random erasing (Zhong et al. 2017, arXiv:1708.04896) for images in [0, 1].

    The erased part becomes noise that is standard normal once ImageNet's mean and deviation are
    taken off, as if the image had been normalised first; so it reaches beyond [0, 1]. The rest
    stays as it is.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.erase = RandomErasing(probability=1.0, mode="pixel", device="cpu")

    def forward(self, image: Tensor) -> Tensor:
        """Erase a part of an image (3, H, W), or nothing."""
        if random.random() < self.probability:
            self.erase(_Normalised(image))
        return image


class _Normalised:
    """An image as timm's erasing sees it, which writes normalised values into a part of it."""

    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.size, self.dtype = image.size, image.dtype

    def __setitem__(self, part: tuple[slice, ...], values: Tensor) -> None:
        self.image[part] = values.mul_(self.std).add_(self.mean)
