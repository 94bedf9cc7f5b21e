"""What of a configuration is known to be wrong before anything is built or read."""

import ctypes
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from pvt_bench.config.keys import check_targets
from pvt_bench.config.launchers import Launcher, LauncherName, read_gpus
from pvt_bench.config.places import check_places
from pvt_bench.config.schema import Config, Mode, select
from pvt_bench.errors import InputError, nearest

CHOICES = {
    "trainer.precision": ("32-true", "bf16-mixed"),
    "speed.dtype": ("float32", "bfloat16", "float16"),
}
AMD = Path("/dev/kfd")  # the device of AMD's driver
COUNTS = (
    *("trainer.devices", "trainer.num_nodes"),
    *("trainer.checkpoint_every", "trainer.log_every", "speed.repeats"),
)


def check(config: Config) -> None:
    """Refuse what would fail on whatever machine.

    Raises:
        InputError: the first value that cannot be used.
    """
    check_targets(config)
    check_values(config)


def check_early(configs: Sequence[Config]) -> None:
    """Refuse what is wrong with every run of a command, before a library is loaded.

    Raises:
        InputError: what they have in common; what only some have is told once all are checked.
    """
    messages = set()
    for config in configs:
        try:
            check_driver(config)
            check_values(config)
            check_places(config)
        except InputError as error:
            messages.add(str(error))
        else:
            return
    if len(messages) == 1:
        raise InputError(messages.pop())


def check_driver(config: Config) -> None:
    """Refuse a GPU where not even the driver is installed without which torch finds none.

    Raises:
        InputError: says so.
    """
    asked = config.trainer.accelerator == "gpu" and config.launcher.name != LauncherName.slurm
    if asked and not _has_driver():
        raise InputError(no_gpu())


def no_gpu() -> str:
    """The message where a GPU is asked for and this machine has none."""
    return (
        f"trainer=gpu or trainer=ddp: torch finds no GPU on {socket.gethostname()}. Use "
        "trainer=cpu, or trainer=auto to use a GPU where there is one."
    )


def _has_driver() -> bool:
    """Whether a driver of NVIDIA or AMD is there; True where only torch can tell."""
    if not sys.platform.startswith("linux") or AMD.exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def check_values(config: Config) -> None:
    """Refuse values that no run can use; imports nothing that `_target_` names.

    Raises:
        InputError: the first of them.
    """
    for key in COUNTS:
        if (count := select(config, key)) < 1:
            raise InputError(f"{key}={count} must be at least 1.")
    _check_processes(config)
    _check_gpus(config.launcher)
    for key, choices in CHOICES.items():
        if (value := select(config, key)) not in choices:
            raise InputError(f"There is no {key}={value}. {nearest(value, choices)}")
    size = config.speed.size
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(
            f"speed.size={list(size)} must be a height and a width in pixels. Use for example "
            "speed.size=[800,1280]."
        )
    if config.mode == Mode.test and config.weights is None:
        raise InputError(
            "mode=test scores a trained network and needs one: use weights=PATH, for example "
            "the weights.safetensors of a finished run."
        )


def _check_processes(config: Config) -> None:
    trainer, batch = config.trainer, config.schedule.batch_size
    processes = trainer.devices * trainer.num_nodes
    if processes == 1:
        return
    if config.mode in (Mode.cost, Mode.speed):
        raise InputError(
            f"mode={config.mode} measures one device, and trainer.devices={trainer.devices} asks "
            "for more. Use trainer.devices=1."
        )
    if config.mode == Mode.train and batch % processes:
        raise InputError(
            f"schedule.batch_size={batch} counts the images of all {processes} processes "
            "(trainer.devices x trainer.num_nodes), and cannot be shared among them equally. Use "
            f"schedule.batch_size={max(1, batch // processes) * processes}."
        )
    if trainer.num_nodes > 1 and config.launcher.name != LauncherName.slurm:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: only SLURM gives several nodes. Use "
            "launcher=slurm, or trainer.num_nodes=1."
        )


def _check_gpus(launcher: Launcher) -> None:
    gpus = read_gpus(launcher.gpus)
    if gpus and gpus.kind and launcher.name != LauncherName.slurm:
        raise InputError(
            f"launcher.gpus={gpus}: only SLURM knows types of GPUs. Use "
            f"launcher.gpus={gpus.number}, or launcher=slurm."
        )
