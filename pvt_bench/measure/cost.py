"""Parameters and multiply-adds of a network, and what a counter leaves out.

GFLOPs count one multiply-add once, as the papers do. torch's counter gives them from shapes alone
on the meta device; fvcore gives activations and a second opinion on real tensors.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

PARTS = ("backbone", "neck", "head")

# Operators that move data, or do a few operations an element: neither papers nor counters
# count them, and beside the products of a network they do not weigh.
LIGHT = frozenset(
    """
    _adaptive_avg_pool2d _log_softmax _safe_softmax _softmax _to_copy _unsafe_index _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa amax amin any arange argmax as_strided_
    avg_pool2d bernoulli_ cat clone constant_pad_nd copy copy_ cumsum embedding empty empty_like
    fill_ flip full full_like gather im2col index index_put index_put_ index_select lift_fresh
    linalg_vector_norm masked_fill masked_fill_ max max_pool2d_with_indices mean min
    native_dropout new_empty new_full new_ones new_zeros nonzero ones ones_like rand rand_like
    randn reflection_pad2d roll scalar_tensor scatter select_scatter slice_scatter sort stack
    std sum topk upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var var_mean zero_
    zeros zeros_like
    """.split()  # noqa: SIM905
)


def _norm_flops(input_shape: torch.Size, *_: Any, **__: Any) -> int:
    # Scale and shift: two operations an element, in a unit of which a multiply-add has two.
    return 4 * math.prod(input_shape)


# torch's counter leaves normalisation out; the counters behind the published numbers count its
# scale and its shift (0.3 % of a ResNet-50's RetinaNet).
NORMS = {
    getattr(torch.ops.aten, name): _norm_flops
    for name in (
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
        "native_batch_norm",
        "native_group_norm",
        "native_layer_norm",
    )
}


@dataclass(frozen=True)
class Cost:
    """Cost of one image.

    params_m: millions of trainable parameters; params_all_m: of all parameters.
    gflops: billions of multiply-adds.
    parts: the same three by part, `{"backbone": {"params_m": ..., ...}, ...}`.
    uncounted: operators of weight that the counter does not know, with their calls.
    size: height and width in pixels of what the backbone was shown: padded, where networks pad.
    """

    params_m: float
    params_all_m: float
    gflops: float
    parts: dict[str, dict[str, float]]
    size: tuple[int, int]
    uncounted: dict[str, int] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """The cost under the names of the records, `cost/...`."""
        whole = {name: getattr(self, name) for name in ("params_m", "params_all_m", "gflops")}
        parts = {
            f"{part}_{name}": value
            for part, values in self.parts.items()
            for name, value in values.items()
        }
        return {f"cost/{name}": value for name, value in (whole | parts).items()}


class _Dense(nn.Module):
    """The dense part of a network as a module: counters attribute operations to modules."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        compute = getattr(self.network, "outputs", self.network)
        outputs = compute(images)
        return list(outputs.values()) if isinstance(outputs, dict) else outputs


class _UncountedOperators(TorchDispatchMode):
    """Counts the calls of operators that neither torch's counter nor `LIGHT` knows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        packet = func.overloadpacket
        known = packet in flop_registry or packet in NORMS or packet.__name__ in LIGHT
        if not known and not func.is_view and torch.Tag.pointwise not in func.tags:
            self.calls[str(packet)] += 1
        return func(*args, **(kwargs or {}))


def count_parameters(module: nn.Module) -> tuple[float, float]:
    """Millions of trainable parameters, and of all."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trainable / 1e6, sum(p.numel() for p in module.parameters()) / 1e6


def measure_cost(network: nn.Module, size: tuple[int, int]) -> Cost:
    """Count a network built on the meta device for one image of `size` (height, width)."""
    dense = _Dense(network).eval()
    images = torch.empty(1, 3, *size, device="meta")
    ops = FlopCounterMode(display=False, custom_mapping=NORMS)
    with torch.no_grad(), _watched(network, size) as sizes, _UncountedOperators() as uncounted, ops:
        dense(images)
    by_module = ops.get_flop_counts()
    parts = {}
    for part in PARTS:
        module = getattr(network, part, None)
        if isinstance(module, nn.Module):
            flops = sum(by_module.get(f"_Dense.network.{part}", {}).values())
            trainable, everything = count_parameters(module)
            parts[part] = {
                "params_m": trainable,
                "params_all_m": everything,
                "gflops": flops / 2 / 1e9,
            }
    trainable, everything = count_parameters(network)
    return Cost(
        params_m=trainable,
        params_all_m=everything,
        gflops=ops.get_total_flops() / 2 / 1e9,
        parts=parts,
        size=sizes[-1],
        uncounted=dict(uncounted.calls),
    )


@contextmanager
def _watched(network: nn.Module, size: tuple[int, int]) -> Iterator[list[tuple[int, int]]]:
    """The size that a network is shown, and then that its backbone is."""
    sizes = [size]
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        yield sizes
        return
    hook = backbone.register_forward_pre_hook(
        lambda _, inputs: sizes.append((inputs[0].shape[-2], inputs[0].shape[-1]))
    )
    try:
        yield sizes
    finally:
        hook.remove()


def measure_with_fvcore(network: nn.Module, size: tuple[int, int]) -> tuple[float, float]:
    """fvcore's GFLOPs, and millions of output elements of convolutions and matrix products.

    On real tensors: it cannot trace on meta.
    """
    with warnings.catch_warnings():
        # fvcore traces with TorchScript, which torch has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return _analyse(network, size)


def _analyse(network: nn.Module, size: tuple[int, int]) -> tuple[float, float]:
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

    dense = _Dense(network).eval()
    images = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    totals = []
    for analysis, handler in (
        (FlopCountAnalysis(dense, images), _attention_flops),
        (ActivationCountAnalysis(dense, images), _attention_activations),
    ):
        analysis.set_op_handle("aten::scaled_dot_product_attention", handler)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        with torch.no_grad():
            totals.append(analysis.total())
    return totals[0] / 1e9, totals[1] / 1e6


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of q k^T and of the product with v; fvcore itself counts none of them."""
    *batch, queries, width = _shape(inputs[0])
    keys, value_width = _shape(inputs[2])[-2:]
    return int(torch.Size(batch).numel()) * queries * keys * (width + value_width)


def _attention_activations(inputs: list[Any], outputs: list[Any]) -> int:
    """The output of fused attention; its matrix of weights is never stored."""
    return int(torch.Size(_shape(outputs[0])).numel())
