"""What a file of `torch.save` may hold beside tensors: each stands for data, and runs nothing.

numpy's own functions are never called on what a file says: with a forged dtype they read memory
that is not theirs.
"""

import argparse
import re
from pathlib import PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor


class PlainType:
    """A dtype of numpy, of numbers or texts.

    Raises:
        UnpicklingError: objects, records, dates.
    """

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biufcSU]\d+", code):
            raise UnpicklingError(f"GLOBAL numpy.dtype({code}) is not allowed")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.numpy = self.numpy.newbyteorder(state[1])

    def read(self, data: bytes) -> np.ndarray:
        """The values in a machine's own order of bytes."""
        return np.frombuffer(data, self.numpy).astype(self.numpy.newbyteorder("="))


class PlainArray:
    """An array of numpy; as a tensor, or None if it is of texts."""

    tensor: Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        values = dtype.read(data).reshape(shape, order="F" if fortran else "C")
        self.tensor = torch.from_numpy(values) if values.dtype.kind in "biufc" else None


def start_array(*_: object) -> PlainArray:
    """What numpy's pickles begin an array with; its state follows."""
    return PlainArray()


def read_scalar(dtype: PlainType, data: bytes) -> Any:
    """A scalar of numpy as a number or text of Python's."""
    return dtype.read(data).item()


def no_bytes() -> bytes:
    """The data of an empty array."""
    return b""


# By the names in pickles; numpy 2 calls its core _core, Python 3.13 has pathlib._local.
ALLOWED: list[Any] = [
    argparse.Namespace,
    (no_bytes, "builtins.bytes"),
    (PlainType, "numpy.dtype"),
    (PlainArray, "numpy.ndarray"),
    *((start_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((read_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
