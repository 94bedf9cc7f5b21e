"""The backbone of a trained network as a file of its own, under its classifier's names."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pvt_bench.backbones import create
from pvt_bench.backbones.files import load_state, save_state
from pvt_bench.backbones.matching import compare, some
from pvt_bench.backbones.naming import translate, unwrap
from pvt_bench.errors import InputError


def export_backbone(network_file: Path, target: Path) -> str:
    """Write the backbone of a run's network to `target`; what was written, in words.

    The model is that of the `config.yaml` beside the network's file, and goes as JSON into the
    header of `target`, under `model`.

    Raises:
        InputError: a file that is not the network of such a run; a target that cannot be written.
    """
    tensors = load_state(network_file)
    model = read_model(network_file.with_name("config.yaml"))
    with torch.device("meta"):
        classifier = create(**model)
    _, state = unwrap(classifier, tensors)
    state = translate(classifier, state)
    match = compare(classifier, state, partial(create, features=True, **model))
    if match.fault:
        raise InputError(f"{network_file} is not the network of its config.yaml: {match.fault}")
    names = list(classifier.state_dict())
    # By name and not by shape: the head is the trained one, whatever its number of classes.
    backbone = {name: state[name] for name in names if name in state}
    try:
        save_state(backbone, target, model=json.dumps(model))
    except OSError as error:
        raise InputError(f"to={target} cannot be written ({error}).") from error
    absent = [name for name in names if name not in backbone]
    numbers = sum(tensor.numel() for tensor in backbone.values())
    lacking = f", without {some(absent)}" if absent else ""
    return f"{target}: {model['name']}, {len(backbone)} tensors, {numbers / 1e6:.2f} M{lacking}"


def read_model(path: Path) -> dict[str, Any]:
    """What `create` needs of a run's configuration."""
    if not path.is_file():
        raise InputError(
            f"There is no {path}, which says what model the weights are of: expected "
            "weights=RUN/weights.safetensors in the directory of its run."
        )
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path))
        return {key: value for key, value in config["model"].items() if key != "weights"}
    except (YAMLError, OmegaConfBaseException, LookupError, TypeError) as error:
        raise InputError(f"{path} names no model: it is not a run's ({error}).") from error
