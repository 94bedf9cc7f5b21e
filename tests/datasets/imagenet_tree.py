"""A tiny tree in ImageNet's layout, with its validation images in each of the usual ways."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

# Not in the order of the devkit's ids, which are those of its own list.
WNIDS = ("n01440764", "n02084071", "n03995372")
DEVKIT_IDS = {"n03995372": 1, "n01440764": 2, "n02084071": 3}
VAL = ("n02084071", "n03995372", "n01440764", "n02084071", "n02084071")
TRAIN_PER_CLASS = 4
SIZE = (100, 80)  # width, height


def write_imagenet_tree(root: Path, val: str = "folders") -> Path:
    """Write both splits below `root`; `val` is "folders", "devkit" or "kaggle".

    Images are one colour with a white stripe on the left; the colour's red is 60 * label.
    """
    for label, wnid in enumerate(WNIDS):
        for number in range(TRAIN_PER_CLASS):
            save_image(root / "train" / wnid / f"{wnid}_{number}.JPEG", label)
    names = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(VAL) + 1)]
    for name, wnid in zip(names, VAL, strict=True):
        folder = root / "val" / (wnid if val == "folders" else "")
        save_image(folder / f"{name}.JPEG", WNIDS.index(wnid))
    if val == "devkit":
        _write_devkit(root / "ILSVRC2012_devkit_t12" / "data")
    if val == "kaggle":
        with (root / "LOC_val_solution.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ImageId", "PredictionString"])
            pairs = list(zip(names, VAL, strict=True))
            writer.writerows(
                [name, f"{wnid} 1 2 30 40 {wnid} 5 6 7 8"] for name, wnid in pairs[::-1]
            )
    return root


def save_image(path: Path, label: int, size: tuple[int, int] = SIZE) -> None:
    """Save an image of a label."""
    pixels = np.full((size[1], size[0], 3), (60 * label, 30, 90), np.uint8)
    pixels[:, : size[0] // 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="JPEG", quality=95)


def _write_devkit(folder: Path) -> None:
    folder.mkdir(parents=True)
    truth = "\n".join(str(DEVKIT_IDS[wnid]) for wnid in VAL)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth + "\n")
    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(i, wnid, "some, words", 0) for wnid, i in DEVKIT_IDS.items()]
    synsets = np.array([*rows, (4, "n00001740", "entity", 3)], dtype=fields)
    savemat(folder / "meta.mat", {"synsets": synsets[:, None]})
