"""What values of JSON may be taken for."""

import math
import re
from typing import Any

MASK = 2**31  # pixels; no image that is read has as many
FAR = 2**20  # pixels; the library that fills polygons walks along every pixel of their edges
SURROGATE = re.compile("[\ud800-\udfff]")  # which JSON can hold, and no file or screen
LARGEST = 2**53  # up to it every whole number is exact in all tools that read JSON


def whole(value: Any) -> Any:
    """A whole number in whatever form, `7.0` or `"7"`, as int; any other value as it is."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value


def number(value: Any) -> Any:
    """A number, also where it is written as text; any other value as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def is_name(value: Any) -> bool:
    """Whether a value is a text that is not empty and has no halves of characters."""
    return isinstance(value, str) and bool(value) and not SURROGATE.search(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are not."""
    return type(value) in (int, float)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that can be an id."""
    return type(value) is int and abs(value) < LARGEST


def is_positive(value: Any) -> bool:
    """Whether a value is a whole number above 0."""
    return is_whole(value) and value > 0


def is_finite(value: Any) -> bool:
    """Whether a value is a number that arithmetic can use; true and false are not."""
    return is_number(value) and abs(value) < LARGEST and not math.isnan(value)


def is_polygon(value: Any) -> bool:
    """Whether a value is a list of at least three points, [x1, y1, x2, y2, ...], in reach."""
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    return all(is_finite(each) and abs(each) < FAR for each in value)


def is_run_lengths(value: Any) -> bool:
    """Whether a value can be the `counts` of a mask, as a list or packed into a text."""
    if isinstance(value, list):
        return all(type(each) is int and 0 <= each < MASK for each in value)
    return isinstance(value, str)
