"""From a configuration to the objects of a run; what cannot be built is an InputError."""

import socket
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from pvt_bench.backbones import create, freeze, load_network
from pvt_bench.config.keys import check_targets
from pvt_bench.config.schema import LauncherName, Mode, plain, read_gpus
from pvt_bench.config.targets import build
from pvt_bench.datasets.faults.checks import quick_check
from pvt_bench.errors import InputError, nearest
from pvt_bench.parallel import count_cores

PRECISIONS = ("32-true", "bf16-mixed")
DTYPES = ("float32", "bfloat16", "float16")


def check_device(config: DictConfig) -> None:
    """Refuse devices that this machine lacks."""
    if config.trainer.accelerator == "cpu":
        return
    gpus, asked = torch.cuda.device_count(), config.trainer.devices
    if config.trainer.accelerator == "gpu" and not gpus:
        raise InputError(
            f"trainer=gpu or trainer=ddp: torch finds no GPU on {socket.gethostname()}. Type "
            "trainer=cpu, or trainer=auto to take a GPU where there is one."
        )
    if gpus and asked > gpus:
        raise InputError(
            f"trainer.devices={asked}, but {socket.gethostname()} has {gpus}. Type "
            f"trainer.devices={gpus}, or trainer=cpu."
        )


def check(config: DictConfig) -> None:
    """Refuse what is known to be wrong before anything is built or read, on whatever machine."""
    check_targets(config)
    _check_processes(config)
    _check_gpus(config.launcher)
    _check_choice("trainer.precision", config.trainer.precision, PRECISIONS)
    _check_choice("speed.dtype", config.speed.dtype, DTYPES)
    for key in ("trainer.checkpoint_every", "trainer.log_every", "speed.repeats"):
        if OmegaConf.select(config, key) < 1:
            raise InputError(f"{key}={OmegaConf.select(config, key)} must be at least 1.")
    size = config.speed.size
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(
            f"speed.size={list(size)} must be a height and a width in pixels. Type for example "
            "speed.size=[800,1280]."
        )
    if config.mode == Mode.test and config.weights is None:
        raise InputError(
            "mode=test scores a trained network and needs one: type weights=PATH, for example "
            "the weights.safetensors of a finished run."
        )


def _check_processes(config: DictConfig) -> None:
    trainer = config.trainer
    for key in ("trainer.devices", "trainer.num_nodes"):
        if OmegaConf.select(config, key) < 1:
            raise InputError(f"{key}={OmegaConf.select(config, key)} must be at least 1.")
    processes = trainer.devices * trainer.num_nodes
    if processes == 1:
        return
    if config.mode in (Mode.cost, Mode.speed):
        raise InputError(
            f"mode={config.mode} measures one device, and trainer.devices={trainer.devices} asks "
            "for more. Type trainer.devices=1."
        )
    batch = config.schedule.batch_size
    if config.mode == Mode.train and batch % processes:
        raise InputError(
            f"schedule.batch_size={batch} counts the images of all {processes} processes "
            "(trainer.devices x trainer.num_nodes), and cannot be shared among them equally. Type "
            f"schedule.batch_size={max(1, batch // processes) * processes}."
        )
    if trainer.num_nodes > 1 and config.launcher.name != LauncherName.slurm:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: only SLURM gives several nodes. Type "
            "launcher=slurm, or trainer.num_nodes=1."
        )


def _check_gpus(launcher: DictConfig) -> None:
    gpus = read_gpus(launcher.gpus)
    if gpus and gpus.kind and launcher.name != LauncherName.slurm:
        raise InputError(
            f"launcher.gpus={gpus}: only SLURM knows types of GPUs. Type "
            f"launcher.gpus={gpus.number}, or launcher=slurm."
        )


def build_network(config: DictConfig, num_classes: int, weights: str | None = None) -> nn.Module:
    """The task's network on the configured backbone.

    weights: of the backbone, "imagenet" or a path; None for random ones.
    """
    options = plain(config.model) | {"num_classes": num_classes, "weights": weights}
    backbone = create(features=config.task.features, **options)
    return build("task.network", config.task.network, backbone=backbone, num_classes=num_classes)


def build_skeleton(config: DictConfig, num_classes: int | None = None) -> nn.Module:
    """The network on the meta device, frozen as published.

    num_classes: by default those of the published protocol.
    """
    if num_classes is None:
        num_classes = config.task.protocol.num_classes
    with torch.device("meta"):
        network = build_network(config, num_classes)
    _freeze(network, config)
    return network


def build_loaded(config: DictConfig, num_classes: int) -> tuple[nn.Module, str | None]:
    """The network with what `weights` or `model.weights` names, then frozen as published.

    Nothing is frozen where nothing was loaded. The report says what was loaded.
    """
    if config.weights is not None:
        network = build_network(config, num_classes)
        report = str(load_network(network, config.weights))
    elif config.model.weights is not None:
        network = build_network(config, num_classes, config.model.weights)
        backbone: Any = network.backbone
        report = str(backbone.load_report)
    else:
        return build_network(config, num_classes), None
    _freeze(network, config)
    return network, report


def open_data(config: DictConfig) -> dict[str, Any]:
    """The views that the task asks for: "val", and "train" where the run trains."""
    dataset = build("dataset", config.dataset)
    splits = ("train", "val") if config.mode == Mode.train else ("val",)
    options = dict(config.task.get("view_options") or {})
    for split in splits:
        quick_check(dataset, config.task.view, split, **options)
    views = {split: getattr(dataset, config.task.view)(split, **options) for split in splits}
    for view in views.values():
        view.read_some()
    return views


def build_module(
    config: DictConfig, network: nn.Module, build_optimizer: Callable[..., Any] | None, view: Any
) -> Any:
    """The task's module around its network."""
    objects = {"network": network, "build_optimizer": build_optimizer, "view": view}
    schedule = None if build_optimizer is None else config.schedule
    return build("task.module", config.task.module, **objects, schedule=schedule)


def device(config: DictConfig) -> torch.device:
    """Where the trainer would compute."""
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def count_workers(config: DictConfig) -> int:
    """Processes that read images."""
    asked: int | None = config.trainer.workers
    if asked is not None:
        return asked
    return min(8, count_cores())


def _freeze(network: nn.Module, config: DictConfig) -> None:
    backbone: Any = network.backbone
    freeze(backbone, config.freeze.stages, config.freeze.batch_norm)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"There is no {key}={value}. {nearest(value, choices)}")
