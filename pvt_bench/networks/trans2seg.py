"""Trans2Seg (Xie et al., arXiv 2101.08461, section 4) on any pyramid.

A transformer encodes the last map. A decoder looks one learned prototype a class up in it: the
scores of that attention, a map a head, are refined by a small convolutional head together with the
encoded map and a low-level map, for each class by itself.

The layout is that of the released code, with these differences:
- What the release computes and never uses is left out, so that every parameter takes part: the
  MLPs over positions of all but the last decoder layer, that layer's values and its updates of
  prototypes and features, and the encoder's class token.
- Residuals add a layer's input to its output (the release adds some outputs to themselves), and
  heads are split and merged in the order of channels (the release mixes them with the classes).
- The MLP over positions works on a fixed square grid, to which maps of other sizes are
  interpolated and its correction is interpolated back: images may have any size.
- The backbone keeps its strides: a ResNet with dilated last stage (`ResNet50-d16`) is not offered.
"""

from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from pvt_bench.backbones.pvt import to_maps, to_tokens
from pvt_bench.networks.segmenter import Segmenter


def resize(maps: Tensor, size: Any) -> Tensor:
    """Maps (B, C, H, W) interpolated to `size`; as they are where they have it."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class Encoder(nn.Module):
    """Self-attention over the positions of the last map.

    Args:
        in_channels: of the map; width: channels of the tokens; depth: layers.
        heads, mlp_ratio: of each layer.
        grid: side of the square that the position embedding is laid out for.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, heads: int, mlp_ratio: float, grid: int
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, width, grid, grid))
        self.layers = nn.Sequential(*(Block(width, heads, mlp_ratio) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to maps (B, width, H, W)."""
        size = maps.shape[-2:]
        tokens = self.proj(to_tokens(maps)) + to_tokens(resize(self.pos_embed, size))
        return to_maps(self.norm(self.layers(tokens)), size)


class DecoderLayer(nn.Module):
    """Updates prototypes by attention to the features, and features by themselves."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        hidden = int(width * mlp_ratio)
        self.norm_prototypes = nn.LayerNorm(width)
        self.norm_features = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)
        self.norm_features_mlp = nn.LayerNorm(width)
        self.features_mlp = Mlp(width, hidden)

    def forward(self, prototypes: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes (B, K, C) and features (B, N, C) to the same, updated."""
        q = split_heads(self.q(self.norm_prototypes(prototypes)), self.heads)
        k, v = (
            split_heads(part, self.heads)
            for part in self.kv(self.norm_features(features)).chunk(2, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        prototypes = prototypes + self.proj(attended)
        prototypes = prototypes + self.mlp(self.norm_mlp(prototypes))
        return prototypes, features + self.features_mlp(self.norm_features_mlp(features))


class LookUp(nn.Module):
    """The last decoder layer: where each prototype is found, a map a head.

    Args:
        width: channels of prototypes and features; heads: maps of each class.
        mlp_ratio: of the MLP over the positions of a map.
        grid: side of the square of positions that this MLP works on.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.grid = (grid, grid)
        self.norm_prototypes = nn.LayerNorm(width)
        self.norm_features = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.norm_positions = nn.LayerNorm(grid**2)
        self.positions_mlp = Mlp(grid**2, int(grid**2 * mlp_ratio))

    def forward(self, prototypes: Tensor, features: Tensor, size: torch.Size) -> Tensor:
        """Prototypes (B, K, C) and features (B, H * W, C) to maps (B, K, heads, H, W)."""
        q = split_heads(self.q(self.norm_prototypes(prototypes)), self.heads)
        k = split_heads(self.k(self.norm_features(features)), self.heads)
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        maps = scores.transpose(1, 2).flatten(1, 2).unflatten(2, size)
        positions = resize(maps, self.grid).flatten(2)
        refined = self.positions_mlp(self.norm_positions(positions)).unflatten(2, self.grid)
        return (maps + resize(refined, size)).unflatten(1, (-1, self.heads))


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Tokens (B, N, C) as (B, heads, N, C / heads)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def separable(in_channels: int, channels: int) -> nn.Sequential:
    """A 3 x 3 convolution a channel and a 1 x 1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        Conv2dNormActivation(in_channels, in_channels, 3, groups=in_channels),
        Conv2dNormActivation(in_channels, channels, 1),
    )


class Head(nn.Module):
    """Decoder and convolutions: from the encoded map and a low-level map to a map a class.

    Args:
        low_channels: of the low-level map; width: channels of the encoded map.
        depth: decoder layers with the look-up; heads, mlp_ratio, grid: of each, see `LookUp`.
        conv_width: channels of the convolutions.
    """

    def __init__(
        self,
        low_channels: int,
        num_classes: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        conv_width: int,
        grid: int,
    ) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.zeros(1, num_classes, width))
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_ratio) for _ in range(depth - 1))
        self.look_up = LookUp(width, heads, mlp_ratio, grid)
        self.low = Conv2dNormActivation(low_channels, conv_width, 1)
        self.coarse = nn.Sequential(
            separable(width + heads, conv_width), separable(conv_width, conv_width)
        )
        self.fine = nn.Sequential(separable(conv_width, conv_width), nn.Conv2d(conv_width, 1, 1))

    def forward(self, encoded: Tensor, low: Tensor) -> Tensor:
        """Maps (B, width, h, w) and (B, low_channels, H, W) to logits (B, K, H, W)."""
        tokens = to_tokens(encoded)
        found = tokens.new_zeros(len(tokens), *self.prototypes.shape[1:])
        for layer in self.layers:
            found, tokens = layer(found + self.prototypes, tokens)
        scores = self.look_up(found + self.prototypes, tokens, encoded.shape[-2:])
        # From here on each class is an image of its own.
        classes = scores.shape[1]
        of_class = torch.cat([each_class(encoded, classes), scores.flatten(0, 1)], dim=1)
        fine = resize(self.coarse(of_class), low.shape[-2:])
        fine = fine + each_class(self.low(low), classes)
        return self.fine(fine).unflatten(0, (-1, classes)).squeeze(2)


def each_class(maps: Tensor, classes: int) -> Tensor:
    """Maps (B, C, H, W) once for each class: (B * classes, C, H, W)."""
    return maps.unsqueeze(1).expand(-1, classes, -1, -1, -1).flatten(0, 1)


class Trans2Seg(Segmenter):
    """Segmenter with a transformer over the last map and a learned prototype a class.

    Its loss is the mean over the pixels that are not ignored, as in the released code.

    backbone: a pyramid, whose first and last map are used.
    num_classes: number of classes.
    width: channels of the encoder and of the decoder.
    depth: layers of the encoder, and as many of the decoder.
    heads: attention heads per layer.
    mlp_ratio: hidden width of the feed-forward parts over `width`.
    conv_width: channels of the convolutions that each class passes through.
    grid: side of the square of positions that position embeddings and the MLP over positions are
        laid out for; of the published size of 512 pixels and stride 32 it is 16.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        width: int = 256,
        depth: int = 4,
        heads: int = 8,
        mlp_ratio: float = 3.0,
        conv_width: int = 32,
        grid: int = 16,
    ) -> None:
        super().__init__(backbone)
        first, *_, last = self.backbone.channels
        self.neck = Encoder(last, width, depth, heads, mlp_ratio, grid)
        self.head = Head(first, num_classes, width, depth, heads, mlp_ratio, conv_width, grid)
        for name, parameter in self.named_parameters():
            if name in ("neck.pos_embed", "head.prototypes"):
                nn.init.trunc_normal_(parameter, std=0.02)
        for part in (self.neck, self.head):
            part.apply(initialise)

    def logits(self, batch: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), sides multiples of 32, to (B, num_classes, H/4, W/4)."""
        maps = self.backbone(batch)
        return self.head(self.neck(maps[-1]), maps[0])


def initialise(module: nn.Module) -> None:
    """Draw the weights of a linear layer as the released code does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
