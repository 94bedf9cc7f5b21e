"""Where published ImageNet weights lie, and how they come here."""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pvt_bench.backbones.files import load_state
from pvt_bench.backbones.pvt import VARIANTS, PyramidVisionTransformer
from pvt_bench.errors import InputError
from pvt_bench.files import replacing

RELEASE = "https://github.com/whai362/PVT/releases/download/v2"
PVT = ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_large")
PVT_V2 = (*(f"pvt_v2_b{i}" for i in range(6)), "pvt_v2_b2_li")
# The authors' own files, named as their classifiers are; every other network's are timm's, or
# torchvision's where timm has not got the network.
OFFICIAL = {name: f"{RELEASE}/{name}.pth" for name in (*PVT, *PVT_V2)}

# What the authors offer by hand only.
REPOSITORIES = {
    "t2t_vit": "https://github.com/yitu-opensource/T2T-ViT",
    "mixed_link": "https://github.com/DeepInsight-PCALab/MixNet",
}

# No connection, no such file, no file of weights; huggingface_hub's own errors are OSErrors.
FETCH_ERRORS = (OSError, HTTPException, RuntimeError, SafetensorError)


def published_network(name: str) -> nn.Module | None:
    """The classifier that the published weights of this name belong to, on the meta device.

    None for a network of torchvision. Nothing is downloaded.

    Raises:
        InputError: no weights are published.
    """
    if name in PVT:
        with torch.device("meta"):
            return PyramidVisionTransformer(**VARIANTS[name])
    if (repository := find_repository(name)) or name in VARIANTS:
        raise InputError(no_weights(name, repository))
    # Here, because importing timm takes seconds.
    import timm

    if name in OFFICIAL or timm.is_model_pretrained(name):
        with torch.device("meta"):
            return timm.create_model(name)
    if torchvision_address(name) is None:
        raise InputError(no_weights(name))
    return None


def fetch(name: str) -> tuple[str, dict[str, Tensor]]:
    """Where the published weights of a name come from, and the weights, from cache or network.

    Raises:
        InputError: they cannot be downloaded.
    """
    address = OFFICIAL.get(name) or torchvision_address(name)
    if address is None:
        return fetch_timm(name)
    return address, load_state(download(address, name))


def torchvision_address(name: str) -> str | None:
    """Where torchvision's weights of a network lie that timm has not got."""
    import timm
    from torchvision.models import get_model_weights, list_models

    if timm.is_model(name) or name not in list_models():
        return None
    return str(get_model_weights(name).DEFAULT.url)


def fetch_timm(name: str) -> tuple[str, dict[str, Tensor]]:
    """timm's weights of a network, as timm itself adapts them to its classifier."""
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    file = f"{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    address = f"https://huggingface.co/{file}" if config.hf_hub_id else str(config.url)
    try:
        network = timm.create_model(name, pretrained=True)
    except FETCH_ERRORS as error:
        raise InputError(
            f"timm's weights of {name} cannot be had ({error}). Expected a connection to "
            f"huggingface.co or a filled cache (HF_HOME). Get {address} on a machine that can, and "
            "use model.weights=PATH."
        ) from error
    return address, network.state_dict()


def download(address: str, name: str) -> Path:
    """Bring a file of weights into torch.hub's cache, if it is not there; only a whole file."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if path.exists():
        return path
    digest = torch.hub.HASH_REGEX.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            torch.hub.download_url_to_file(address, str(beside), digest[1] if digest else None)
            # torch takes a connection that was cut for the end of the file.
            load_state(beside)
    except (*FETCH_ERRORS, InputError) as error:
        raise InputError(
            f"The weights of {name} cannot be downloaded ({error}). Get {address} on a "
            f"machine that can, and put it at {path}; or use model.weights=PATH."
        ) from error
    return path


def find_repository(name: str) -> str | None:
    """Where the authors of a network publish what is not fetched here."""
    return next((where for prefix, where in REPOSITORIES.items() if name.startswith(prefix)), None)


def no_weights(name: str, repository: str | None = None) -> str:
    """The message for a network without published weights."""
    where = f" Its authors' repository is {repository}." if repository else ""
    return (
        f"There are no published ImageNet weights of {name} to fetch.{where} Use "
        "model.weights=PATH for a file of your own, or model.weights=null for random ones."
    )
