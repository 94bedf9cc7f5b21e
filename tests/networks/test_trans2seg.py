"""Trans2Seg against the published costs, torch's attention, and what its design promises."""

import pytest
import torch
from omegaconf import OmegaConf
from test_retinanet import Pyramid
from torch import nn

from pvt_bench.backbones import create
from pvt_bench.config.folders import data_dir
from pvt_bench.measure.cost import measure_cost, measure_with_fvcore
from pvt_bench.networks.trans2seg import DecoderLayer, Trans2Seg

CLASSES = 5
WIDTH, POSITIONS, HIDDEN = 256, 16**2, 768
MLPS = ((WIDTH, HIDDEN), (POSITIONS, 3 * POSITIONS))  # width and hidden width


def published() -> Trans2Seg:
    with torch.device("meta"):
        return Trans2Seg(create("pvt_small", features=True), 150)


def test_the_sums_beside_the_published_cost_are_those_of_the_layers() -> None:
    """Table 7 of arXiv 2102.12122: 32.1 M, 31.6 G; experiments/table/ade20k_trans2seg.yaml.

    To be added: what the released code computes in the decoder and never uses. To be taken off:
    parameters that its counter, which sums over modules of known kinds, does not see.
    """
    network = published()
    cost = measure_cost(network, (512, 512))
    assert not cost.uncounted
    mlp, positions_mlp = (2 * side * inside + inside + side for side, inside in MLPS)
    unused = 3 * positions_mlp + 2 * mlp + 2 * WIDTH**2 + WIDTH  # the last: values and proj
    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    unseen = [parameter for norm in norms for parameter in norm.parameters()]
    for name, parameter in network.named_parameters():
        if name.endswith(("pos_embed", "prototypes")):
            unseen.append(parameter)
    params_m = (unused - sum(parameter.numel() for parameter in unseen)) / 1e6

    rows = 150 * 8
    products = 3 * rows * 2 * POSITIONS * 3 * POSITIONS
    products += (150 + POSITIONS) * 2 * WIDTH * HIDDEN + (150 + POSITIONS) * WIDTH**2
    products += 150 * POSITIONS * WIDTH

    table = OmegaConf.load(data_dir("experiments") / "table" / "ade20k_trans2seg.yaml")
    reason = table.report.gaps.pvt_small
    assert reason.params_m == pytest.approx(params_m, abs=1e-3)
    assert reason.gflops == pytest.approx(products / 1e9, abs=1e-3)
    assert cost.params_m + params_m == pytest.approx(32.1, abs=0.02)
    # What is wider than 1 % is told in the table: the configuration was not released.
    assert cost.gflops + products / 1e9 == pytest.approx(31.6, rel=0.025)


def test_two_counters_agree() -> None:
    network = Trans2Seg(create("pvt_tiny", features=True), 20)
    theirs, _ = measure_with_fvcore(network, (128, 192))
    with torch.device("meta"):
        shapes = Trans2Seg(create("pvt_tiny", features=True), 20)
    assert measure_cost(shapes, (128, 192)).gflops == pytest.approx(theirs, rel=0.01)


@pytest.fixture
def network() -> Trans2Seg:
    torch.manual_seed(0)
    network = Trans2Seg(
        Pyramid(), CLASSES, width=32, depth=3, heads=4, mlp_ratio=2.0, conv_width=8, grid=2
    )
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    return network


def test_logits_have_the_size_of_each_image(network: Trans2Seg) -> None:
    """Also of maps of other sizes and shapes than the grid's."""
    sizes = [(33, 170), (64, 64), (1, 1)]
    images = [torch.rand(3, *size) for size in sizes]
    with torch.no_grad():
        logits = network.eval()(images)
    assert [tuple(each.shape) for each in logits] == [(CLASSES, *size) for size in sizes]


def test_classes_are_treated_alike(network: Trans2Seg) -> None:
    """Prototypes in another order give the same logits in that order: nothing mixes classes."""
    order = torch.tensor([3, 0, 4, 1, 2])
    image = torch.rand(1, 3, 64, 96)
    network.eval()
    with torch.no_grad():
        before = network.outputs(image)
        network.head.prototypes.copy_(network.head.prototypes[:, order])
        after = network.outputs(image)
    assert before.std(dim=1).max() > 1e-3
    torch.testing.assert_close(after, before[:, order], rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other(network: Trans2Seg) -> None:
    images = torch.rand(2, 3, 64, 96)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            network.outputs(images)[1:], network.outputs(images[1:]), rtol=1e-4, atol=1e-5
        )


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    layer, oracle = DecoderLayer(32, 4, 2.0), nn.MultiheadAttention(32, 4, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([layer.q.weight, layer.kv.weight]))
        oracle.out_proj.load_state_dict(layer.proj.state_dict())
        prototypes, features = torch.randn(2, 5, 32), torch.randn(2, 6, 32)
        q, kv = layer.norm_prototypes(prototypes), layer.norm_features(features)
        found = prototypes + oracle(q, kv, kv, need_weights=False)[0]
        expected = found + layer.mlp(layer.norm_mlp(found))
        actual, _ = layer(prototypes, features)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_scores_are_those_of_each_head_by_itself(network: Trans2Seg) -> None:
    look_up = network.head.look_up
    nn.init.zeros_(look_up.positions_mlp.fc2.weight)
    nn.init.zeros_(look_up.positions_mlp.fc2.bias)
    prototypes, features = torch.randn(1, CLASSES, 32), torch.randn(1, 6, 32)
    maps = look_up(prototypes, features, torch.Size((2, 3)))
    q = look_up.q(look_up.norm_prototypes(prototypes))
    k = look_up.k(look_up.norm_features(features))
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        expected = (q[0, :, part] @ k[0, :, part].T) / 8**0.5
        torch.testing.assert_close(maps[0, :, head].flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_the_look_up_sees_the_prototypes_themselves() -> None:
    """Also where no decoder layer comes before it."""
    torch.manual_seed(0)
    network = Trans2Seg(Pyramid(), CLASSES, width=32, depth=1, heads=4, conv_width=8, grid=2)
    found = []
    network.head.look_up.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    network([torch.rand(3, 64, 96)])
    torch.testing.assert_close(found[0], network.head.prototypes)


def test_every_parameter_is_in_a_part_and_is_trained(network: Trans2Seg) -> None:
    segments = {"segments": torch.randint(CLASSES, (64, 96), dtype=torch.uint8)}
    network([torch.rand(3, 64, 96)] * 2, [segments] * 2)["cross_entropy"].backward()
    for name, parameter in network.named_parameters():
        assert name.split(".")[0] in ("backbone", "neck", "head")
        if not name.startswith("backbone.maps."):  # the middle maps take no part
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


def test_the_loss_is_the_mean_over_counted_pixels(network: Trans2Seg) -> None:
    """Neither ignored pixels nor the padding of a smaller image count, as in the released code."""
    torch.manual_seed(1)
    images = [torch.rand(3, 40, 64), torch.rand(3, 64, 50)]
    segments = [torch.randint(CLASSES, image.shape[-2:], dtype=torch.uint8) for image in images]
    segments[0][:10] = 255
    network.eval()
    with torch.no_grad():
        loss = network(images, [{"segments": each} for each in segments])["cross_entropy"]
        found = network(images)
    total = counted = 0.0
    for logits, truth in zip(found, segments, strict=True):
        for label in range(CLASSES):
            total -= logits.log_softmax(0)[label][truth == label].sum().item()
            counted += (truth == label).sum().item()
    assert counted == 30 * 64 + 64 * 50
    assert loss.item() == pytest.approx(total / counted, rel=1e-5)


def test_a_batch_without_a_counted_pixel_trains_nothing(network: Trans2Seg) -> None:
    ignored = {"segments": torch.full((32, 32), 255, dtype=torch.uint8)}
    loss = network([torch.rand(3, 32, 32)] * 2, [ignored] * 2)["cross_entropy"]
    loss.backward()
    assert loss.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
