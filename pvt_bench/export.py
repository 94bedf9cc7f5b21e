"""Writes the backbone of a trained network to a file of its own.

    python -m pvt_bench.export weights=RUN/weights.safetensors to=backbone.safetensors

The tensors have the names of timm's classifier where timm has the network, so that
`timm.create_model(name)` takes the file; a pyramid has no head and needs
`strict=False`. `model.weights=` takes it as well.

Exit codes: 0 written; 2 the words or the file cannot be used.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pvt_bench.commands import DONE, read_words, run_command
from pvt_bench.errors import InputError
from pvt_bench.screen import say

KEYS = ("weights", "to")
USAGE = "Use weights=RUN/weights.safetensors to=backbone.safetensors."


def main(words: Sequence[str]) -> int:
    """Export the backbone that the command line names; the exit code."""
    return run_command(words, export_typed, __doc__)


def export_typed(words: Sequence[str]) -> int:
    """Export the backbone that is typed; the exit code."""
    weights, target = read_paths(words)
    # Torch comes with it: imported once the words are known to be right.
    from pvt_bench.backbones.exporting import export_backbone

    say(export_backbone(weights, target))
    return DONE


def read_paths(words: Sequence[str]) -> tuple[Path, Path]:
    """The values of `weights` and `to`."""
    given = dict(read_words(words, KEYS))
    for key in KEYS:
        if not given.get(key):
            raise InputError(f"{key}= is missing. {USAGE}")
    if not given["to"].endswith(".safetensors"):
        raise InputError(f"to={given['to']} must end in .safetensors. {USAGE}")
    weights = Path(given["weights"])
    if not weights.is_file():
        raise InputError(f"There is no file {weights}. {USAGE}")
    return weights, Path(given["to"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
