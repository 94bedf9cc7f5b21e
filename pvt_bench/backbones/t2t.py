"""Tokens-to-Token ViT with Transformer token layers: arXiv 2101.11986, sections named below.

Modules are named as in the released checkpoints (github.com/yitu-opensource/T2T-ViT), so that these
load as they are.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pvt_bench.backbones.checks import check_counts, check_drop_path
from pvt_bench.backbones.pvt import DropPath, FeedForward, to_maps, to_tokens
from pvt_bench.errors import InputError

# Where a variant differs from the defaults of TokensToTokenViT: depth and width of Table 1's
# deep-narrow backbones.
VARIANTS: dict[str, dict[str, Any]] = {
    "t2t_vit_t_14": {"depth": 14, "channels": 384, "heads": 6},
    "t2t_vit_t_19": {"depth": 19, "channels": 448, "heads": 7},
    "t2t_vit_t_24": {"depth": 24, "channels": 512, "heads": 8},
}

# Kernel, stride and padding of the three soft splits (section 3.3); together stride 16.
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
# Tokens a side that the position embedding is laid out for: an image of 224 pixels.
GRID = 14
# Pixels a side from which the first split has a token.
LEAST = SPLITS[0][0] - 2 * SPLITS[0][2]


def soft_split(maps: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Overlapping patches as tokens: maps (B, C, H, W) to (B, N, C * kernel^2) (section 3.1)."""
    return F.unfold(maps, kernel, padding=padding, stride=stride).transpose(1, 2)


def split_size(size: tuple[int, int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Height and width of the grid of tokens that a soft split of `size` (H, W) gives."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    return height, width


def sinusoid(length: int, channels: int) -> Tensor:
    """The fixed position embedding of arXiv 1706.03762, section 3.5; (1, length, channels).

    Channels 2i and 2i + 1 of position p are sine and cosine of p / 10000^(2i / channels).
    """
    pairs = torch.arange(channels).div(2, rounding_mode="floor").double()
    positions = torch.arange(length).double()
    angles = positions[:, None] * 10000.0 ** (-2.0 * pairs / channels)
    even = torch.arange(channels) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos()).float()[None]


class Attention(nn.Module):
    """Multi-head attention that may change the width of its tokens.

    The scores are scaled by the width of the *incoming* tokens, (in_channels / heads)^-1/2, as in
    the released code. With `skip` the values are added to the output: the incoming tokens are too
    wide for a residual.
    """

    def __init__(self, in_channels: int, channels: int, heads: int, skip: bool = False) -> None:
        super().__init__()
        self.heads, self.skip = heads, skip
        self.scale = (in_channels / heads) ** -0.5
        self.qkv = nn.Linear(in_channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among tokens (B, N, in_channels); (B, N, channels)."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        attended = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        projected = self.proj(attended.transpose(1, 2).flatten(2))
        return projected + v.transpose(1, 2).flatten(2) if self.skip else projected


class TokenTransformer(nn.Module):
    """The Transformer layer between two soft splits: wide tokens to narrow ones (section 3.1)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels)
        self.attn = Attention(in_channels, channels, heads=1, skip=True)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens (B, N, in_channels) to (B, N, channels)."""
        tokens = self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class TokensToToken(nn.Module):
    """Three soft splits with a Transformer layer after each of the first two (section 3.1)."""

    def __init__(self, token_channels: int, channels: int) -> None:
        super().__init__()
        (first, _, _), (second, _, _), (third, _, _) = SPLITS
        self.attention1 = TokenTransformer(3 * first**2, token_channels)
        self.attention2 = TokenTransformer(token_channels * second**2, token_channels)
        self.project = nn.Linear(token_channels * third**2, channels)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, 3, H, W) to tokens (B, N, channels), with the height and width of the grid."""
        maps = images
        for split, layer in zip(SPLITS, (self.attention1, self.attention2), strict=False):
            size = split_size((maps.shape[2], maps.shape[3]), *split)
            maps = to_maps(layer(soft_split(maps, *split)), size)
        size = split_size(size, *SPLITS[-1])
        return self.project(soft_split(maps, *SPLITS[-1])), size


class Block(nn.Module):
    """Pre-norm encoder layer of the deep-narrow backbone (section 3.2)."""

    def __init__(self, channels: int, heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, channels * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens (B, N, C)."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class TokensToTokenViT(nn.Module):
    """T2T-ViT_t, a classifier.

    The position embedding is the sinusoid of the class token followed by the 14 x 14 grid of a
    224-pixel image, row after row. For another grid the rows and columns of that table are
    resized bicubically, as the released code does for transfer: a token then keeps the embedding
    of its place in the image. The formula on the other grid's numbering would shift every row
    against the one that the weights were trained with.

    Args:
        depth: encoder layers of the backbone.
        channels: width of the tokens in these layers.
        heads: attention heads per layer.
        mlp_ratio: hidden width of the feed-forward parts over `channels`.
        token_channels: width of the tokens between the soft splits.
        drop_path: probability of dropping the last residual; it grows linearly from 0.

    Raises:
        InputError: a value that defines no network; before anything is allocated.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    pos_embed: Tensor

    def __init__(
        self,
        *,
        depth: int,
        channels: int,
        heads: int,
        mlp_ratio: int = 3,
        token_channels: int = 64,
        drop_path: float = 0.1,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        check_counts(
            depth=(depth, 14),
            channels=(channels, 384),
            heads=(heads, 6),
            mlp_ratio=(mlp_ratio, 3),
            token_channels=(token_channels, 64),
            num_classes=(num_classes, 1000),
        )
        if channels % heads:
            raise InputError(
                f"model.heads={heads} cannot be used: it does not divide model.channels="
                f"{channels}. Choose a divisor, for example model.heads=6 for model.channels=384."
            )
        check_drop_path(drop_path)
        self.tokens_to_token = TokensToToken(token_channels, channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        self.register_buffer("pos_embed", sinusoid(1 + GRID**2, channels))
        last = max(1, depth - 1)
        self.blocks = nn.ModuleList(
            Block(channels, heads, mlp_ratio, drop_path * i / last) for i in range(depth)
        )
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)
        self.initialise()

    def initialise(self) -> None:
        """Draw weights as the released code does."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes).

        Raises:
            InputError: an image of fewer than 3 pixels a side.
        """
        height, width = images.shape[-2:]
        if min(height, width) < LEAST:
            raise InputError(
                f"An image of {height} x {width} pixels is too small for a T2T-ViT: its first "
                f"soft split needs at least {LEAST} pixels a side."
            )
        tokens, size = self.tokens_to_token(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens + self.positions(size)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))

    def positions(self, size: tuple[int, int]) -> Tensor:
        """The position embedding of the class token and a grid of `size` (H, W); (1, 1 + N, C)."""
        if size == (GRID, GRID):
            return self.pos_embed
        first, rest = self.pos_embed.split([1, GRID**2], dim=1)
        maps = F.interpolate(to_maps(rest, (GRID, GRID)), size=size, mode="bicubic")
        return torch.cat([first, to_tokens(maps)], dim=1)

    def no_weight_decay(self) -> set[str]:
        """Parameters that the released code trains without weight decay."""
        return {"cls_token"}
