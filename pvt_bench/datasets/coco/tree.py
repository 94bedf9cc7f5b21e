"""COCO's layout, and what is wrong with a folder in it."""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

from pvt_bench.datasets.coco.annotations import Annotations, read_annotations
from pvt_bench.datasets.coco.document import read_document
from pvt_bench.datasets.coco.entries import Size
from pvt_bench.datasets.coco.file_names import find_files
from pvt_bench.datasets.faults import kinds
from pvt_bench.datasets.faults.files import Survey, check_listed
from pvt_bench.datasets.faults.images import Job, check_size
from pvt_bench.datasets.faults.kinds import Fault, as_unread, check
from pvt_bench.datasets.fingerprints import file_stamp
from pvt_bench.datasets.folders import ImageFolder
from pvt_bench.datasets.index import Index, load_index
from pvt_bench.errors import InputError

LOOKED_AT = 400  # images whose sizes are compared before a run: a tenth of a second
ROBOFLOW = "_annotations.coco.json"
TREE = """
  annotations/instances_train2017.json
  annotations/instances_val2017.json
  train2017/
  val2017/"""


class CocoTree(ImageFolder):
    """A folder with an annotation file and a folder of images for each split."""

    TITLE, TREE = "COCO", TREE
    NEEDED = TREE.split()
    FOLDERS = ("annotations", "train2017", "val2017")
    SPLITS: ClassVar = {"train": "train2017", "val": "val2017"}

    def annotation_file(self, split: str) -> Path:
        """The annotation file of "train" or "val"."""
        return self.root / "annotations" / f"instances_{self.folder_of(split)}.json"

    def check_layout(self) -> None:
        """Refuse another layout; say how an export of Roboflow's becomes this one."""
        found = {name: self.root / name / ROBOFLOW for name in ("train", "valid", "test")}
        if found["train"].exists() and not (self.root / "annotations").exists():
            val = "valid" if found["valid"].exists() else "test"
            raise InputError(
                f"{self.root.absolute()} has train/{ROBOFLOW}, as Roboflow exports it, and COCO's "
                "layout is expected. Run there: mkdir annotations; mv train train2017; "
                f"mv {val} val2017; "
                f"mv train2017/{ROBOFLOW} annotations/instances_train2017.json; "
                f"mv val2017/{ROBOFLOW} annotations/instances_val2017.json"
            )
        self.need(self.NEEDED)

    def quick_faults(self, split: str, masks: bool = False) -> list[Fault]:
        """Images that are missing, empty, or of another size than the annotation file says.

        The annotation file is read anew only where it has changed since it was found to be without
        errors. Of many images the sizes of some are compared.

        Raises:
            InputError: an error in the annotation file, or other categories in training.
        """
        self.check_layout()
        held = self._read_checked(split, masks)
        if split == "train":
            val = self._read_checked("val", masks)
            splits = (Survey(classes=_classes(each.names_by_id())) for each in (held, val))
            check(self.compare_classes(*splits))
        folder = self.SPLITS[split]
        names, sides = held.file_names.tolist(), map(tuple, held.sizes.tolist())
        sizes = self._on_disk(split, dict(zip(names, sides, strict=True)))
        faults, readable = check_listed(self.root, folder, sizes)
        for name in readable[:: -(-len(readable) // LOOKED_AT) or 1]:
            faults += check_size(self.root, f"{folder}/{name}", sizes[name], self.upright)
        return faults

    def survey_split(self, split: str, masks: bool = False) -> Survey:
        """Every fault of a split outside its images, and the images to read.

        Without `masks` the faults of segmentations are notes.
        """
        folder, path = self.SPLITS[split], self.annotation_file(split)
        document = read_document(path, split == "train")
        faults = document.faults
        for fault in document.outline_faults():
            kind = fault.kind if masks else fault.kind.as_note("This task does not read it.")
            faults.append(Fault(kind, fault.where, fault.detail))
        images = {row["file_name"]: document.size(each) for each, row in document.images.items()}
        read = {document.images[each]["file_name"] for each in document.read_images()}
        unread = self._on_disk(split, {name: images[name] for name in images.keys() - read})
        sizes = self._on_disk(split, images)
        missing, readable = check_listed(self.root, folder, sizes)
        for fault in missing:
            name = fault.where.removeprefix(f"{folder}/")
            faults += as_unread([fault]) if name in unread else [fault]
        jobs = [
            Job(
                self.root,
                f"{folder}/{name}",
                size=sizes[name],
                upright=self.upright,
                bits=self.bits,
                unread=name in unread,
            )
            for name in sorted(readable)
        ]
        return Survey(faults, jobs, _classes(document.classes), [path])

    def compare_classes(self, train: Survey, val: Survey) -> list[Fault]:
        """Where the categories of the two splits differ."""
        if not train.classes or not val.classes or train.classes == val.classes:
            return []
        odd = sorted(set(train.classes) ^ set(val.classes))
        where = "annotations/instances_val2017.json"
        return [Fault(kinds.OTHER_CATEGORIES, where, ", ".join(odd[:5]))]

    def _read_checked(self, split: str, masks: bool) -> Annotations:
        """The annotations of a file without errors; its segmentations count where `masks` do."""
        path, training = self.annotation_file(split), split == "train"
        read = cache(partial(read_document, path, training))
        held = read_annotations(path, training, self.index, read)
        if masks:

            def check_outlines() -> Index:
                check(read().outline_faults())
                return Index({}, {})

            variant = f"outlines of {split}"
            load_index(self.index, path, file_stamp(path), check_outlines, variant)
        return held

    def _on_disk(self, split: str, sizes: Mapping[str, Size]) -> dict[str, Size]:
        """The sizes of images by the names of their files, which may be spelt in another way."""
        files, _ = find_files(self.root / self.SPLITS[split], list(sizes))
        return dict(zip(files, sizes.values(), strict=True))


def _classes(names: Mapping[int, str]) -> list[str]:
    return [f"{number} {name}" for number, name in names.items()]
