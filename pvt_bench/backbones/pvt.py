"""Pyramid Vision Transformer: arXiv 2102.12122, whose sections are named below.

One memory layout runs through the whole network: tokens (B, H * W, C), contiguous, which is a
map (B, C, H, W) in channels_last. Going from one to the other is a view and copies nothing.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.checks import STAGES, check_heads, check_scalars, four
from pvt_bench.backbones.freezing import Freezable
from pvt_bench.errors import InputError

# Where a variant differs from the defaults of PyramidVisionTransformer. The depths are those of
# the released code: Table 1 prints 3 for the second stage of Small and Medium, but the published
# parameter counts fit 4 only. Drop path is that of the released detection backbones.
VARIANTS: dict[str, dict[str, Any]] = {
    "pvt_tiny": {"depths": (2, 2, 2, 2), "drop_path": 0.1},
    "pvt_small": {"depths": (3, 4, 6, 3), "drop_path": 0.1},
    "pvt_medium": {"depths": (3, 4, 18, 3), "drop_path": 0.0},
    "pvt_large": {"depths": (3, 8, 27, 3), "drop_path": 0.0},
    # Table 9: 1.4 times as wide. Of the heads of about 1.4 * 64 channels only 89 give its 46.8 M.
    "pvt_small_wide": {
        "depths": (3, 4, 6, 3),
        "channels": (89, 178, 445, 712),
        "drop_path": 0.1,
    },
}

# Tokens that a CPU feeds forward at once where no gradient is wanted.
SLICE = 2048


def to_tokens(maps: Tensor) -> Tensor:
    """View maps (B, C, H, W), channels_last, as tokens (B, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)


def to_maps(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """View tokens (B, H * W, C) as maps (B, C, H, W), channels_last, with size (H, W)."""
    return tokens.transpose(1, 2).unflatten(2, size)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, zero a residual for whole samples."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, residual: Tensor) -> Tensor:
        """Drop and rescale a residual (B, N, C), so that its expectation stays."""
        if not self.training or self.probability == 0.0:
            return residual
        keep = 1.0 - self.probability
        return residual * (residual.new_empty(len(residual), 1, 1).bernoulli_(keep) / keep)


class PatchConvolution(nn.Conv2d):
    """A convolution of patches that do not overlap, without padding.

    On a CPU that trains it is computed as a linear layer over patches: the gradients of such a
    convolution take up to four times as long on small maps, and about as long on large ones.
    """

    def __init__(self, in_channels: int, channels: int, side: int) -> None:
        super().__init__(in_channels, channels, kernel_size=side, stride=side)
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W), channels_last, to (B, C', H // side, W // side), channels_last."""
        if maps.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(maps)
        height, width = (extent // self.side for extent in maps.shape[2:])
        whole = maps[..., : height * self.side, : width * self.side].permute(0, 2, 3, 1)
        patches = whole.unflatten(2, (width, self.side)).unflatten(1, (height, self.side))
        tokens = patches.transpose(2, 3).flatten(3)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(tokens, weight, self.bias).permute(0, 3, 1, 2)


class SpatialReductionAttention(nn.Module):
    """Attention whose keys and values come from a map reduced R times a side (section 3.3).

    The remainder of a map that is no multiple of R is left out of keys and values, as published.
    A map narrower than R is padded with zeros up to R, so that at least one token remains. Tokens
    in front of the map's (the class token) are keys and values without reduction.
    """

    def __init__(self, channels: int, heads: int, sr_ratio: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.sr_ratio, self.fused = heads, sr_ratio, fused
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if sr_ratio > 1:
            self.sr = PatchConvolution(channels, channels, sr_ratio)
            self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend from all tokens (B, N, C) to the reduced map of `size` (H, W); (B, N, C)."""
        q = self.q(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        reduced = self.reduce(tokens, size) if self.sr_ratio > 1 else tokens
        k, v = self.kv(reduced).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        if self.fused:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            scale = q.shape[-1] ** -0.5
            attended = (q @ k.transpose(2, 3) * scale).softmax(dim=-1) @ v
        return self.proj(attended.transpose(1, 2).flatten(2))

    def reduce(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Reduce the map among tokens (B, N, C) to about H W / R^2 tokens."""
        height, width = size
        extra = tokens.shape[1] - height * width
        maps = to_maps(tokens[:, extra:], size)
        bottom, right = max(0, self.sr_ratio - height), max(0, self.sr_ratio - width)
        if bottom or right:
            maps = F.pad(maps, (0, right, 0, bottom))
        reduced = self.norm(to_tokens(self.sr(maps)))
        return torch.cat([tokens[:, :extra], reduced], dim=1) if extra else reduced


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each of the tokens (B, N, C) by itself."""
        if tokens.device.type != "cpu" or torch.is_grad_enabled():
            return self.transform(tokens)
        # A whole hidden layer (137 MB at stride 4 of 800 x 1344) is new memory at each call, and a
        # CPU spends more time on its pages than on the products: slices reuse what is in the cache.
        slices = [self.transform(part) for part in tokens.flatten(0, 1).split(SLICE)]
        return torch.cat(slices).view_as(tokens) if len(slices) > 1 else slices[0].view_as(tokens)

    def transform(self, tokens: Tensor) -> Tensor:
        """The layers themselves, on tokens (..., C)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm encoder layer: spatial-reduction attention, then feed-forward (figure 3)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: int,
        sr_ratio: int,
        drop_path: float,
        fused: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = SpatialReductionAttention(channels, heads, sr_ratio, fused)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels, channels * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform tokens (B, N, C) that hold a map of `size` (H, W)."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), size))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped to one token (section 3.2)."""

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = PatchConvolution(in_channels, channels, patch_size)
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed maps (B, C, H, W); tokens (B, N, C') and their height and width."""
        maps = self.proj(maps.contiguous(memory_format=torch.channels_last))
        return self.norm(to_tokens(maps)), (maps.shape[2], maps.shape[3])


class Stage(nn.Module):
    """Patch embedding, position embedding of a square grid, and encoder layers (section 3.1)."""

    def __init__(self, embedding: PatchEmbedding, grid: int, blocks: list[Block]) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = embedding
        self.pos_embed = nn.Parameter(torch.empty(1, grid**2, embedding.proj.out_channels))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: Tensor, first: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Encode maps (B, C, H, W), with a token `first` (1, 1, C') in front if one is given."""
        tokens, size = self.patch_embed(maps)
        tokens = tokens + self.positions(size)
        if first is not None:
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens, size)
        return tokens, size

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Resize the position embedding bilinearly to `size` (H, W); (1, H * W, C)."""
        if size == (self.grid, self.grid):
            return self.pos_embed
        maps = to_maps(self.pos_embed, (self.grid, self.grid))
        return to_tokens(F.interpolate(maps, size=size, mode="bilinear", align_corners=False))


class PyramidVisionTransformer(Freezable):
    """PVT as a classifier, or with `features` as a pyramid of four maps.

    The classifier's class token joins in the last stage only (section 3.5). With `features` there
    is no class token, final norm or head, as in the released detection backbones, so that every
    parameter takes part. Any image of at least one patch of the last stage a side is welcome; a
    stage's height and width are floors.

    Args:
        depths: encoder layers of each of the four stages.
        channels: width of the tokens of each stage (C of Table 1).
        heads: attention heads of each stage (N).
        mlp_ratios: hidden width of the feed-forward parts over `channels`, by stage (E).
        sr_ratios: factor by which keys and values are reduced on each side, by stage (R); 1 is
            plain attention.
        patch_sizes: side of a patch of each stage, in pixels or in tokens of the stage before (P).
        drop_path: probability of dropping the last residual; it grows linearly from 0.
        num_classes: length of the logits.
        img_size: side in pixels that the position embeddings are laid out for.
        in_chans: channels of the images.
        attention: how attention is computed: `fused`, or `plain` for softmax(q k^T / sqrt(d)) v
            written out.
        features: maps instead of logits.

    Raises:
        InputError: a value that defines no network; before anything is allocated.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        channels: Sequence[int] = (64, 128, 320, 512),
        heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        patch_sizes: Sequence[int] = (4, 2, 2, 2),
        drop_path: float = 0.0,
        num_classes: int = 1000,
        img_size: int = 224,
        in_chans: int = 3,
        attention: str = "fused",
        features: bool = False,
    ) -> None:
        super().__init__()
        depths = four("depths", depths, "[3,4,6,3]")
        self.channels = four("channels", channels, "[64,128,320,512]")
        heads = four("heads", heads, "[1,2,5,8]")
        mlp_ratios = four("mlp_ratios", mlp_ratios, "[8,8,4,4]")
        sr_ratios = four("sr_ratios", sr_ratios, "[8,4,2,1]")
        self.strides = list(accumulate(four("patch_sizes", patch_sizes, "[4,2,2,2]"), mul))
        check_heads(self.channels, heads)
        check_scalars(drop_path, attention, num_classes, in_chans, img_size, self.strides[-1])

        self.features = features
        inputs = [in_chans, *self.channels[:-1]]
        last = max(1, sum(depths) - 1)
        stages, done = [], 0
        for i in range(STAGES):
            patch_size = self.strides[i] // (self.strides[i - 1] if i else 1)
            embedding = PatchEmbedding(inputs[i], self.channels[i], patch_size)
            shape = (self.channels[i], heads[i], mlp_ratios[i], sr_ratios[i])
            blocks = [
                Block(*shape, drop_path * (done + j) / last, attention == "fused")
                for j in range(depths[i])
            ]
            stages.append(Stage(embedding, img_size // self.strides[i], blocks))
            done += depths[i]
        self.stages = nn.ModuleList(stages)
        if not features:
            self.cls_token = nn.Parameter(torch.empty(1, 1, self.channels[-1]))
            self.cls_position = nn.Parameter(torch.empty(1, 1, self.channels[-1]))
            self.norm = nn.LayerNorm(self.channels[-1], eps=1e-6)
            self.head = nn.Linear(self.channels[-1], num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Draw weights as the released code does; convolutions keep torch's own start."""
        for name, parameter in self.named_parameters():
            if name.endswith("pos_embed") or name in ("cls_token", "cls_position"):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                # Otherwise a single image would leave the convolution in the other layout.
                module.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Images (B, 3, H, W) to logits (B, num_classes), or to maps (B, C_i, H_i, W_i).

        Raises:
            InputError: an image smaller than one patch of the last stage.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.strides[-1]:
            raise InputError(
                f"An image of {height} x {width} pixels is too small: the last stage needs at "
                f"least {self.strides[-1]} pixels a side, the product of model.patch_sizes."
            )
        if self.features:
            return self.forward_features(images)
        maps = images
        for stage in self.stages[:-1]:
            maps = to_maps(*stage(maps))
        tokens, _ = self.stages[-1](maps, self.cls_token + self.cls_position)
        return self.head(self.norm(tokens[:, 0]))

    def forward_features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to the maps of the four stages, channels_last, without norm."""
        maps = [images]
        for stage in self.stages:
            maps.append(to_maps(*stage(maps[-1])))
        return maps[1:]

    def stage_modules(self) -> list[list[nn.Module]]:
        """The four stages, each with its patch and position embedding."""
        return [[stage] for stage in self.stages]

    def no_weight_decay(self) -> set[str]:
        """Parameters that the released code trains without weight decay."""
        return set() if self.features else {"cls_token"}
