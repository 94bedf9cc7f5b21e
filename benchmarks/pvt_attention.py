"""Compare the speed of PVT with fused and plain attention, and with transformers' PVT.

    python benchmarks/pvt_attention.py --threads 2 --repeats 5
    python benchmarks/pvt_attention.py --device cuda --dtype bfloat16

All contenders take turns in one process, so that a busy machine slows them alike; times are
medians. The share is the achieved FLOP/s (2 per multiply-add, by torch's counter) divided by that
of the fastest matrix product in the same run, on the same device and dtype. The latter is measured
first, so on a shared machine it can come out too low and the shares too high.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pvt_bench.backbones import create
from pvt_bench.backbones.pvt import VARIANTS


@dataclass
class Contender:
    """Something to be timed; `work` is run once a turn, `flops` is what it computes."""

    what: str
    work: Callable[[], object]
    flops: int


def infer(network: nn.Module, images: Tensor) -> None:
    """Forward, nothing kept."""
    with torch.inference_mode():
        network(images)


def forward(network: nn.Module, images: Tensor) -> None:
    """Forward as training calls it, with what the backward pass needs kept."""
    network(images)


def train(network: nn.Module, images: Tensor) -> None:
    """Infer and backpropagate the mean of the logits' squares."""
    output = network(images)
    logits = output if isinstance(output, Tensor) else output.logits
    logits.square().mean().backward()
    network.zero_grad(set_to_none=True)


def contender(what: str, run: Callable, network: nn.Module, images: Tensor) -> Contender:
    """Count FLOPs on the meta device: on the CPU torch's counter misses fused attention."""
    with FlopCounterMode(display=False) as counter:
        run(copy.deepcopy(network).to("meta"), images.to("meta"))
    return Contender(what, lambda: run(network, images), counter.get_total_flops())


def measure(contenders: list[Contender], repeats: int, device: str) -> list[float]:
    """Median seconds of each contender, interleaved."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for turn in range(repeats + 1):
        for taken, each in zip(seconds, contenders, strict=True):
            synchronise(device)
            start = time.perf_counter()
            each.work()
            synchronise(device)
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def synchronise(device: str) -> None:
    """Wait for what was queued."""
    if device == "cuda":
        torch.cuda.synchronize()


def ceiling(device: str, dtype: torch.dtype, repeats: int) -> float:
    """The best FLOP/s of a matrix product."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 2):
        synchronise(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def detection_pair(run: Callable, device: str, dtype: torch.dtype) -> list[Contender]:
    """The maps of one 800 x 1344 image with fused and with plain attention."""
    images = torch.randn(1, 3, 800, 1344, device=device, dtype=dtype)
    contenders = []
    for attention in ("plain", "fused"):
        network = create("pvt_small", features=True, attention=attention).eval()
        what = f"800 x 1344 maps {run.__name__}, {attention}"
        contenders.append(contender(what, run, network.to(device, dtype), images))
    return contenders


def classification_pair(run: Callable, device: str, dtype: torch.dtype) -> list[Contender]:
    """Eight images of 224 x 224 through transformers' classifier and ours, without drop path."""
    from transformers import PvtConfig, PvtForImageClassification

    images = torch.randn(8, 3, 224, 224, device=device, dtype=dtype)
    config = PvtConfig(depths=list(VARIANTS["pvt_small"]["depths"]), num_labels=1000)
    networks = {
        "transformers": PvtForImageClassification(config),
        "ours": create("pvt_small", drop_path=0.0),
    }
    return [
        contender(f"224 batch 8 {run.__name__}, {name}", run, each.to(device, dtype), images)
        for name, each in networks.items()
    ]


def report(contenders: list[Contender], seconds: list[float], peak: float) -> None:
    """Print one line each; `times as fast` is against the first of the pair."""
    for each, taken in zip(contenders, seconds, strict=True):
        rate = each.flops / taken
        print(
            f"{each.what:36}{taken * 1e3:10.1f}{rate / 1e9:12.1f}{rate / peak:10.1%}"
            f"{seconds[0] / taken:15.2f}"
        )


def main() -> None:
    """Measure the pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, dtype, repeats = arguments.device, getattr(torch, arguments.dtype), arguments.repeats
    peak = ceiling(device, dtype, repeats)
    print(
        f"PVT-Small, torch {torch.__version__}, {device}, {arguments.dtype}, "
        f"{arguments.threads} threads; matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':36}{'ms':>10}{'GFLOP/s':>12}{'share':>10}{'times as fast':>15}")
    pairs = [
        lambda: detection_pair(forward, device, dtype),
        lambda: detection_pair(infer, device, dtype),
        lambda: classification_pair(infer, device, dtype),
        lambda: classification_pair(train, device, dtype),
    ]
    for build in pairs:
        contenders = build()
        report(contenders, measure(contenders, repeats, device), peak)


if __name__ == "__main__":
    main()
