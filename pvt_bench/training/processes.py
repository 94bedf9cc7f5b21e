"""What several processes of one run tell each other; one process alone is the plain case."""

from typing import Any

from torch import distributed


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes work on the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of their ranks, on each of them."""
    if count() == 1:
        return items
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
