"""From a configuration to the objects of a run; what cannot be built is an InputError."""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pvt_bench.backbones import create, freeze, load_network
from pvt_bench.backbones.checks import SIZE_ERRORS
from pvt_bench.config.checks import no_gpu
from pvt_bench.config.schema import Config, Freeze, Mode, plain
from pvt_bench.config.targets import build
from pvt_bench.errors import InputError
from pvt_bench.processes import count_cores


def check_device(config: Config) -> None:
    """Refuse devices that this machine lacks."""
    if config.trainer.accelerator == "cpu":
        return
    gpus, asked = torch.cuda.device_count(), config.trainer.devices
    if config.trainer.accelerator == "gpu" and not gpus:
        raise InputError(no_gpu())
    if gpus and asked > gpus:
        raise InputError(
            f"trainer.devices={asked}, but {socket.gethostname()} has {gpus}. Use "
            f"trainer.devices={gpus}, or trainer=cpu."
        )


def build_network(config: Config, num_classes: int, weights: str | None = None) -> nn.Module:
    """Build the task's network on the configured backbone.

    weights: of the backbone, "imagenet" or a path; None for random ones.
    """
    options = plain(config.model) | {"num_classes": num_classes, "weights": weights}
    backbone = create(features=config.task.features, **options)
    objects = {"backbone": backbone, "num_classes": num_classes}
    network: nn.Module = build("task.network", config.task.network, **objects)
    return network


def build_skeleton(config: Config, num_classes: int | None = None) -> nn.Module:
    """Build the network on the meta device, frozen as published.

    num_classes: by default those of the published protocol.
    """
    if num_classes is None:
        num_classes = config.task.protocol.num_classes
    with torch.device("meta"):
        network = build_network(config, num_classes)
    _freeze(network, config.freeze)
    return network


def build_loaded(config: Config, num_classes: int) -> tuple[nn.Module, str | None]:
    """Build the network with what `weights` or `model.weights` names, then freeze as published.

    Nothing is frozen where nothing was loaded. The report says what was loaded.
    """
    own = None if config.weights else config.model.weights
    network = build_network(config, num_classes, own)
    if config.weights is not None:
        report = str(load_network(network, config.weights))
    elif own is not None:
        backbone: Any = network.backbone
        report = str(backbone.load_report)
    else:
        return network, None
    _freeze(network, config.freeze)
    return network, report


def open_data(config: Config) -> dict[str, Any]:
    """Open the views that the task asks for: "val", and "train" where the run trains."""
    view, options = config.task.view, plain(config.task).get("view_options") or {}
    reader = build("dataset", config.dataset).reader(view)
    splits = ("train", "val") if config.mode == Mode.train else ("val",)
    for split in splits:
        reader.quick_check(view, split, **options)
    opened = {split: getattr(reader, view)(split, **options) for split in splits}
    for each in opened.values():
        each.read_some()
    return opened


def check_images(config: Config, skeleton: nn.Module, data: Mapping[str, Any]) -> None:
    """Refuse images of the run that its network cannot take, by their shapes alone.

    skeleton: on the meta device. data: the views that the run reads.

    Raises:
        InputError: what cannot be taken, and where such images come from.
    """
    task, options = config.task.name, config.speed
    typed = options.size if config.mode == Mode.speed else None
    published = f"Images of that size come from {'speed.size' if typed else f'task={task}'}"
    if not _takes(skeleton, typed or config.task.protocol.size, published):
        return  # Its shapes are not known without numbers.
    sizes = {tuple(view[0][0].shape[-2:]): split for split, view in reversed([*data.items()])}
    for (height, width), split in sizes.items():
        source = f"Images of that size come from dataset={config.dataset.name} ({split})"
        if not _takes(skeleton, (height, width), source):
            raise InputError(
                f"model={config.model.name} cannot take an image of {height} x {width} pixels in "
                f"task={task}. {source}. Use another model or another dataset."
            )


def _takes(skeleton: Any, size: Sequence[int], source: str) -> bool:
    """Whether the backbone takes images of that size, as the network would pad them.

    Raises:
        InputError: it says itself that it does not.
    """

    def stop(module: nn.Module, *_: object) -> None:
        # A copy that looks for a size that fits has the hook, too.
        if module is skeleton.backbone:
            raise _ReachedNeckError

    images = torch.empty(1, 3, *size, device="meta")
    try:
        with torch.no_grad(), skeleton.backbone.register_forward_hook(stop):
            getattr(skeleton.eval(), "outputs", skeleton)(images)
    except _ReachedNeckError:
        return True
    except InputError as error:
        raise InputError(f"{error} {source}. Use another model or other images.") from error
    except SIZE_ERRORS:
        return False
    return True


class _ReachedNeckError(Exception):
    """The backbone has taken the images; what follows takes maps of any size."""


def build_module(
    config: Config, network: nn.Module, build_optimizer: Callable[..., Any] | None, view: Any
) -> Any:
    """Build the task's module around its network."""
    objects = {"network": network, "build_optimizer": build_optimizer, "view": view}
    schedule = None if build_optimizer is None else config.schedule
    return build("task.module", config.task.module, **objects, schedule=schedule)


def device(config: Config) -> torch.device:
    """The device that the trainer would compute on."""
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def count_workers(config: Config) -> int:
    """Number of processes that read images."""
    asked = config.trainer.workers
    return min(8, count_cores()) if asked is None else asked


def _freeze(network: nn.Module, options: Freeze) -> None:
    backbone: Any = network.backbone
    freeze(backbone, options.stages, options.batch_norm)
