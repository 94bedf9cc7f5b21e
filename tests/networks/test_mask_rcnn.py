"""Mask R-CNN against torchvision's own, which shares its parts but not the code around them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_assigning import by_rule, iou
from test_retinanet import Pyramid, Unrounded
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection import roi_heads
from torchvision.ops import roi_align

from pvt_bench.backbones import create, freeze
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore
from pvt_bench.networks.mask_rcnn import MaskRCNN, crop_masks

CLASSES = 5
SIZE = (128, 192)


class Named(nn.Module):
    """Backbone and neck as torchvision's detectors take them."""

    out_channels = 256

    def __init__(self, network: MaskRCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        levels = self.network.neck(self.network.backbone(images))
        return {str(number): level for number, level in enumerate(levels)}


@pytest.fixture
def network() -> MaskRCNN:
    network = MaskRCNN(
        Pyramid(), CLASSES, regions=64, proposals=200, score_threshold=0.1, detections=20
    ).eval()
    torch.manual_seed(6)  # with which labels differ
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.03)
    return network


@pytest.fixture
def oracle(network: MaskRCNN) -> TorchvisionMaskRCNN:
    # 128 x 192 is divided without rest by P6's stride, so torchvision's strides are right too.
    theirs = TorchvisionMaskRCNN(
        Named(network),
        CLASSES + 1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        image_mean=list(Pyramid.mean),
        image_std=list(Pyramid.std),
        rpn_anchor_generator=Unrounded(
            tuple((8 * stride,) for stride in (4, 8, 16, 32, 64)), ((0.5, 1.0, 2.0),) * 5
        ),
        rpn_pre_nms_top_n_train=2000,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=200,
        box_batch_size_per_image=64,
        box_score_thresh=0.1,
        box_detections_per_img=20,
    ).eval()
    theirs.roi_heads.box_roi_pool = Pooled(network.head.regions.box_roi_pool)
    theirs.roi_heads.mask_roi_pool = Pooled(network.head.regions.mask_roi_pool)
    theirs.rpn.load_state_dict(network.head.proposals.state_dict())
    theirs.roi_heads.load_state_dict(network.head.regions.state_dict())
    return theirs


class Pooled(nn.Module):
    """Our pool on the named maps that torchvision's heads hand over."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: dict[str, Tensor], *rest: Any) -> Tensor:
        return self.pool(list(maps.values())[:4], *rest)


def some_images(count: int = 2, size: tuple[int, int] = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for _ in range(count)]


def target(size: tuple[int, int] = SIZE) -> dict[str, Tensor]:
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [70.0, 20.0, 120.0, 90.0]])
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 12:70, 10:50] = True
    masks[1, 40:90, 70:120] = True
    return {"boxes": boxes, "labels": torch.tensor([3, 0]), "masks": masks}


def nothing(size: tuple[int, int] = SIZE) -> dict[str, Tensor]:
    masks = torch.zeros(0, *size, dtype=torch.bool)
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": masks}


def test_detections_equal_torchvision(network: MaskRCNN, oracle: TorchvisionMaskRCNN) -> None:
    images = some_images()
    with torch.no_grad():
        ours, theirs = network(images), oracle(images)
    assert sum(len(detected["boxes"]) for detected in ours) > 20
    assert len(torch.cat([detected["labels"] for detected in ours]).unique()) > 1
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine["boxes"], their["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(mine["scores"], their["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(mine["labels"] + 1, their["labels"])
        assert mine["masks"].shape == (len(mine["boxes"]), 28, 28)
        # Theirs are in the image: inside one box, the centre of the mask is that of the image.
        for box, mask, pasted in zip(mine["boxes"], mine["masks"], their["masks"], strict=True):
            column, row = ((box[:2] + box[2:]) / 2).long().tolist()
            near = mask[12:16, 12:16]
            assert near.min() - 0.02 <= pasted[0, row, column] <= near.max() + 0.02


def test_losses_equal_torchvision(
    network: MaskRCNN, oracle: TorchvisionMaskRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torchvision has L1 loss on boxes, and masks of whole cells that are cropped at the
    centres of pixels; both draw the same samples from one seed.

    The boxes are such that each anchor and region belongs to the one that it overlaps most.
    """

    def l1(ours: Tensor, theirs: Tensor, beta: float, reduction: str) -> Tensor:
        return F.l1_loss(ours, theirs, reduction=reduction)

    def crop(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
        regions = torch.cat((matched[:, None].to(boxes), boxes), 1)
        return (roi_align(masks[:, None].float(), regions, side, aligned=True)[:, 0] >= 0.5).float()

    images = some_images()
    targets = [target(), target()]
    torch.manual_seed(3)
    ours = network.train()(images, targets)
    one_based = [{**each, "labels": each["labels"] + 1} for each in targets]
    oracle.train().transform.eval()  # it would draw a size to resize to
    monkeypatch.setattr(F, "smooth_l1_loss", l1)
    monkeypatch.setattr(roi_heads, "project_masks_on_boxes", crop)
    torch.manual_seed(3)
    theirs = oracle(images, one_based)
    names = {
        "objectness": "loss_objectness",
        "proposal": "loss_rpn_box_reg",
        "classification": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert ours.keys() == names.keys()
    for mine, their in names.items():
        assert ours[mine].item() > 0
        assert ours[mine].item() == pytest.approx(theirs[their].item(), rel=1e-4), mine


def anchors_by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Anchors (A, 4) of an image of 64 x 96 pixels, and the pixels (A, 2) where cells begin."""
    anchors, cells = [], []
    for stride in (4, 8, 16, 32, 64):
        for row in range(math.ceil(64 / stride)):
            for column in range(math.ceil(96 / stride)):
                for ratio in (0.5, 1.0, 2.0):
                    width, height = (8 * stride * ratio**e for e in (-0.5, 0.5))
                    x, y = column * stride, row * stride
                    anchors.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
                    cells.append((x, y))
    return np.array(anchors), np.array(cells)


def test_proposals_are_trained_as_in_the_release(network: MaskRCNN) -> None:
    """All anchors are drawn. Two boxes overlap, the best anchor of a third overlaps it by less than
    0.3; the second image is smaller than the batch, and the third has no box."""
    head = network.head.proposals
    head.fg_bg_sampler.batch_size_per_image = 10**6
    sizes = [(64, 96), (30, 40), (64, 96)]
    images = [some_images(1)[0][:, :height, :width] for height, width in sizes]
    boxes = [
        torch.tensor([[8.0, 8, 44, 50], [10, 10, 46, 50], [60, 3, 66, 9]]),
        torch.tensor([[2.0, 2, 30, 29]]),
        torch.zeros(0, 4),
    ]
    targets = [{"boxes": each} for each in boxes]
    with torch.no_grad():
        pyramid = network.neck(network.backbone(network.batch(images)))
        scores, shifts = (
            torch.cat(
                [level.permute(0, 2, 3, 1).reshape(3, -1, 3 * channels) for level in levels], 1
            )
            .reshape(3, -1, channels)
            .double()
            .numpy()
            for levels, channels in zip(head.head(pyramid), (1, 4), strict=True)
        )
        _, losses = head(pyramid, sizes, targets)

    anchors, cells = anchors_by_hand()
    objectness = box = count = 0.0
    found = []
    for score, shift, (height, width), true in zip(scores, shifts, sizes, boxes, strict=True):
        own = (cells < (math.ceil(width / 32) * 32, math.ceil(height / 32) * 32)).all(1)
        true_boxes = true.double().numpy()
        ious = np.array([[iou(each, anchor) for anchor in anchors[own]] for each in true_boxes])
        matches = np.array(by_rule(ious.reshape(len(true), own.sum()), 0.7, 0.3, 0.3))
        found.append(set(matches[matches >= 0].tolist()))
        p = 1 / (1 + np.exp(-score[own, 0]))
        objectness -= np.log(p[matches >= 0]).sum() + np.log(1 - p[matches == -1]).sum()
        for anchor, delta, match in zip(anchors[own], shift[own], matches, strict=True):
            if match >= 0:
                (centre, side), (wanted, wanted_side) = (
                    ((corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2])
                    for corners in (anchor, true_boxes[match])
                )
                truth = [*((wanted - centre) / side), *np.log(wanted_side / side)]
                box += np.abs(truth - delta).sum()
        count += max(1, (matches >= 0).sum()) + max(1, (matches == -1).sum())
    assert found == [{0, 1}, {0}, set()]
    assert losses["objectness"].item() == pytest.approx(objectness / count, rel=1e-4)
    assert losses["proposal"].item() == pytest.approx(box / count, rel=1e-4)


def test_true_boxes_are_regions_and_take_no_part_in_the_matching(network: MaskRCNN) -> None:
    """The second box takes the proposal that it overlaps most from the first box, as it does not
    count that it overlaps itself more."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 7]])
    proposals = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 4], [40, 40, 50, 50]])
    labels = torch.tensor([3, 5])
    ((matched, _), (found, none)) = network.head.regions.assign_targets_to_proposals(
        [torch.cat([proposals, boxes]), proposals], [boxes, boxes[:0]], [labels, labels[:0]]
    )
    assert found.tolist() == [5, 5, 0, 3, 5]
    assert matched.tolist() == [1, 1, 0, 0, 1]
    assert none.tolist() == [0, 0, 0]


def test_a_true_mask_is_of_whole_cells() -> None:
    """A box of 8 x 8 pixels in 4 x 4 cells: a cell counts from two of its four pixels on."""
    mask = torch.zeros(2, 12, 16, dtype=torch.bool)
    mask[1, 2:7, 4:9] = True
    parts = crop_masks(mask, torch.tensor([[4.0, 2.0, 12.0, 10.0]]), torch.tensor([1]), 4)
    expected = torch.zeros(4, 4)
    expected[:2, :2] = 1  # wholly covered
    expected[2, :2] = expected[:2, 2] = 1  # half covered
    assert torch.equal(parts, expected[None])
    assert crop_masks(mask[:0], torch.zeros(0, 4), torch.zeros(0).long(), 4).shape == (0, 4, 4)


def test_weights_start_as_in_the_release() -> None:
    """Xavier uniform in the neck and the shared layers, normal with deviations of 0.01 and 0.001 in
    the predictors and 0.01 in the proposals, Kaiming by outputs in the mask head; no bias."""
    torch.manual_seed(0)
    network = MaskRCNN(Pyramid(), 80)

    def xavier(*shape: int) -> float:
        return math.sqrt(2 / ((shape[0] + shape[1]) * math.prod(shape[2:])))

    def kaiming(*shape: int) -> float:
        return math.sqrt(2 / (shape[0] * math.prod(shape[2:])))

    wanted = {
        "neck": xavier,
        "head.regions.box_head": xavier,
        "head.regions.box_predictor.cls_score": lambda *_: 0.01,
        "head.regions.box_predictor.bbox_pred": lambda *_: 0.001,
        "head.proposals": lambda *_: 0.01,
        "head.regions.mask_head": kaiming,
        "head.regions.mask_predictor": kaiming,
    }
    seen = set()
    for name, parameter in network.named_parameters():
        for part, deviation in wanted.items():
            if not name.startswith(f"{part}."):
                continue
            seen.add(part)
            if name.endswith("bias"):
                assert parameter.abs().max() == 0, name
                continue
            shape = parameter.shape
            assert parameter.std().item() == pytest.approx(deviation(*shape), rel=0.04), name
            if deviation is xavier:
                assert parameter.abs().max() <= xavier(*shape) * 3**0.5, name
    assert seen == wanted.keys()


def test_every_parameter_gets_a_finite_gradient(network: MaskRCNN) -> None:
    size = (80, 96)
    losses = network.train()(some_images(2, size), [target(size), nothing(size)])
    sum(losses.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    split = [
        p for part in ("backbone", "neck", "head") for p in getattr(network, part).parameters()
    ]
    assert len(split) == len(list(network.parameters()))


def test_images_without_objects_have_finite_losses(network: MaskRCNN) -> None:
    losses = network.train()(some_images(1), [nothing()])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["proposal"] == losses["box"] == losses["mask"] == 0
    sum(losses.values()).backward()


def test_nothing_is_found_where_nothing_is_proposed(network: MaskRCNN) -> None:
    network.head.proposals.score_thresh = 1.1
    (found,) = network(some_images(1))
    assert found["boxes"].shape == (0, 4)
    assert found["masks"].shape == (0, 28, 28)
    assert len(found["scores"]) == len(found["labels"]) == 0


def test_labels_count_from_zero(network: MaskRCNN) -> None:
    """A predictor that always says class 4, torchvision's number 5."""
    predictor = network.head.regions.box_predictor
    with torch.no_grad():
        predictor.cls_score.weight.zero_()
        predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 9.0]))
    (found,) = network(some_images(1))
    assert len(found["labels"]) > 0
    assert set(found["labels"].tolist()) == {CLASSES - 1}


def test_an_image_is_detected_within_its_own_size(network: MaskRCNN) -> None:
    network.head.regions.score_thresh = 0.0
    small, large = torch.rand(3, 64, 96), torch.rand(3, 128, 192)
    with torch.no_grad():
        found = network([large, small])[1]
    assert len(found["boxes"]) > 0
    assert found["boxes"][:, [0, 2]].max() <= 96
    assert found["boxes"][:, [1, 3]].max() <= 64


@pytest.mark.parametrize("size", [(800, 1344), (96, 96)])
def test_regions_are_pooled_at_the_strides_of_the_pyramid(
    network: MaskRCNN, size: tuple[int, int]
) -> None:
    """Of maps that hold the columns of their cells' centres each region gets its own back.

    Cell j of stride s has its centre at pixel (j + 1/2) s.
    """
    grid = [[math.ceil(side / stride) for side in size] for stride in (4, 8, 16, 32)]
    maps = [
        ((torch.arange(columns) + 0.5) * stride).expand(1, 1, rows, columns)
        for (rows, columns), stride in zip(grid, (4, 8, 16, 32), strict=True)
    ]
    # A region of each level: a side of less than 112, 224, 448 pixels, and more.
    sides = torch.tensor([side for side in (56.0, 140.0, 280.0, 560.0) if side < max(size)])
    boxes = torch.stack([sides * 0 + 16, sides * 0 + 16, sides + 16, sides + 16], 1)
    pooled = network.head.regions.box_roi_pool(maps, [boxes], [size])
    expected = 16 + sides[:, None] * (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(pooled[:, 0, 3], expected, rtol=1e-4, atol=1e-2)


def test_mixed_precision_keeps_coordinates(network: MaskRCNN) -> None:
    """In bfloat16 a coordinate of 1300 pixels would be rounded to multiples of 8."""
    images = some_images(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pyramid = network.neck(network.backbone(network.batch(images)))
        proposals, _ = network.head.proposals(pyramid, [SIZE])
        (found,) = network(images)
    assert proposals[0].dtype == found["boxes"].dtype == found["masks"].dtype == torch.float32
    assert ((proposals[0] * 4) % 1 > 0).any()
    with torch.autocast("cpu", torch.bfloat16):
        losses = network.train()(images, [target()])
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())


# Table 4 of arXiv 2102.12122: millions of trainable parameters for COCO's 80 classes. GFLOPs at
# 800 x 1280: table 10 of the same, and 260.1 of mmdetection's documentation for ResNet-50. By its
# convention all anchors are counted, 1000 regions in the box head and 100 in the mask head:
#   objectness  (64000 + 16000 + 4000 + 1000 + 260) cells x 256 x (9 x 256 + 15)         50.6 G
#   boxes       1000 x (12544 x 1024 + 1024 x 1024 + 1024 x 405)                          14.3 G
#   masks       100 x 196 x (4 x 9 x 256 x 256 + 4 x 256 x 256 + 4 x 256 x 81)            53.0 G
@pytest.mark.parametrize(
    ("name", "params", "gflops", "stages"),
    [
        ("pvt_tiny", 32.9, None, 0),
        ("pvt_small", 44.1, 304.4, 0),
        ("pvt_medium", 63.9, None, 0),
        ("pvt_large", 81.0, None, 0),
        ("resnet18", 31.2, None, 1),
        ("resnet50", 44.2, 260.1, 1),
        ("resnet101", 63.2, None, 1),
        ("resnext101_32x4d", 62.8, None, 1),
        ("resnext101_64x4d", 101.9, None, 1),
    ],
)
def test_costs_what_was_published(
    name: str, params: float, gflops: float | None, stages: int
) -> None:
    with torch.device("meta"):
        network = MaskRCNN(create(name, features=True), 80)
    freeze(network.backbone, stages, batch_norm=stages > 0)
    cost = measure_cost(network, (800, 1280))
    assert cost.params_m == pytest.approx(params, abs=0.05)
    assert gflops is None or cost.gflops == pytest.approx(gflops, rel=0.003)
    assert cost.parts["head"]["gflops"] == pytest.approx(117.9, abs=0.1)
    assert not cost.uncounted
    for figure in ("params_m", "params_all_m", "gflops"):
        parts = sum(cost.parts[part][figure] for part in ("backbone", "neck", "head"))
        assert parts == pytest.approx(getattr(cost, figure), rel=1e-6)


def test_two_counters_agree() -> None:
    """fvcore computes what it counts, and so sees the same number of regions."""
    theirs, _ = measure_with_fvcore(MaskRCNN(Pyramid(), CLASSES), (64, 96))
    with torch.device("meta"):
        shapes = MaskRCNN(Pyramid(), CLASSES)
    assert measure_cost(shapes, (64, 96)).gflops == pytest.approx(theirs, rel=0.01)
