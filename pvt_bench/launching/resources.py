"""Resources of the machines that run a cell: the launcher's keys, and options that users type for
`sbatch` beside them."""

import re
from collections.abc import Mapping
from typing import Any

from pvt_bench.config.launchers import Gpus, LauncherName, read_gpus
from pvt_bench.config.schema import Config
from pvt_bench.errors import InputError

TYPED = "launcher.additional_parameters"
# The launcher sets these itself, to save in time and to find its jobs again.
OWN = {
    "array": "launcher.jobs=16, the number of cells at once",
    "time": "launcher.timeout_min=1440, in minutes",
    "signal": "launcher.signal_delay_s=120, in seconds",
}
# Other options for the same; SLURM takes one of them.
EXCLUSIVE = {
    "mem": ("mem_per_cpu", "mem_per_gpu"),
    "cpus_per_task": ("cpus_per_gpu",),
}
KEYS = {"mem": "mem_gb"}
GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")
# Parts of a GPU, of an unknown number of GPUs.
SHARES = ("mps", "shard")
MEGABYTES = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


def count_gpus(config: Config) -> int:
    """GPUs of each node of a cell."""
    return _gpus(config).number


def visible_gpus(config: Config) -> list[int]:
    """The numbers of the GPUs that cells on this machine share."""
    import torch

    if config.launcher.visible_gpus is not None:
        return list(config.launcher.visible_gpus)
    return list(range(torch.cuda.device_count()))


def for_slurm(config: Config, name: str) -> dict[str, Any]:
    """Options of submitit for a cell's job of that name; what the user types for `sbatch` is sent
    as it is, in place of the key for the same.

    Raises:
        InputError: the user types two things that cannot both be.
    """
    launcher, trainer = config.launcher, config.trainer
    typed = {key.replace("-", "_"): value for key, value in launcher.additional_parameters.items()}
    ours = {
        "nodes": trainer.num_nodes,
        "ntasks_per_node": trainer.devices,
        "cpus_per_task": launcher.cpus_per_task,
        "mem": None if launcher.mem_gb is None else f"{int(1024 * launcher.mem_gb)}MB",
        **{key: getattr(launcher, key) for key in ("partition", "account", "qos", "constraint")},
    }
    _check_processes(config, typed)
    for key, value in ours.items():
        _check_same(key, value, typed)
    gpus = None if _types_gpus(config, typed) else _gpus(config)
    parameters = ours | {
        "job_name": name,
        "time": launcher.timeout_min,
        "gpus_per_node": str(gpus) if gpus and gpus.number else None,
        "signal_delay_s": launcher.signal_delay_s,
        "array_parallelism": launcher.jobs,
        "setup": list(launcher.setup) or None,
        "additional_parameters": typed or None,
        "stderr_to_stdout": True,
    }
    return {key: each for key, each in parameters.items() if each is not None}


def _gpus(config: Config) -> Gpus:
    asked = read_gpus(config.launcher.gpus)
    if asked is not None:
        return asked
    wanted = ["gpu"]
    if config.launcher.name == LauncherName.local and visible_gpus(config):
        wanted.append("auto")
    return Gpus(config.trainer.devices if config.trainer.accelerator in wanted else 0)


def _check_processes(config: Config, typed: Mapping[str, Any]) -> None:
    """Refuse options that the launcher sets itself, and another number of processes."""
    for key, instead in OWN.items():
        if key in typed:
            raise InputError(f"{TYPED}.{key}: the launcher sets it itself. Use {instead}.")
    trainer = config.trainer
    if str(typed.get("ntasks", "")) not in ("", str(trainer.devices * trainer.num_nodes)):
        raise InputError(
            f"{TYPED}.ntasks={typed['ntasks']}: a cell has trainer.devices={trainer.devices} "
            f"processes on each of trainer.num_nodes={trainer.num_nodes} nodes. Leave ntasks out, "
            "and use these two."
        )


def _check_same(key: str, ours: Any, typed: Mapping[str, Any]) -> None:
    """Refuse a typed option that contradicts the key for the same."""
    if ours is None:
        return
    own = {"nodes": "trainer.num_nodes", "ntasks_per_node": "trainer.devices"}
    name = own.get(key, f"launcher.{KEYS.get(key, key)}")
    if key in typed and _canonical(key, ours) != _canonical(key, typed[key]):
        raise InputError(
            f"{name} says {key}={ours}, and {TYPED} says {key}={typed[key]}. Use one of the two; "
            f"{name} is enough."
        )
    for other in EXCLUSIVE.get(key, ()):
        if other in typed:
            raise InputError(
                f"{name} says {key}={ours}, and {TYPED} says {other}={typed[other]}: SLURM takes "
                f"one of the two. Use {name}=null to keep {other}."
            )


def _types_gpus(config: Config, typed: Mapping[str, Any]) -> bool:
    """Whether the user types GPUs for `sbatch`; refuse another number than the cell can use."""
    found = {key: str(typed[key]) for key in GPU_OPTIONS if key in typed}
    if not names_gpus(found):
        return False
    asked = read_gpus(config.launcher.gpus)
    trainer = config.trainer
    if "gpus_per_task" in found and trainer.devices > 1 and trainer.accelerator != "cpu":
        raise InputError(
            f"{TYPED}.gpus_per_task={found['gpus_per_task']}: SLURM would show each of "
            f"trainer.devices={trainer.devices} processes no GPUs but its own, and they take them "
            f"by number. Use +{TYPED}.gpus_per_node={trainer.devices} instead."
        )
    for option, text in found.items():
        number, kinds = count_typed(option, text, trainer.devices, trainer.num_nodes)
        if number is None:
            continue
        word = f"{TYPED}.{option}={text}"
        gives = f"{word} gives each node {number:g} GPUs"
        if asked is not None:
            if number != asked.number or (asked.kind and kinds - {asked.kind}):
                raise InputError(
                    f"{gives}{_of(kinds)}, and launcher.gpus={asked} asks for {asked.number}"
                    f"{_of({asked.kind})}. Use one of the two."
                )
        elif trainer.accelerator != "cpu" and number != trainer.devices:
            raise InputError(
                f"{gives}, and trainer.devices={trainer.devices} makes as many processes, one a "
                f"GPU. Use trainer.devices={max(1, int(number))}, or {option} for "
                f"{trainer.devices} GPUs a node."
            )
    return True


def names_gpus(options: Mapping[str, str]) -> bool:
    """Whether options of `sbatch` ask for GPUs, and not only for other generic resources."""
    parts = [part.split(":")[0] for part in options.get("gres", "").split(",")]
    return bool(options.keys() - {"gres"}) or any(part in ("gpu", *SHARES) for part in parts)


def count_typed(
    option: str, text: str, processes: int, nodes: int
) -> tuple[float | None, set[str]]:
    """GPUs of a node and their types, as an option of `sbatch` asks for them.

    The number is None where only SLURM can tell it.
    """
    number, kinds = 0.0, set()
    for part in text.split(","):
        if option == "gres":
            name, _, part = part.partition(":")
            if name in SHARES:
                return None, set()
            if name != "gpu":
                continue
        found = re.fullmatch(r"(?:([A-Za-z][^:()]*)(?::|$))?(\d+)?", part)
        if found is None:
            return None, set()
        number += int(found[2] or 1)
        kinds.add(found[1] or "")
    return number * {"gpus": 1 / nodes, "gpus_per_task": processes}.get(option, 1), kinds - {""}


def _of(kinds: set[str]) -> str:
    named = sorted(kinds - {""})
    return f" of type {', '.join(named)}" if named else ""


def _canonical(key: str, value: Any) -> float | str:
    """A value of an option as text; memory in megabytes."""
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", str(value).upper()) if key == "mem" else None
    return int(found[1]) * MEGABYTES[found[2] or "M"] if found else str(value)
