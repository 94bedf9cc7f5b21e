"""Settings of the cells of published tables: composed as runs are, and cached on disk.

Composing takes Hydra a tenth of a second per cell, and reports ask for the same dozens of cells
again and again. They are kept in the user's cache folder, in one file per state of the
configuration; where that folder cannot be written, each report composes them anew.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pvt_bench.config.choices import SEARCHPATH
from pvt_bench.config.command_line import compose_each
from pvt_bench.config.folders import config_dir, data_dir
from pvt_bench.config.schema import plain
from pvt_bench.files import replace
from pvt_bench.identity import flatten, of_other_view, role
from pvt_bench.report.sources.loaded import canonical

GROUPS = ("model", "task", "dataset", "schedule", "freeze")
PACKAGES = ("hydra-core", "omegaconf")
# Newest files that stay; a change of the configuration begins another.
KEPT = 4

Settings = dict[str, str]


def cell_settings(cells: Sequence[Sequence[str]]) -> list[Settings]:
    """Settings of cells, as text by dotted key, from the words that make each cell."""
    known, texts = _known(), [" ".join(cell) for cell in cells]
    missing = {text: cell for text, cell in zip(texts, cells, strict=True) if text not in known}
    if missing:
        for text, config in zip(missing, compose_each([*missing.values()]), strict=True):
            whole = plain(config)
            leaves = flatten({group: whole[group] for group in GROUPS})
            known[text] = {
                key: canonical(str(value))
                for key, value in leaves
                if role(key).modes and not of_other_view(key, config.task.view)
            }
        # What lies on the user's own search path is not in the digest.
        _keep({text: each for text, each in known.items() if SEARCHPATH not in text})
    return [known[text] for text in texts]


@cache
def _known() -> dict[str, Settings]:
    """Settings composed before, to which this process adds."""
    with suppress(OSError, RuntimeError, ValueError):
        found = json.loads(_file().read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _keep(known: dict[str, Settings]) -> None:
    with suppress(OSError, RuntimeError):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(known).encode())
        kept = sorted(path.parent.glob("cells-*.json"), key=lambda each: -each.stat().st_mtime)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)


def _file() -> Path:
    """Cache file for the configuration as it is; RuntimeError for a user without a home."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / f"pvt_bench/cells-{_digest()}.json"


def _digest() -> str:
    """Digest of everything that composing reads."""
    source = Path(__file__).parents[2] / "config"
    folders = {source: "*.py", config_dir(): "**/*.yaml", data_dir("experiments"): "**/*.yaml"}
    digest = hashlib.sha256(repr([version(name) for name in PACKAGES]).encode())
    for folder, pattern in folders.items():
        for path in sorted([*folder.glob(pattern)]):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    # This file decides which of the values are kept.
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]
