"""Four maps from a plain vision transformer, whose tokens all lie at one stride."""

from collections.abc import Sequence
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.freezing import Freezable, Part, divide
from pvt_bench.errors import InputError, nearest

STRIDES = (4, 8, 16, 32)
PYRAMIDS = ("simple", "interpolated")


class PlainPyramid(Freezable):
    """The maps of a plain ViT or DeiT at strides 4, 8, 16 and 32.

    `simple` is the simple feature pyramid of ViTDet (arXiv 2203.16527, section 3): every map is
    made from the last layer's tokens, by transposed convolutions, which halve the channels at each
    doubling, or by max pooling. `interpolated` is how PVT (arXiv 2102.12122, footnote 3) adapts
    ViT-Small: four layers evenly spaced in depth, each interpolated bilinearly to its stride; it
    has no parameters of its own.

    Args:
        name: for messages.
        body: timm's VisionTransformer, built with `dynamic_img_size`; its norm and head are
            removed.
        pyramid: `simple` or `interpolated`.
        mean, std: normalisation of the input, a channel.

    Raises:
        InputError: a patch that is none of the strides, or fewer than four layers.
    """

    def __init__(
        self, name: str, body: Any, pyramid: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        patch, depth, width = body.patch_embed.patch_size[0], len(body.blocks), body.embed_dim
        check_tokens(name, patch, depth)
        body.prune_intermediate_layers([depth - 1], prune_norm=True)
        self.body = body
        self.name, self.mean, self.std = name, mean, std
        self.strides = list(STRIDES)
        self.quarters = [depth * (i + 1) // 4 - 1 for i in range(4)]
        self.simple = pyramid == "simple"
        self.channels = [width] * 4
        if self.simple:
            self.channels = [min(width, width * stride // patch) for stride in STRIDES]
            self.levels = nn.ModuleList(rescale(width, patch, stride) for stride in STRIDES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to four maps (B, C_i, H / s_i, W / s_i).

        Raises:
            InputError: H or W is no multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"{self.name} gives no maps of images of {height} x {width} pixels: height and "
                f"width must be multiples of {STRIDES[-1]}."
            )
        indices = self.quarters[-1:] if self.simple else self.quarters
        maps = self.body.forward_intermediates(images, indices, intermediates_only=True)
        if self.simple:
            return [level(maps[0]) for level in self.levels]
        return [
            F.interpolate(each, size=(height // stride, width // stride), mode="bilinear")
            for each, stride in zip(maps, STRIDES, strict=True)
        ]

    def stage_modules(self) -> list[list[Part]]:
        """Quarters of the layers, the first with the embeddings; `simple`'s maps in the last."""
        stages = divide(self.body, [f"blocks.{i}" for i in self.quarters])
        stages[-1].extend(self.levels if self.simple else ())
        return stages


def rescale(width: int, patch: int, stride: int) -> nn.Sequential:
    """Layers from maps (B, width, H, W) at the stride of a patch to maps at another stride."""
    layers: list[nn.Module] = []
    while patch > stride:
        if layers:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width, patch = width // 2, patch // 2
    if patch < stride:
        layers.append(nn.MaxPool2d(stride // patch))
    return nn.Sequential(*layers)


def check_pyramid(pyramid: str) -> str:
    """Refuse a way to make four maps that there is not."""
    if pyramid not in PYRAMIDS:
        raise InputError(
            f"model.pyramid={pyramid} is unknown. {nearest(str(pyramid), PYRAMIDS)} "
            "Use model.pyramid=simple."
        )
    return pyramid


def check_tokens(name: str, patch: int, depth: int) -> None:
    """Refuse patches and layers that four maps cannot be made from."""
    if patch not in STRIDES:
        raise InputError(
            f"{name} has patches of {patch} pixels and gives no maps at strides {list(STRIDES)}: "
            f"expected a patch of one of these, for example model=vit_base_patch16."
        )
    if depth < len(STRIDES):
        raise InputError(
            f"model.depth={depth} cannot be used: four maps come from at least 4 layers, for "
            "example model.depth=8."
        )
