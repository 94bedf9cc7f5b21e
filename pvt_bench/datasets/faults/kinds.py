"""What can be wrong with a dataset's files, what the readers make of it, and how to mend it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pvt_bench.errors import InputError

ERROR, NOTE = "error", "note"
SHOWN = 300  # characters; a file's name has 255 at most, but not in every annotation file


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    severity: "error" where training or its score would stop or be wrong, "note" where the readers
        handle it.
    explanation: what the readers do with it. remedy: what to do.
    """

    name: str
    severity: str
    explanation: str
    remedy: str

    def as_note(self, explanation: str) -> "Kind":
        """The same kind where nothing is read that suffers from it."""
        return replace(self, severity=NOTE, explanation=explanation)


@dataclass(frozen=True)
class Fault:
    """A fault of some kind at a file, an entry of a file or an id."""

    kind: Kind
    where: str
    detail: str = ""

    def __str__(self) -> str:
        where = f"{self.where[:SHOWN]}..." if len(self.where) > SHOWN else self.where
        return f"{where} ({self.detail})" if self.detail else where


def as_unread(faults: Iterable[Fault]) -> list[Fault]:
    """The faults as notes, since training leaves their images out."""
    told = "Training does not read it, since it has no usable box."
    return [Fault(f.kind.as_note(told), f.where, f.detail) for f in faults]


def check(faults: Iterable[Fault]) -> None:
    """Raise InputError with the first errors among faults; notes are passed over."""
    errors = [fault for fault in faults if fault.kind.severity == ERROR]
    if not errors:
        return
    kind = errors[0].kind
    alike = [fault for fault in errors if fault.kind.name == kind.name]
    message = f"{kind.name}: {'; '.join(map(str, alike[:3]))}"
    if len(alike) > 3:
        message += f"; and {len(alike) - 3} more"
    if len(errors) > len(alike):
        message += f". There are {len(errors) - len(alike)} faults of other kinds, too"
    raise InputError(
        f"The data has faults: {message}. {kind.remedy} "
        "`python -m pvt_bench.preflight` with the same task= and dataset= lists all faults."
    )


_COPY = "Copy, unpack or download it again."
_MEND_JSON = "Mend the entry, or take the original annotation file."
_STOPS = "The run stops before it begins."
_STOPS_LATER = "The run stops when it comes to the file."

# The tree of files.
FOLDER_MISSING = Kind("folder missing", ERROR, _STOPS, "Unpack the archive that has it.")
FILE_MISSING = Kind("file missing", ERROR, _STOPS, "Unpack the archive again.")
FILE_EMPTY = Kind("empty file", ERROR, _STOPS_LATER, _COPY)
NO_IMAGES = Kind("no images", ERROR, _STOPS, "Unpack the archive of the images.")
OTHER_EXTENSION = Kind(
    "file of another extension",
    NOTE,
    "It is not read.",
    "Nothing, if it is no image; otherwise give it the extension that the others have.",
)
NOT_READABLE = Kind("refused by the reader", ERROR, _STOPS, "Do as the message says.")

# Images.
DAMAGED = Kind("truncated or damaged image", ERROR, _STOPS_LATER, _COPY)
NOT_AN_IMAGE = Kind("not an image", ERROR, _STOPS_LATER, f"Remove it with its labels. {_COPY}")
OTHER_SIZE = Kind(
    "image of another size than its annotations say",
    ERROR,
    _STOPS_LATER,
    "Image and annotations do not belong together: take both from one source.",
)
SIZE_AS_STORED = Kind(
    "image turned by EXIF, its annotations not",
    ERROR,
    _STOPS,
    "Use dataset.exif=ignore, if all annotations were made on the images as they are stored.",
)
SIZE_UPRIGHT = Kind(
    "image as stored, its annotations turned by EXIF",
    ERROR,
    _STOPS,
    "Use dataset.exif=apply, if all annotations were made on the upright images.",
)
NOT_DECODED = Kind(
    "image of a format that cannot be decoded",
    ERROR,
    _STOPS_LATER,
    "Convert it to PNG or JPEG.",
)
HUGE = Kind(
    "huge image",
    ERROR,
    "It has more than 2^28 pixels (16,384 x 16,384), and is not read.",
    "Cut it into tiles or make it smaller, and its annotations with it.",
)
TINY = Kind(
    "tiny image",
    NOTE,
    "It is enlarged as any other, and shows little.",
    "Look whether it is a thumbnail or a placeholder.",
)
EXIF_ROTATED = Kind(
    "turned by EXIF",
    NOTE,
    "It is turned upright as its EXIF orientation says, before its size is compared.",
    "Nothing, if the annotations belong to the upright image.",
)
CMYK = Kind("CMYK image", NOTE, "It is converted to RGB.", "Nothing.")
DEEP = Kind(
    "image of more than 8 bits",
    NOTE,
    "The upper 8 bits of its range are taken.",
    "Nothing, or use dataset.bits=12 or dataset.bits=16 for the range of all.",
)
UNKNOWN_RANGE = Kind(
    "image whose range cannot be told",
    ERROR,
    _STOPS_LATER,
    "Use dataset.bits=12 or dataset.bits=16, or convert the images to 8 bits.",
)
GREY = Kind("grey image", NOTE, "It is converted to RGB with three equal channels.", "Nothing.")
PALETTE = Kind("palette image", NOTE, "It is converted to RGB.", "Nothing.")
TRANSPARENT = Kind(
    "transparent image",
    NOTE,
    "Its transparency is dropped, and shows the colours beneath.",
    "Look at the image without its transparency.",
)
OTHER_FORMAT = Kind(
    "extension of another format",
    NOTE,
    "The content decides how it is read.",
    "Nothing, or rename it with its entry in the annotations.",
)

# COCO's JSON.
CUT_JSON = Kind("JSON cut short or malformed", ERROR, _STOPS, _COPY)
LACKS_KEY = Kind("JSON lacks a key", ERROR, _STOPS, _MEND_JSON)
DUPLICATE_IMAGE_ID = Kind("duplicate image id", ERROR, _STOPS, _MEND_JSON)
DUPLICATE_FILE_NAME = Kind(
    "duplicate file name",
    ERROR,
    "The image is used twice, with other objects each time.",
    "Keep one entry and give it the objects of both.",
)
DUPLICATE_ANNOTATION_ID = Kind("duplicate annotation id", ERROR, _STOPS, _MEND_JSON)
DUPLICATE_CATEGORY_ID = Kind("duplicate category id", ERROR, _STOPS, _MEND_JSON)
OTHER_CATEGORIES = Kind(
    "categories other than those of training",
    ERROR,
    "Labels would mean other classes in the score than in training.",
    "Give both files the same categories.",
)
UNKNOWN_IMAGE = Kind("annotation of an unknown image", ERROR, _STOPS, _MEND_JSON)
UNKNOWN_CATEGORY = Kind("annotation of an unknown category", ERROR, _STOPS, _MEND_JSON)
MALFORMED_BOX = Kind("malformed box", ERROR, _STOPS, f"Expected [x, y, w, h]. {_MEND_JSON}")
BOX_NOT_FINITE = Kind("box not finite", NOTE, "It is dropped and counted.", _MEND_JSON)
BOX_WITHOUT_AREA = Kind(
    "box without width or height",
    NOTE,
    "It is dropped and counted.",
    "Nothing; COCO itself has two.",
)
BOX_OUTSIDE = Kind(
    "box outside its image",
    NOTE,
    "It is clipped to the image; it is dropped where nothing of it is left.",
    "Look whether image and annotations belong together, and whether it is [x, y, w, h].",
)
BAD_AREA = Kind(
    "area not positive",
    ERROR,
    "COCO's metric leaves the object out of the score.",
    "Write the mask's or the box's area in pixels.",
)
BAD_CROWD = Kind(
    "iscrowd neither 0 nor 1",
    ERROR,
    "Any number but 0 makes a crowd region, which is not trained on; other values stop the run.",
    _MEND_JSON,
)
_OUTLINE = f"{_MEND_JSON} Boxes alone are enough for task=coco_retinanet and task=coco_detr."
NO_SEGMENTATION = Kind("segmentation missing", ERROR, _STOPS, _OUTLINE)
MALFORMED_SEGMENTATION = Kind("malformed segmentation", ERROR, _STOPS, _OUTLINE)
OTHER_SEGMENTATION_SIZE = Kind(
    "segmentation of another size than its image", ERROR, _STOPS, _OUTLINE
)
NOTHING_USABLE = Kind("no usable annotation", ERROR, _STOPS, "Take the original annotation file.")

# ADE20K's masks.
MASK_MISSING = Kind("image without mask", ERROR, _STOPS, "Unpack the archive again.")
IMAGE_MISSING = Kind("mask without image", ERROR, _STOPS, "Unpack the archive again.")
OTHER_MASK_SIZE = Kind("mask of another size than its image", ERROR, _STOPS_LATER, _COPY)
UNKNOWN_VALUES = Kind(
    "mask with unknown values",
    ERROR,
    _STOPS_LATER,
    "Expected 1 to the number of classes, and 0 or 255 where pixels are ignored.",
)
MASK_MODE = Kind(
    "mask not of 8 bits and one channel",
    ERROR,
    _STOPS_LATER,
    "Write it as a PNG of 8 bits that holds one label a pixel, as in ADEChallengeData2016.",
)
ONLY_IGNORED = Kind(
    "mask of ignored pixels only", NOTE, "Its image trains and scores nothing.", "Remove both."
)

# ImageNet's folders.
EMPTY_CLASS = Kind(
    "class folder without images",
    ERROR,
    "The class keeps its label, and is neither learnt nor scored.",
    "Unpack the class again, or remove its folder from both splits.",
)
CLASS_NOT_IN_TRAIN = Kind(
    "class in val but not in train", ERROR, _STOPS, "Unpack the training images of the class."
)
CLASS_NOT_IN_VAL = Kind(
    "class in train but not in val",
    NOTE,
    "It is learnt, but its images are not in the score.",
    "Unpack the validation images of the class.",
)
OUTSIDE_CLASS = Kind(
    "file outside a class folder", NOTE, "It is not read.", "Move it to the folder of its class."
)
OTHER_CLASSES = Kind(
    "number of classes other than the task's protocol",
    NOTE,
    "The network is built for the dataset's classes; published scores do not compare.",
    "Nothing, if the data is meant to have these classes.",
)

# Faults of images that are not read where `dataset.on_damaged` has them skipped.
SKIPPABLE = {kind.name for kind in (FILE_EMPTY, DAMAGED, NOT_AN_IMAGE, NOT_DECODED, HUGE)}


def forgive(faults: Iterable[Fault], split: str, on_damaged: str) -> Iterator[Fault]:
    """The faults, with damaged images as notes where `dataset.on_damaged` has them skipped."""
    for fault in faults:
        if split == "train" and on_damaged == "skip" and fault.kind.name in SKIPPABLE:
            kind = fault.kind.as_note("The next whole image takes its place (on_damaged=skip).")
            yield Fault(kind, fault.where, fault.detail)
        else:
            yield fault
