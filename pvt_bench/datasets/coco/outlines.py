"""COCO's segmentations as flat arrays."""

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outlines:
    """A read-only list of N segmentations, each a list of polygons or run lengths.

    Polygons are kept as numbers: object n has the rings `objects[n]` to `objects[n + 1]`, and
    ring r the values `rings[r]` to `rings[r + 1]` of `points`, x and y in turns. Everything else
    is kept as JSON: `texts[n]` to `texts[n + 1]` of `text`. Coordinates have 64 bits: rounded to
    32, every second mask would differ by a pixel or more from pycocotools'.
    """

    objects: NDArray[np.int64]
    rings: NDArray[np.int64]
    points: NDArray[np.float64]
    texts: NDArray[np.int64]
    text: NDArray[np.uint8]

    @classmethod
    def pack(cls, segmentations: Iterable[Any]) -> "Outlines":
        """Keep segmentations as they are in COCO's JSON, usable or not."""
        objects, rings, texts = array("q", [0]), array("q", [0]), array("q", [0])
        points, text = array("d"), bytearray()
        for segmentation in segmentations:
            polygons = _polygons(segmentation)
            for polygon in polygons:
                points.extend(polygon)
                rings.append(len(points))
            if not polygons:
                text += json.dumps(segmentation).encode()
            objects.append(len(rings) - 1)
            texts.append(len(text))
        return cls(
            objects=np.frombuffer(objects, np.int64),
            rings=np.frombuffer(rings, np.int64),
            points=np.frombuffer(points, np.float64),
            texts=np.frombuffer(texts, np.int64),
            text=np.frombuffer(text, np.uint8),
        )

    def __len__(self) -> int:
        return len(self.objects) - 1

    def __getitem__(self, index: int) -> Any:
        first, last = self.objects[index : index + 2].tolist()
        if first == last:
            return json.loads(self.text[self.texts[index] : self.texts[index + 1]].tobytes())
        ends = self.rings[first : last + 1].tolist()
        return [self.points[a:b].tolist() for a, b in pairwise(ends)]


def _polygons(segmentation: Any) -> "list[array[float]]":
    """The polygons of a segmentation; none if it is anything else."""
    if not isinstance(segmentation, list) or not all(isinstance(r, list) for r in segmentation):
        return []
    try:
        return [array("d", ring) for ring in segmentation]
    except (OverflowError, TypeError):
        return []
