"""Image files: which are read, and as what."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from pvt_bench.errors import InputError

# 16,384 x 16,384: an aerial image may have as many. It takes 0.8 GB of memory in each process that
# reads; a few kilobytes can claim any number.
MOST_PIXELS = 2**28

# Refused all the same.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Formats that Pillow knows by their first bytes, and leaves to programs that are seldom there.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def _suffixes() -> tuple[str, ...]:
    Image.init()
    known = Image.registered_extensions().items()
    return tuple(sorted(end for end, kind in known if kind in {*Image.OPEN} - NOT_DECODED))


# Of all that Pillow reads.
SUFFIXES = _suffixes()
# What the first bytes of photographs by telephones say after four others.
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")
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
    """An image file that is missing, empty, cut short, too large or no image."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file; whatever cannot be read within is a DamagedImage that names it."""
    try:
        with open_file(path) as image:
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise DamagedImage(
            f"The image {path} is too large ({error}). At most {MOST_PIXELS:,} pixels are read: "
            "cut it into tiles or make it smaller, and its annotations with it."
        ) from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble upon
        if (what := explain_undecoded(path, error)) is not None:
            raise DamagedImage(
                f"The image {path} cannot be decoded ({what}). Convert it to PNG or JPEG."
            ) from error
        raise DamagedImage(
            f"The image {path} cannot be read ({error or type(error).__name__}). Expected a whole "
            "image file; copy or download it again."
        ) from error


def explain_undecoded(path: Path, error: Exception) -> str | None:
    """What keeps Pillow from decoding a whole file; None where it may as well be damaged."""
    if isinstance(error, NotImplementedError):
        return str(error)
    if not isinstance(error, UnidentifiedImageError):
        return None
    with path.open("rb") as file:
        brand = file.read(12)[4:]
    if brand == b"ftypavif" and not features.check("avif"):
        return "AVIF, which this Pillow was built without"
    return "HEIC" if brand in HEIC else None


def open_file(path: Path) -> Image.Image:
    """Open an image file with Pillow, and read its header.

    Raises Image.DecompressionBombError where it says that the image has too many pixels, and
    whatever else Pillow raises.
    """
    # Another library may have allowed truncated images; their lower part would train as grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow itself warns from here on, and refuses twice as many; also within a file of icons.
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    image = Image.open(path)
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    return image


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
            "its range cannot be told. Use dataset.bits=12 where all images of the dataset use 12 "
            "bits, dataset.bits=16 where they use 16 and some are dark; or convert them to 8 bits."
        )
    return Image.fromarray((values.astype(np.int64) // step).astype(np.uint8))
