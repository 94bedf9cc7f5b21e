"""Which image files an ImageNet tree has, and of which classes they are."""

import csv
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pvt_bench.datasets.folders import ImageFolder, read_text
from pvt_bench.datasets.image_files import LEFT_BEHIND, ending, is_image
from pvt_bench.datasets.index import Index, load_index
from pvt_bench.errors import InputError
from pvt_bench.escaping import visible

TREE = """
  train/<WordNet id>/*.JPEG
  val/<WordNet id>/*.JPEG
or the validation images as they come, in one folder, with their truth
  val/ILSVRC2012_val_*.JPEG
  ILSVRC2012_devkit_t12/data/{ILSVRC2012_validation_ground_truth.txt,meta.mat}
  or LOC_val_solution.csv, of Kaggle"""
DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH, META, KAGGLE = "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "LOC_val_solution.csv"
TINY = "val_annotations.txt"
NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")


@dataclass(frozen=True)
class Files:
    """The N images of a split in the order of their names.

    `labels` (N,) are places in `wnids`, all WordNet ids, sorted. `in_class_folders`: each image
    lies in the folder of its class. `empty` are the places of files without content. `left_out`
    counts the files that are no images, by how their names end.
    """

    wnids: list[str]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    in_class_folders: bool
    empty: list[int]
    fingerprint: str
    left_out: dict[str, int]

    def path(self, index: int) -> str:
        """Where an image lies below the folder of its split."""
        name = os.fsdecode(self.names[index])
        return f"{self.wnids[self.labels[index]]}/{name}" if self.in_class_folders else name

    def paths(self) -> list[str]:
        """Where all images lie below the folder of their split."""
        return [self.path(index) for index in range(len(self.labels))]

    def labels_digest(self) -> str:
        """A SHA-256 of the images' names and labels, and of the classes."""
        digest = hashlib.sha256("\n".join(self.wnids).encode())
        for each in (*self.names.tolist(), self.labels.tobytes()):
            digest.update(b"\n" + each)
        return digest.hexdigest()


def list_files(tree: ImageFolder, split: str, index: Path | None) -> Files:
    """The images of a split, "train" or "val".

    The classes are those of `train/`; of the split where there is no `train/`.
    `fingerprint` is a SHA-256 over names, sizes in bytes and WordNet ids.

    Raises:
        InputError: no such tree, no images, or an image whose class is not known.
    """
    tree.need([split])
    root = tree.root
    _refuse_tiny(root)
    folder = root / split
    folders = class_folders(folder)
    truth = None if folders else _truth_file(tree)
    if truth is None:
        stamp = {each: _time(folder / each) for each in folders}
        kept = load_index(index, folder, stamp, partial(_scan_folders, folder, folders))
    else:
        stamp = {each.name: _time(each) for each in (folder, truth)}
        kept = load_index(index, folder, stamp, partial(_scan_flat, folder, truth))
    own: list[str] = kept.facts["wnids"]
    wnids = (class_folders(root / "train") if (root / "train").is_dir() else []) or own
    labels = kept.arrays["labels"]
    if wnids != own:
        unknown = sorted(set(own) - set(wnids))
        if unknown:
            raise InputError(
                f"{folder} has images of {len(unknown)} classes that {root / 'train'} has not: "
                f"{', '.join(unknown[:3])}. Expected the same classes in both."
            )
        labels = np.searchsorted(wnids, own)[labels]
    empty, fingerprint = kept.facts["empty"], kept.facts["fingerprint"]
    left_out = kept.facts["left_out"]
    return Files(wnids, kept.arrays["names"], labels, truth is None, empty, fingerprint, left_out)


def class_names(root: Path, wnids: list[str]) -> list[str]:
    """A short name of each class: from a file beside the images, else from timm, else the id."""
    from timm.data import ImageNetInfo

    known: dict[str, str] = {}
    for file in NAMES:
        if (root / file).exists():
            lines = read_text(root / file).splitlines()
            known = dict(line.split(maxsplit=1) for line in lines if " " in line)
            break
    info = ImageNetInfo()
    for wnid in info.label_names():
        known.setdefault(wnid, info.label_name_to_description(wnid))
    names = [known.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    counts = Counter(names)  # ImageNet has two cranes
    return [
        name if counts[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    ]


def _scan_folders(folder: Path, wnids: list[str]) -> Index:
    names: list[bytes] = []
    sizes: list[int] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    for label, wnid in enumerate(wnids):
        found = _images(folder / wnid, left_out)
        names += found
        sizes += found.values()
        labels += [label] * len(found)
    return _index(folder, names, sizes, labels, wnids, left_out)


def _scan_flat(folder: Path, truth: Path) -> Index:
    left_out: Counter[str] = Counter()
    found = dict(sorted(_images(folder, left_out).items()))
    classes = _kaggle_classes(truth) if truth.name == KAGGLE else _devkit_classes(truth, found)
    unknown = [os.fsdecode(name) for name in found if Path(os.fsdecode(name)).stem not in classes]
    if unknown:
        raise InputError(
            f"{truth} does not have the class of {len(unknown)} of {len(found)} images in "
            f"{folder}: {', '.join(unknown[:3])}. Expected the truth that belongs to the images."
        )
    wnids = sorted(set(classes.values()))
    place = {wnid: number for number, wnid in enumerate(wnids)}
    labels = [place[classes[Path(os.fsdecode(name)).stem]] for name in found]
    return _index(folder, list(found), list(found.values()), labels, wnids, left_out)


def _refuse_tiny(root: Path) -> None:
    """Say how Tiny ImageNet's tree becomes one that is read."""
    if not (root / "val" / TINY).is_file():
        return
    raise InputError(
        f"{root.absolute()} has val/{TINY}: it is laid out as Tiny ImageNet, and images in the "
        "folders of their classes are expected. Run there: for c in train/*; do "
        'mv "$c"/images/* "$c"; rmdir "$c"/images; done; '
        'while read -r image class rest || [ "$image" ]; do mkdir -p val/"$class"; '
        f'mv val/images/"$image" val/"$class"; done < val/{TINY}; '
        f"rmdir val/images; mv val/{TINY} ."
    )


def _index(
    folder: Path,
    names: list[bytes],
    sizes: list[int],
    labels: list[int],
    wnids: list[str],
    left_out: Counter[str],
) -> Index:
    """Everything in the order of names, and of classes where names are equal."""
    if not names:
        raise InputError(
            f"There are no images in {folder}. Expected in the dataset's folder:{TREE}"
        )
    ordered = np.array(names)
    order = np.lexsort([np.array(labels), ordered])
    digest = hashlib.sha256()
    for row in order.tolist():
        digest.update(names[row] + f" {sizes[row]} {wnids[labels[row]]}\n".encode())
    arrays = {"names": ordered[order], "labels": np.array(labels, np.int64)[order]}
    empty = np.flatnonzero(np.array(sizes)[order] == 0).tolist()
    facts = {"wnids": wnids, "empty": empty, "fingerprint": digest.hexdigest()}
    return Index(arrays, {**facts, "left_out": dict(left_out)})


def _kaggle_classes(truth: Path) -> dict[str, str]:
    try:
        rows = csv.DictReader(StringIO(read_text(truth), newline=""))
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{truth} is not Kaggle's: expected lines `ImageId,PredictionString`, such as "
            "`ILSVRC2012_val_00048981,n03995372 85 1 499 272`."
        ) from error


def _devkit_classes(truth: Path, found: dict[bytes, int]) -> dict[str, str]:
    """The n-th line is the class of the n-th image, as its id in `meta.mat`."""
    from scipy.io import loadmat

    meta = truth.with_name(META)
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        wnids = [wnid_of[int(line)] for line in read_text(truth).split()]
    except Exception as error:  # SciPy raises whatever it stumbles upon
        raise InputError(
            f"{truth} and {META} beside it cannot be read ({error}). Expected both of "
            f"ILSVRC2012_devkit_t12.tar.gz, or {KAGGLE} beside val/."
        ) from error
    if len(wnids) != len(found):
        raise InputError(
            f"{truth} has {len(wnids)} lines, but there are {len(found)} images. Expected one "
            "line an image."
        )
    return {Path(os.fsdecode(n)).stem: wnid for n, wnid in zip(found, wnids, strict=True)}


def _images(folder: Path, left_out: Counter[str]) -> dict[bytes, int]:
    """The image files of a folder and their sizes in bytes; the others are counted."""
    images = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry.name):
                images[os.fsencode(entry.name)] = entry.stat().st_size
            elif entry.is_file():
                left_out[ending(entry.name)] += 1
    return images


def class_folders(folder: Path) -> list[str]:
    """The folders within a folder, sorted, without hidden ones.

    Raises:
        InputError: the name of one is not UTF-8.
    """
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.is_dir() and not e.name.startswith(".") and e.name not in LEFT_BEHIND
        )
    for name in names:
        if name != name.encode(errors="ignore").decode():
            raise InputError(
                f"The name of the class folder {visible(str(folder / name))} is not UTF-8: tables "
                "and MLflow cannot show it. Rename the folder."
            )
    return names


def _truth_file(tree: ImageFolder) -> Path:
    places = [tree.root / each for each in (f"{DEVKIT}/{TRUTH}", TRUTH, KAGGLE)]
    found = [place for place in places if place.exists()]
    if not found:
        tree.need(["val/<WordNet id>/"])
    return found[0]


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns
