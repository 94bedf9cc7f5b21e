"""DETR (Carion et al., arXiv 2005.12872) on the last map of any pyramid.

Published settings: six layers each of encoder and decoder with normalisation after each part, 256
wide, 8 heads, 2048 inside the feed-forward networks; appendix A.4 has the figure of the layers.
"""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import MLP, box_convert, clip_boxes_to_image, generalized_box_iou

from pvt_bench.networks.base import Network
from pvt_bench.networks.batch import Images, Targets, sizes_of
from pvt_bench.networks.loss import divisor

WIDTH, HEADS, INSIDE = 256, 8, 2048
TEMPERATURE = 10000
# Weights of the L1 and of the generalised IoU loss, and of both in the matching; a class has one.
BOX, GIOU = 5.0, 2.0


class Attention(nn.Module):
    """Attention, dropout, the shortcut and the normalisation after it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(
        self, tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Tokens (B, n, C) plus what they attend to; queries and keys have their positions added.

        padding: keys that are none (B, m) bool.
        """
        found, _ = self.attention(
            queries, keys, values, key_padding_mask=padding, need_weights=False
        )
        return self.norm(tokens + self.dropout(found))


class FeedForward(nn.Module):
    """Two linear layers, the shortcut and the normalisation after it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        # torchvision's MLP has a dropout after each layer, as the paper has.
        self.layers = MLP(WIDTH, [INSIDE, WIDTH], dropout=dropout)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens + self.layers(tokens))


class EncoderLayer(nn.Module):
    """Tokens of the image attend to one another."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.image = Attention(dropout)
        self.feed_forward = FeedForward(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        placed = tokens + positions
        return self.feed_forward(self.image(tokens, placed, placed, tokens, padding))


class DecoderLayer(nn.Module):
    """Objects attend to one another, then to the image."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.objects = Attention(dropout)
        self.image = Attention(dropout)
        self.feed_forward = FeedForward(dropout)

    def forward(
        self, objects: Tensor, queries: Tensor, memory: Tensor, keys: Tensor, padding: Tensor | None
    ) -> Tensor:
        asking = objects + queries
        objects = self.objects(objects, asking, asking, objects, None)
        return self.feed_forward(self.image(objects, objects + queries, keys, memory, padding))


class Head(nn.Module):
    """Encoder, decoder, and from each object its class and box."""

    def __init__(self, num_classes: int, queries: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(EncoderLayer(dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(WIDTH)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        self.queries = nn.Parameter(torch.empty(queries, WIDTH).normal_())
        self.classes = nn.Linear(WIDTH, num_classes + 1)
        self.boxes = MLP(WIDTH, [WIDTH, WIDTH, 4])

    def forward(
        self, tokens: Tensor, positions: Tensor, padding: Tensor | None, all_layers: bool
    ) -> dict[str, Tensor]:
        """Tokens and their positions (B, n, C) to `logits` (L, B, Q, K + 1) and `boxes`
        (L, B, Q, 4), centre and size as fractions of the image, of all L layers or the last alone.
        """
        memory = tokens
        for layer in self.encoder:
            memory = layer(memory, positions, padding)
        objects, found = tokens.new_zeros(len(tokens), *self.queries.shape), []
        queries = objects + self.queries
        for layer in self.decoder:
            objects = layer(objects, queries, memory, memory + positions, padding)
            found.append(objects)
        kept = self.norm(torch.stack(found if all_layers else found[-1:]))
        return {"logits": self.classes(kept), "boxes": self.boxes(kept).sigmoid()}


class DETR(Network):
    """Set prediction by a transformer: no anchors, no suppression of duplicates.

    backbone: a pyramid, whose last map is used.
    num_classes: number of classes, without "no object", which comes last.
    queries: objects that are predicted per image.
    layers: layers of the encoder, and as many of the decoder.
    dropout: dropout in the transformer, in training.
    no_object_weight: weight of the class "no object" in the loss.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        queries: int = 100,
        layers: int = 6,
        dropout: float = 0.1,
        no_object_weight: float = 0.1,
    ) -> None:
        super().__init__(backbone)
        self.neck = nn.Conv2d(self.backbone.channels[-1], WIDTH, 1)
        self.head = Head(num_classes, queries, layers, dropout)
        self.num_classes = num_classes
        self.no_object_weight = no_object_weight

    def outputs(self, images: Images, all_layers: bool = False) -> dict[str, Tensor]:
        """The predictions of the last or of all decoder layers: see `Head.forward`."""
        batch, sizes = self.batch(images), sizes_of(images)
        features = self.neck(self.backbone(batch)[-1])
        rows, columns = features.shape[-2:]
        stride = self.backbone.strides[-1]
        # A cell is padding where no pixel of the image is in it.
        cells = torch.tensor(
            [[-(-side // stride) for side in size] for size in sizes], device=batch.device
        )
        padded = any(size != batch.shape[-2:] for size in sizes)
        return self.head(
            features.flatten(2).transpose(1, 2),
            sine_positions(cells, rows, columns).to(features.dtype),
            outside(cells, rows, columns) if padded else None,
            all_layers,
        )

    def forward(
        self, images: Images, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Detect, or measure the losses.

        targets: per image `boxes` (n, 4), left, top, right, bottom in pixels, and `labels` (n,).
        Returns losses `classification`, `box` and `giou`, weighted and summed over the decoder's
        layers, where targets are given; otherwise per image `boxes` (Q, 4), `scores` (Q,) and
        `labels` (Q,), best first.
        """
        outputs = self.outputs(images, all_layers=targets is not None)
        outputs = {name: output.float() for name, output in outputs.items()}
        if targets is not None:
            boxes = [relative(t["boxes"], i) for t, i in zip(targets, images, strict=True)]
            return self.losses(outputs, boxes, [target["labels"] for target in targets])
        return [
            detect(logits, boxes, size)
            for logits, boxes, size in zip(
                outputs["logits"][-1], outputs["boxes"][-1], sizes_of(images), strict=True
            )
        ]

    def losses(
        self, outputs: dict[str, Tensor], boxes: list[Tensor], labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """Losses of all layers (section 3.1), each layer matched by itself.

        Each is over the batch of all processes: see `pvt_bench.networks.loss.divisor`.

        outputs: `logits` (L, B, Q, K + 1) and `boxes` (L, B, Q, 4).
        boxes, labels: of each image the true ones, (n_i, 4) as the outputs have them and (n_i,).
        """
        weights = outputs["logits"].new_ones(self.num_classes + 1)
        weights[-1] = self.no_object_weight
        _, images, slots, _ = outputs["logits"].shape
        count = divisor(weights.new_tensor(sum(len(each) for each in labels)))
        # Of the queries of a layer; as many are matched in each.
        matched = sum(min(len(each), slots) for each in labels)
        unmatched = self.no_object_weight * (images * slots - matched)
        weight = divisor(weights.new_tensor(matched + unmatched), least=0)
        losses = {
            name: outputs["boxes"].new_zeros(()) for name in ("classification", "box", "giou")
        }
        for logits, predicted in zip(outputs["logits"], outputs["boxes"], strict=True):
            pairs = [match(*image) for image in zip(logits, predicted, boxes, labels, strict=True)]
            classes = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
            for wanted, (queries, objects), label in zip(classes, pairs, labels, strict=True):
                wanted[queries] = label[objects]
            mine = torch.cat([p[q] for p, (q, _) in zip(predicted, pairs, strict=True)])
            truth = torch.cat([b[o] for b, (_, o) in zip(boxes, pairs, strict=True)])
            overlap = generalized_box_iou(corners(mine), corners(truth)).diag()
            losses["classification"] += (
                F.cross_entropy(logits.transpose(1, 2), classes, weights, reduction="sum") / weight
            )
            losses["box"] += BOX * F.l1_loss(mine, truth, reduction="sum") / count
            losses["giou"] += GIOU * (1 - overlap).sum() / count
        return losses


def sine_positions(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Sine encoding of the place of each cell (B, rows x columns, 256); appendix A.4.

    cells: rows and columns of each image that are no padding (B, 2). The first half of the
    channels is of the row, each counted from 1 and scaled to 2 pi at the image's end.
    """
    exponent = torch.arange(WIDTH // 4, device=cells.device) * (4 / WIDTH)
    halves = []
    for places, extent in zip((rows, columns), cells.unbind(1), strict=True):
        place = torch.arange(1, places + 1, device=cells.device)
        angle = 2 * math.pi * place / (extent[:, None] + 1e-6)
        waves = angle[..., None] / TEMPERATURE**exponent
        halves.append(torch.stack((waves.sin(), waves.cos()), dim=-1).flatten(2))
    vertical = halves[0][:, :, None].expand(-1, -1, columns, -1)
    horizontal = halves[1][:, None].expand(-1, rows, -1, -1)
    return torch.cat((vertical, horizontal), dim=-1).flatten(1, 2)


def outside(cells: Tensor, rows: int, columns: int) -> Tensor:
    """The cells that are padding (B, rows x columns) bool; cells: see `sine_positions`."""
    below = torch.arange(rows, device=cells.device) >= cells[:, :1]
    beside = torch.arange(columns, device=cells.device) >= cells[:, 1:]
    return (below[:, :, None] | beside[:, None]).flatten(1)


@torch.no_grad()
def match(
    logits: Tensor, predicted: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Pairs of queries and objects of least cost (arXiv 2005.12872, equation 1).

    Returns the indices of the queries and of their objects, as many as there are of the fewer.
    """
    cost = (
        BOX * torch.cdist(predicted, boxes, p=1)
        - GIOU * generalized_box_iou(corners(predicted), corners(boxes))
        - logits.softmax(-1)[:, labels]
    )
    # Where training diverged the loss is to say so, not the matching.
    pairs = linear_sum_assignment(torch.nan_to_num(cost).cpu().numpy())
    queries, objects = (torch.from_numpy(side).to(boxes.device) for side in pairs)
    return queries, objects


def detect(logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """One object a query, from logits (Q, K + 1), boxes (Q, 4), the image's height and width."""
    scores, labels = logits.softmax(-1)[:, :-1].max(-1)
    scores, best = scores.sort(descending=True, stable=True)
    scaled = corners(boxes[best]) * boxes.new_tensor([size[1], size[0]] * 2)
    return {"boxes": clip_boxes_to_image(scaled, size), "scores": scores, "labels": labels[best]}


def relative(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes in pixels, XYXY, as centre and size in fractions of the image."""
    height, width = image.shape[-2:]
    return box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height] * 2)


def corners(boxes: Tensor) -> Tensor:
    """Boxes of centre and size as XYXY."""
    return box_convert(boxes, "cxcywh", "xyxy")
