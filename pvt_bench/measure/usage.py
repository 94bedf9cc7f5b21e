"""What a run takes of its machine, under the names that MLflow shows as system metrics."""

import psutil
import torch

MEGABYTE = 2**20


def usage() -> dict[str, float]:
    """Processors and memory of the machine since the last call, and the GPU memory of this process.

    Percentages of all cores; memory in MiB, on the GPU the most that was allocated.
    """
    memory = psutil.virtual_memory()
    used = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        peak = torch.cuda.max_memory_allocated(device) / MEGABYTE
        used[f"system/gpu_{device}_memory_usage_megabytes"] = peak
    return used
