"""Datasets of image files in a folder: where it is, what must lie there, how it is checked."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pvt_bench.config.places import find_root
from pvt_bench.datasets.faults.files import Survey
from pvt_bench.datasets.faults.kinds import Fault, check, forgive
from pvt_bench.datasets.views import Views
from pvt_bench.errors import InputError, nearest

EXIF = ("apply", "ignore")


class ImageFolder(Views):
    """Base of the datasets of image files in one layout.

    name: name of the dataset in tables and folders.
    root: folder of the data, which counts by its content and not by its place; null is
        $PVT_BENCH_DATA/NAME.
    index: folder that keeps what was read, so that it is read once; null keeps nothing.
    on_damaged: what happens if an image cannot be read: `error` ends the run; with `skip`,
        training uses the next intact image.
    exif: how images are read: `apply` rotates them upright as their EXIF orientation says,
        `ignore` leaves them as stored.
    bits: bits that images of more than 8 bits use, 12 or 16; null judges by their values.
    """

    TITLE: ClassVar[str]
    TREE: ClassVar[str]  # what a message shows of the layout
    NEEDED: ClassVar[Sequence[str]]  # paths below the root
    FOLDERS: ClassVar[Sequence[str]]  # where none of them is, the layout is another one
    SPLITS: ClassVar[Mapping[str, str]]  # the folders of "train" and "val"

    def __init__(
        self,
        name: str,
        root: str | None,
        index: str | None,
        on_damaged: str,
        exif: str,
        bits: int | None,
    ) -> None:
        self.name = name
        self.root = find_root(name, root)
        self.index = Path(index).expanduser() if index else None
        self.on_damaged = on_damaged
        if exif not in EXIF:
            raise InputError(f"There is no dataset.exif={exif}. {nearest(exif, EXIF)}")
        self.upright = exif == "apply"
        self.bits = check_bits(bits)

    def quick_check(self, view: str, split: str, **options: Any) -> None:
        """Refuse faults of severity "error" that show without reading all images."""
        faults = self.quick_faults(split, **options)
        check(forgive(faults, split, self.on_damaged))

    def survey(self, view: str, splits: Sequence[str], **options: Any) -> dict[str, Survey]:
        """The faults of each split outside its images, and the images to read."""
        if not any((self.root / folder).is_dir() for folder in self.FOLDERS):
            self.check_layout()
        surveys = {split: self.survey_split(split, **options) for split in splits}
        if len(surveys) == 2:
            surveys["val"].faults += self.compare_classes(surveys["train"], surveys["val"])
        return surveys

    def check_layout(self) -> None:
        """Refuse a folder that does not have this layout, with what was expected."""
        self.need(self.NEEDED)

    def quick_faults(self, split: str, *args: Any, **options: Any) -> list[Fault]:
        """The faults of a split that show without reading all images."""
        raise NotImplementedError

    def survey_split(self, split: str, *args: Any, **options: Any) -> Survey:
        """Every fault of a split outside its images, and the images to read."""
        raise NotImplementedError

    def compare_classes(self, train: Survey, val: Survey) -> list[Fault]:
        """Where the classes of the splits differ; here both have those of one file."""
        return []

    def folder_of(self, split: str) -> str:
        """The name of the folder of "train" or "val"."""
        if split not in self.SPLITS:
            raise InputError(f"There is no split {split!r}. {nearest(split, self.SPLITS)}")
        return self.SPLITS[split]

    def need(self, paths: Iterable[str]) -> None:
        """Raise InputError with the whole layout where a path below `root` is missing."""
        missing = [path for path in paths if not (self.root / path).exists()]
        if not missing:
            return
        here = f"There is no {self.TITLE} tree at {self.root.absolute()}: "
        here += f"{', '.join(missing)} missing. Expected there:{self.TREE}\n"
        if self.name == "digits":
            raise InputError(
                f"{here}Another version may have written it: delete the folder to have it written "
                "anew, or use dataset.root=/path."
            )
        raise InputError(
            f"{here}Use dataset={self.name} dataset.root=/path, or set PVT_BENCH_DATA=/path where "
            f"/path/{self.name} is that tree, or take the built-in dataset=digits."
        )


def check_bits(bits: int | None) -> int | None:
    """Return `dataset.bits`, or refuse it.

    Raises:
        InputError: it is neither null nor a whole number from 8 to 32.
    """
    if bits is not None and (type(bits) is not int or not 8 <= bits <= 32):
        raise InputError(
            f"dataset.bits={bits} must be the bits that images of more than 8 bits use, from 8 to "
            "32. Use for example dataset.bits=12, or dataset.bits=null to go by their values."
        )
    return bits


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        InputError: it cannot be read, or is no such text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Expected a text in UTF-8, as in the original archive."
        ) from error
