"""Image files: which are read, and as what."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pvt_bench.errors import InputError

# Formats that Pillow knows by their first bytes, and leaves to programs that are seldom there.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def _suffixes() -> tuple[str, ...]:
    Image.init()
    known = Image.registered_extensions().items()
    return tuple(sorted(end for end, kind in known if kind in {*Image.OPEN} - NOT_DECODED))


# Of all that Pillow reads.
SUFFIXES = _suffixes()
# What macOS and Windows leave beside the files of an archive; `._a.jpg` is no image.
LEFT_BEHIND = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")


def is_image(name: str) -> bool:
    """Whether a file is an image that can be read, by its name."""
    hidden = name.startswith("._") or name in LEFT_BEHIND
    return not hidden and name.lower().endswith(SUFFIXES)


def ending(name: str) -> str:
    """What tells of a file what it is, where it is no image: `.txt`, or `._*` of macOS."""
    if name.startswith("._"):
        return "._*"
    return Path(name).suffix.lower() or name


class DamagedImage(InputError):
    """An image file that is missing, empty, cut short or no image."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file; whatever cannot be read within is a DamagedImage that names it."""
    # Another library may have allowed truncated images; their lower part would train as grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise DamagedImage(
            f"The image {path} cannot be read ({error}). Expected a whole image file; "
            "copy or download it again."
        ) from error


def open_image(path: Path, upright: bool = True, bits: int | None = None) -> Image.Image:
    """Read an image file as RGB of 8 bits, `upright` as its EXIF orientation says, or as stored.

    bits: that images of more than 8 bits use; None: as their values say, see `to_8_bits`.

    Raises:
        DamagedImage: it cannot be read.
        InputError: it has more than 8 bits, and its values do not say how many.
    """
    with opened(path) as image:
        image.load()
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "RGB":
            return image
        shallow = to_8_bits(image, path, bits) if image.mode[0] in "IF" else image
        return shallow.convert("RGB")


def to_8_bits(image: Image.Image, path: Path, bits: int | None) -> Image.Image:
    """A grey image of 16 or 32 bits or of fractions as one of 8 bits.

    Of whole numbers the upper 8 of `bits` are taken. Where these are not given, 32 bits that hold
    at most 255 are taken as 8, all others as 16; fractions up to 1 are multiplied by 255.

    Raises:
        InputError: the values are not within that range, or use so little of it that the image
            would be black or of one value.
    """
    values = np.asarray(image)
    low, high = (float(each) for each in (values.min(), values.max()))
    fractions = image.mode[0] == "F"
    if bits is None and (fractions or image.mode == "I"):
        if low >= 0 and high <= 1 and fractions:
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
        if low >= 0 and high <= 255:
            return Image.fromarray(values.astype(np.uint8))
    used = bits or 16
    # A sixteenth of the range: 12 bits in 16, the most frequent case, end there.
    dark = bits is None and 0 < high < 2**used / 16
    step = 2 ** (used - 8)
    flat = bits is None and low < high and low // step == high // step
    if not 0 <= low <= high < 2**used or dark or flat or fractions:
        raise InputError(
            f"The image {path} has values from {low:g} to {high:g} (mode {image.mode}), from which "
            "its range cannot be told. Type dataset.bits=12 where all images of the dataset use 12 "
            "bits, dataset.bits=16 where they use 16 and some are dark; or convert them to 8 bits."
        )
    return Image.fromarray((values.astype(np.int64) // step).astype(np.uint8))
