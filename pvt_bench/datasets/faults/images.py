"""What is wrong with an image file, or with an image and its mask."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.kinds import Fault, Kind, as_unread
from pvt_bench.datasets.fingerprints import full_digest
from pvt_bench.datasets.image_files import explain_undecoded, open_file, to_8_bits
from pvt_bench.errors import InputError

TINY_SIDE = 32  # pixels; the networks' largest stride
EXIF_ORIENTATION = 0x0112
QUARTER_TURNS = range(5, 9)
IGNORED = (0, 255)  # values of ADE20K's masks
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"DDS ")
MODES: dict[str, tuple[Kind, ...]] = {
    "CMYK": (kinds.CMYK,),
    "1": (kinds.GREY,),
    "L": (kinds.GREY,),
    "LA": (kinds.GREY, kinds.TRANSPARENT),
    "P": (kinds.PALETTE,),
    "PA": (kinds.PALETTE, kinds.TRANSPARENT),
    "RGBA": (kinds.TRANSPARENT,),
}
Size = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """An image to read whole.

    `image` and `mask` are below `root`. `size`: the (height, width) that the image should have,
    `upright` as its EXIF orientation says or as it is stored. `bits`: see `image_files.open_image`.
    `num_classes`: the highest value of the mask. `unread`: the task leaves the image out.
    """

    root: Path
    image: str
    size: Size | None = None
    upright: bool = True
    bits: int | None = None
    mask: str | None = None
    num_classes: int = 0
    unread: bool = False


def look(job: Job) -> tuple[list[Fault], str]:
    """What is wrong with a job's files, and the SHA-256 of all their bytes."""
    files = [job.image] if job.mask is None else [job.image, job.mask]
    return inspect(job), full_digest(job.root / name for name in files)


def inspect(job: Job) -> list[Fault]:
    """Everything wrong with a job's files."""
    faults, size, turns = _inspect_image(job)
    if job.size is not None and size is not None:
        faults += _compare_sizes(job.image, size, job.size, turns, job.upright)
    if job.mask is not None:
        faults += _inspect_mask(job, size, turns)
    return as_unread(faults) if job.unread else faults


def _judge_depth(image: Image.Image, path: Path, bits: int | None) -> list[tuple[Kind, str]]:
    """Whether an image of more than 8 bits can be told to have some range."""
    if image.mode[0] not in "IF":
        return []
    try:
        to_8_bits(image, path, bits)
    except InputError:
        return [(kinds.UNKNOWN_RANGE, "values {:g} to {:g}".format(*image.getextrema()))]
    return []


def check_size(root: Path, name: str, expected: Size, upright: bool) -> list[Fault]:
    """Compare the (height, width) in an image's header with the `expected` one."""
    try:
        with _opened(root / name) as image:
            width, height = image.size
            turns = image.getexif().get(EXIF_ORIENTATION, 1) in QUARTER_TURNS
    except Image.DecompressionBombError as error:
        return [Fault(kinds.HUGE, name, str(error))]
    except Exception:  # told when it is read
        return []
    size = (width, height) if turns and upright else (height, width)
    return _compare_sizes(name, size, expected, turns, upright)


def _compare_sizes(
    name: str, size: Size, expected: Size, turns: bool, upright: bool
) -> list[Fault]:
    """Where a size is not the expected one; `turns`: whether EXIF turns it by a quarter."""
    if size == expected:
        return []
    kind = _kind_of_size(size, expected, turns, upright, kinds.OTHER_SIZE)
    return [Fault(kind, name, _differ(size, expected))]


def _kind_of_size(size: Size, expected: Size, turns: bool, upright: bool, other: Kind) -> Kind:
    """The kind of a wrong size: EXIF's quarter turn, or the `other` one."""
    if not turns or size != expected[::-1]:
        return other
    return kinds.SIZE_AS_STORED if upright else kinds.SIZE_UPRIGHT


def _inspect_image(job: Job) -> tuple[list[Fault], Size | None, bool]:
    """The faults of an image, its (height, width) where it is whole, whether EXIF turns it."""
    root, name = job.root, job.image
    try:
        with _opened(root / name) as image:
            width, height = image.size
            found = _describe(image, Path(name).suffix.lower())
            # A JPEG is read at an eighth of its size: every byte of it, but with less arithmetic.
            image.draft(None, (width // 8, height // 8))
            image.load()
            found += _judge_depth(image, root / name, job.bits)
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception as error:  # Pillow's decoders raise whatever they stumble upon
        return [_explain(root / name, name, error)], None, False
    if orientation in range(2, 9):
        found.append((kinds.EXIF_ROTATED, f"orientation {orientation}"))
    turns = orientation in QUARTER_TURNS
    size = (width, height) if turns and job.upright else (height, width)
    return [Fault(kind, name, detail) for kind, detail in found], size, turns


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image; what Pillow warns of on the way is told as a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_file(path) as image:
            yield image


def _describe(image: Image.Image, suffix: str) -> list[tuple[Kind, str]]:
    """What the header tells: the mode, the format, the size."""
    of_mode = (kinds.DEEP,) if image.mode[0] in "IF" else MODES.get(image.mode, ())
    found = [(kind, f"mode {image.mode}") for kind in of_mode]
    if "transparency" in image.info and kinds.TRANSPARENT not in of_mode:
        found.append((kinds.TRANSPARENT, f"mode {image.mode}"))
    # Cameras write MPO, a JPEG with further pictures after the first.
    content = "JPEG" if image.format == "MPO" else image.format
    if Image.registered_extensions().get(suffix, content) != content:
        found.append((kinds.OTHER_FORMAT, f"its content is {content}"))
    if min(image.size) < TINY_SIDE:
        found.append((kinds.TINY, f"{image.width} x {image.height} pixels"))
    return found


def _explain(path: Path, name: str, error: Exception) -> Fault:
    """The fault of an image that could not be read."""
    if isinstance(error, FileNotFoundError):
        return Fault(kinds.FILE_MISSING, name)
    if isinstance(error, Image.DecompressionBombError):
        return Fault(kinds.HUGE, name, str(error))
    if (what := explain_undecoded(path, error)) is not None:
        return Fault(kinds.NOT_DECODED, name, what)
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            beginning = file.read(12)
        if not beginning.startswith(BEGINNINGS) and beginning[4:] != b"ftypavif":
            return Fault(kinds.NOT_AN_IMAGE, name)
        return Fault(kinds.DAMAGED, name, "it ends in its header")
    return Fault(kinds.DAMAGED, name, str(error) or type(error).__name__)


def _inspect_mask(job: Job, size: Size | None, turns: bool) -> list[Fault]:
    name = str(job.mask)
    try:
        with _opened(job.root / name) as image:
            values = np.asarray(image)
            mode = image.mode
    except Exception as error:  # as above
        return [_explain(job.root / name, name, error)]
    if values.ndim != 2 or values.dtype != np.uint8:
        return [Fault(kinds.MASK_MODE, name, f"mode {mode}")]
    faults = []
    if size is not None and size != values.shape:
        kind = _kind_of_size(size, values.shape, turns, job.upright, kinds.OTHER_MASK_SIZE)
        where = name if kind is kinds.OTHER_MASK_SIZE else job.image
        faults.append(Fault(kind, where, _differ(values.shape, size)))
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    unknown = present[(present > job.num_classes) & ~np.isin(present, IGNORED)]
    if len(unknown):
        detail = f"{', '.join(map(str, unknown[:5]))}, of at most {job.num_classes}"
        faults.append(Fault(kinds.UNKNOWN_VALUES, name, detail))
    if np.isin(present, IGNORED).all():
        faults.append(Fault(kinds.ONLY_IGNORED, name))
    return faults


def _differ(found: Size | None, expected: Size | None) -> str:
    (height, width), (expected_height, expected_width) = found or (0, 0), expected or (0, 0)
    return f"{width} x {height} pixels, expected {expected_width} x {expected_height}"
