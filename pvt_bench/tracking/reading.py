"""Records on disk: found and read, whoever has them open."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from pvt_bench.errors import InputError

LOG = "log.txt"  # within a record: what its run printed
STATES = ("queued", "running", "finished", "failed", "interrupted")
# What every status holds from the start; all else may be missing.
FIELDS = {"state": str, "created": str, "attempt": int}
# Where others are there, they are mappings.
MAPPINGS = ("launch", "mlflow", "result", "measured", "content")
MOMENTS = ("created", "started")
# What reading the configuration of a damaged record raises.
DAMAGED = (OSError, ValueError, TypeError, AttributeError, RecursionError, YAMLError)


def find_directory(results_dir: Path | str, label: str, key: str) -> Path:
    """Where the record of an identity is, whatever its label was, or where it is to be."""
    place = _place(results_dir, label)
    found = sorted(place.parents[2].glob(f"*/*/*-{key}"))
    return found[0] if found else place.with_name(f"{place.name}-{key}")


def find_labelled(results_dir: Path | str, label: str) -> list[Path]:
    """The directories of the records of a label, whatever their identities, sorted."""
    place = _place(results_dir, label)
    with suppress(OSError):
        beside = place.parent.iterdir()
        return sorted(path for path in beside if path.name.rpartition("-")[0] == place.name)
    return []


def _place(results_dir: Path | str, label: str) -> Path:
    """The path of a label's records, without their identities."""
    parts = [_safe(part) for part in label.split("/")]
    if len(parts) != 3:
        raise ValueError(f"a label has three parts, task/dataset/name: {label!r}")
    return Path(results_dir).expanduser().resolve().joinpath("runs", *parts)


def find_records(results_dir: Path | str) -> list[Path]:
    """The directories of all records under `results_dir`, sorted; none of them is opened."""
    return sorted(path.parent for path in Path(results_dir).glob("runs/*/*/*/status.json"))


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration that a record was made with, plain; raises one of DAMAGED."""
    config = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    if not isinstance(config, dict):
        raise ValueError(f"{directory / 'config.yaml'} is not a configuration")
    return {str(key): value for key, value in config.items()}


def read_status(directory: Path) -> dict[str, Any]:
    """The content of a record's `status.json`, whoever has the record open.

    Raises:
        InputError: it cannot be read, or is not that of a record as this version knows it.
    """
    status = _read_json(directory / "status.json")
    if wrong := _fault_of(status):
        raise InputError(
            f"{directory / 'status.json'} is not that of a record that this version of pvt-bench "
            f"knows ({wrong}). Use the version that wrote it, move the directory away, or start "
            "the run over: rerun=true."
        )
    return status


def mlflow_run(status: Mapping[str, Any]) -> str | None:
    """The id of a record's run in MLflow."""
    return (status.get("mlflow") or {}).get("run_id")


def mlflow_runs(directory: Path) -> list[str]:
    """All runs in MLflow that a record has had, as far as it can still be read."""
    try:
        status = read_status(directory)
    except InputError:
        return []
    run_id = mlflow_run(status)
    return [*(status.get("superseded") or []), *([run_id] if run_id else [])]


def _fault_of(status: Mapping[str, Any]) -> str:
    lacking = [key for key in FIELDS if key not in status]
    if lacking:
        return f"without {', '.join(lacking)}"
    wrong = [key for key, kind in FIELDS.items() if not isinstance(status[key], kind)]
    wrong += [key for key in MAPPINGS if not isinstance(status.get(key) or {}, dict)]
    if not isinstance(status.get("superseded") or [], list):
        wrong.append("superseded")
    if not wrong:
        wrong = [key for key in MOMENTS if not _is_moment(status.get(key))]
        wrong += ["state"] if status["state"] not in STATES else []
    return ", ".join(f"{key}: {str(status[key])[:40]}" for key in wrong)


def _is_moment(text: object) -> bool:
    try:
        return text is None or datetime.fromisoformat(str(text)).tzinfo is not None
    except ValueError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"it holds {str(found)[:40]}")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}). Mend it, or start the run over: rerun=true."
        ) from error
    return found


def _safe(part: str) -> str:
    # 255 bytes is the usual limit of a file name; hash and temporary suffixes need some of them.
    return re.sub(r"[^\w.,=+-]+", "_", part, flags=re.ASCII).lstrip(".-")[:160] or "_"
