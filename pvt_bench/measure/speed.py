"""Latency, throughput and peak memory of a network's forward pass on one device."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pvt_bench.config.schema import SpeedOptions


@dataclass(frozen=True)
class Speed:
    """What was measured, and on what.

    latency_ms: median at batch 1; latency_spread_ms: its interquartile range.
    images_per_s: at `batch_size`; peak_memory_gb: 1e9 bytes, of the process on a CPU (resident),
    of the allocator on a GPU.
    """

    latency_ms: float
    latency_spread_ms: float
    images_per_s: float
    peak_memory_gb: float
    repeats: int
    batch_size: int
    device: str
    dtype: str
    threads: int
    torch: str

    def metrics(self) -> dict[str, float]:
        """The numbers under the names of the records, `speed/...`."""
        names = ("latency_ms", "latency_spread_ms", "images_per_s", "peak_memory_gb", "repeats")
        return {f"speed/{name}": float(getattr(self, name)) for name in names}


def measure_speed(
    network: nn.Module,
    size: Sequence[int],
    device: torch.device,
    options: SpeedOptions,
    advance: Callable[[], None] = lambda: None,
) -> Speed:
    """Time `network(images)` in evaluation mode, predictions included, on random images.

    size: height and width. Each of the two timings stops after `options.repeats` calls, or once
    `options.seconds` have passed and three calls are timed. advance: called after each call.
    """
    dtype: torch.dtype = getattr(torch, options.dtype)
    network = network.eval().to(device, dtype)
    _reset_peak(device)
    images = torch.rand(options.batch_size, 3, *size, device=device, dtype=dtype)
    with torch.inference_mode():
        single = _time(network, images[:1], options, advance)
        batched = single
        if options.batch_size > 1:
            batched = _time(network, images, options, advance)
    low, _, high = statistics.quantiles(single, n=4) if len(single) > 1 else [single[0]] * 3
    return Speed(
        latency_ms=statistics.median(single) * 1e3,
        latency_spread_ms=(high - low) * 1e3,
        images_per_s=options.batch_size / statistics.median(batched),
        peak_memory_gb=_peak_bytes(device) / 1e9,
        repeats=len(single),
        batch_size=options.batch_size,
        device=describe_device(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def describe_device(device: torch.device) -> str:
    """The name of a GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"


def _time(
    network: nn.Module, images: Tensor, options: SpeedOptions, advance: Callable[[], None]
) -> list[float]:
    """Seconds of each call after the warm-up."""
    took: list[float] = []
    end = time.perf_counter() + options.seconds
    for call in range(options.warmup + options.repeats):
        _synchronise(images.device)
        start = time.perf_counter()
        network(images)
        _synchronise(images.device)
        if call >= options.warmup:
            took.append(time.perf_counter() - start)
        advance()
        if len(took) >= 3 and time.perf_counter() > end:
            break
    return took


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The kernel counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
