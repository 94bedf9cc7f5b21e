"""A tiny tree in the layout of ADEChallengeData2016."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((48, 64), (70, 50), (40, 120))  # height, width
NAMES = ("wall", "building, edifice", "sky")


def write_ade20k_tree(root: Path) -> Path:
    """Write both splits below `root`, three images each.

    The left half is a red "wall" (1), the right half a blue "sky" (3), and the upper eight rows
    are black and unlabelled (0).
    """
    for folder, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for kind in ("images", "annotations"):
            (root / kind / folder).mkdir(parents=True)
        for number, (height, width) in enumerate(SIZES, start=1):
            values = np.full((height, width), 1, np.uint8)
            values[:, width // 2 :] = 3
            values[:8] = 0
            colours = np.array([(0, 0, 0), (200, 0, 0), (0, 255, 0), (0, 0, 200)], np.uint8)
            name = f"{prefix}_{number:08d}"
            Image.fromarray(values).save(root / "annotations" / folder / f"{name}.png")
            image = Image.fromarray(colours[values])
            image.save(root / "images" / folder / f"{name}.jpg", quality=98, subsampling="4:4:4")
    rows = [f"{i}\t0.1\t5\t5\t1\t{name} " for i, name in enumerate(NAMES, start=1)]
    names = "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows])
    (root / "objectInfo150.txt").write_text(names + "\n")
    return root
