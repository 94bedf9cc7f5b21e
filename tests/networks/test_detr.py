"""DETR against transformers' DetrForObjectDetection with the same weights."""

from itertools import permutations
from typing import Any

import pytest
import torch
from test_retinanet import Pyramid
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from pvt_bench.backbones import create, freeze
from pvt_bench.measure.cost import measure_cost
from pvt_bench.networks.detr import BOX, DETR, GIOU, corners, match

CLASSES, QUERIES, LAYERS = 5, 12, 2


class Last(nn.Module):
    """The backbone of transformers' model as ours are."""

    channels = (8, 16, 24, 32)
    strides = (4, 8, 16, 32)
    mean = (0.4, 0.5, 0.6)
    std = (0.2, 0.25, 0.3)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.model(images).feature_maps)


@pytest.fixture(scope="module")
def theirs() -> DetrForObjectDetection:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=list(Last.channels),
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage4"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        num_queries=QUERIES,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        num_labels=CLASSES,
    )
    return DetrForObjectDetection(config).eval()


@pytest.fixture
def ours(theirs: DetrForObjectDetection) -> DETR:
    network = DETR(Last(theirs.model.backbone.model), CLASSES, QUERIES, LAYERS).eval()
    network.neck.load_state_dict(theirs.model.input_projection.state_dict())
    head = network.head
    head.queries.data.copy_(theirs.model.query_position_embeddings.weight)
    head.norm.load_state_dict(theirs.model.decoder.layernorm.state_dict())
    head.classes.load_state_dict(theirs.class_labels_classifier.state_dict())
    copy_linears(head.boxes, theirs.bbox_predictor.layers)
    for mine, their in zip(head.encoder, theirs.model.encoder.layers, strict=True):
        copy_attention(mine.image, their.self_attn, their.self_attn_layer_norm)
        copy_feed_forward(mine.feed_forward, their)
    for mine, their in zip(head.decoder, theirs.model.decoder.layers, strict=True):
        copy_attention(mine.objects, their.self_attn, their.self_attn_layer_norm)
        copy_attention(mine.image, their.encoder_attn, their.encoder_attn_layer_norm)
        copy_feed_forward(mine.feed_forward, their)
    return network


def copy_linears(mine: nn.Module, theirs: Any) -> None:
    linears = [module for module in mine.modules() if isinstance(module, nn.Linear)]
    for linear, their in zip(linears, theirs, strict=True):
        linear.load_state_dict(their.state_dict())


def copy_attention(mine: Any, theirs: Any, norm: nn.Module) -> None:
    parts = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    mine.attention.in_proj_weight.data.copy_(torch.cat([part.weight for part in parts]))
    mine.attention.in_proj_bias.data.copy_(torch.cat([part.bias for part in parts]))
    mine.attention.out_proj.load_state_dict(theirs.o_proj.state_dict())
    mine.norm.load_state_dict(norm.state_dict())


def copy_feed_forward(mine: Any, theirs: Any) -> None:
    copy_linears(mine.layers, (theirs.mlp.fc1, theirs.mlp.fc2))
    mine.norm.load_state_dict(theirs.final_layer_norm.state_dict())


def some_images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def normalised(image: Tensor) -> Tensor:
    return (image - torch.tensor(Last.mean)[:, None, None]) / torch.tensor(Last.std)[:, None, None]


def targets(*counts: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    made = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 60
        sides = torch.rand(count, 2, generator=generator) * 30 + 2
        labels = torch.randint(CLASSES, (count,), generator=generator)
        made.append({"boxes": torch.cat((corner, corner + sides), 1), "labels": labels})
    return made


@pytest.mark.parametrize("sizes", [[(96, 128), (96, 128)], [(128, 160), (90, 64), (33, 160)]])
def test_outputs_equal_transformers(
    ours: DETR, theirs: DetrForObjectDetection, sizes: list[tuple[int, int]]
) -> None:
    """The second batch is padded, and its images end within a cell."""
    images = some_images(*sizes)
    height, width = (
        max(32 * -(-side // 32) for side in sides) for sides in zip(*sizes, strict=True)
    )
    pixels, valid = (
        torch.zeros(len(sizes), 3, height, width),
        torch.zeros(len(sizes), height, width),
    )
    for place, mask, image in zip(pixels, valid, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = normalised(image)
        mask[: image.shape[1], : image.shape[2]] = 1
    with torch.no_grad():
        mine, their = ours.outputs(images), theirs(pixels, valid)
    torch.testing.assert_close(mine["logits"][-1], their.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine["boxes"][-1], their.pred_boxes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (0, 0), (QUERIES + 8, 2)])
def test_losses_equal_transformers(
    ours: DETR, theirs: DetrForObjectDetection, counts: tuple[int, ...]
) -> None:
    """Every part, of every layer; also without objects, and with more objects than queries."""
    images, wanted = some_images((96, 128), (96, 128)), targets(*counts)
    losses = ours(images, wanted)
    outputs = ours.outputs(images, all_layers=True)
    labels = []
    for target in wanted:
        left, top, right, bottom = target["boxes"].unbind(1)
        centred = torch.stack(
            [(left + right) / 256, (top + bottom) / 192, (right - left) / 128, (bottom - top) / 96],
            dim=1,
        )
        labels.append({"boxes": centred, "class_labels": target["labels"]})
    config = DetrConfig(**{**theirs.config.to_dict(), "auxiliary_loss": True})
    total, parts, _ = ForObjectDetectionLoss(
        outputs["logits"][-1],
        labels,
        torch.device("cpu"),
        outputs["boxes"][-1],
        config,
        outputs["logits"],
        outputs["boxes"],
    )
    for mine, (name, weight) in {
        "classification": ("loss_ce", 1.0),
        "box": ("loss_bbox", 5.0),
        "giou": ("loss_giou", 2.0),
    }.items():
        their = sum(parts[f"{name}{layer}"].item() for layer in ("", "_0")) * weight
        assert losses[mine].item() == pytest.approx(their, rel=1e-5, abs=1e-6), mine
        assert (their > 0) == (mine == "classification" or sum(counts) > 0)
    assert sum(losses.values()).item() == pytest.approx(total.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters() if p.grad is not None)


def test_the_matching_is_the_cheapest_of_all() -> None:
    """All ways to give three of five queries to three objects, by the formula of section 3.1."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, CLASSES + 1, generator=generator)
    predicted = torch.rand(5, 4, generator=generator) * 0.4 + 0.1
    boxes, labels = torch.rand(3, 4, generator=generator) * 0.4 + 0.1, torch.tensor([1, 1, 4])

    def cost(query: int, thing: int) -> float:
        distance = (predicted[query] - boxes[thing]).abs().sum()
        overlap = generalized_box_iou(corners(predicted[[query]]), corners(boxes[[thing]]))[0, 0]
        return float(-logits[query].softmax(-1)[labels[thing]] + BOX * distance - GIOU * overlap)

    best = min(permutations(range(5), 3), key=lambda way: sum(map(cost, way, range(3))))
    queries, objects = match(logits, predicted, boxes, labels)
    assert dict(zip(objects.tolist(), queries.tolist(), strict=True)) == dict(enumerate(best))


def test_detections_are_the_queries_in_pixels(ours: DETR) -> None:
    (image,) = some_images((96, 128))
    with torch.no_grad():
        outputs, (found,) = ours.outputs([image]), ours([image])
    scores = outputs["logits"][0, 0].softmax(-1)
    order = scores[:, :-1].max(-1).values.argsort(descending=True)
    assert torch.equal(found["labels"], scores[order, :-1].argmax(-1))
    torch.testing.assert_close(found["scores"], scores[order, :-1].max(-1).values)
    x, y, width, height = outputs["boxes"][0, 0][order].unbind(-1)
    expected = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
    pixels = (expected * torch.tensor([128.0, 96.0, 128.0, 96.0])).clamp(min=0)
    pixels = torch.minimum(pixels, torch.tensor([128.0, 96.0, 128.0, 96.0]))
    torch.testing.assert_close(found["boxes"], pixels)
    assert (found["scores"].diff() <= 0).all()


def test_padding_is_not_attended_to(ours: DETR) -> None:
    """With a backbone that sees each cell alone, a larger neighbour changes nothing."""
    torch.manual_seed(0)
    network = DETR(Pyramid(), CLASSES, QUERIES, LAYERS).eval()
    small, large = some_images((64, 96), (128, 192))
    with torch.no_grad():
        alone, together = network([small])[0], network([large, small])[1]
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_finite_gradient() -> None:
    network = DETR(Pyramid(), CLASSES, QUERIES, LAYERS).train()
    sum(network(some_images((96, 64), (64, 64)), targets(2, 0)).values()).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("backbone.maps") and not name.startswith("backbone.maps.3"):
            continue  # only the last map is used
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_losses_are_single_precision_under_autocast() -> None:
    network = DETR(Pyramid(), CLASSES, QUERIES, LAYERS)
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(some_images((96, 64), (64, 64)), targets(2, 1))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_a_diverged_network_has_a_loss_that_says_so() -> None:
    network = DETR(Pyramid(), CLASSES, QUERIES, LAYERS)
    nn.init.constant_(network.neck.weight, float("nan"))
    assert network(some_images((64, 64)), targets(2))["classification"].isnan()


def test_costs_what_was_published() -> None:
    """The official log prints 41302368 parameters: 91 classes, stem and first stage frozen, and
    batch norms without parameters. Table 1 of arXiv 2005.12872 has 41 M and 86 GFLOPs, the mean
    over the first images of COCO's validation set; most of them resize to about 800 x 1067.
    """
    with torch.device("meta"):
        network = DETR(create("resnet50", features=True), 91)
    freeze(network.backbone, 1, batch_norm=True)
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.requires_grad_(False)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 41302368
    narrow, wide = (measure_cost(network, (800, width)) for width in (1056, 1216))
    assert narrow.gflops < 86 < wide.gflops
    assert not wide.uncounted
    parts = sum(wide.parts[part]["gflops"] for part in ("backbone", "neck", "head"))
    assert parts == pytest.approx(wide.gflops, rel=1e-6)
    # By hand, at 25 x 38 cells: projections, feed-forward and attention of encoder and decoder.
    cells, width, inside, queries = 25 * 38, 256, 2048, 100
    square = width * width
    encoder = cells * (4 * square + 2 * width * inside) + 2 * cells * cells * width
    decoder = queries * (6 * square + 2 * width * inside) + 2 * queries * queries * width
    decoder += 2 * cells * square + 2 * queries * cells * width
    heads = queries * (2 * square + width * (92 + 4))
    by_hand = 6 * (encoder + decoder) + heads
    assert wide.parts["head"]["gflops"] == pytest.approx(by_hand / 1e9, rel=0.01)
