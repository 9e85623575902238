"""The machine that a run is on: its processor, its device, and how much memory was used."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch


def cpu_name() -> str:
    """The processor as /proc/cpuinfo names it, or what `platform` knows."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_mb() -> float | None:
    """The largest resident memory of this process so far, in MB (10^6 bytes); None where it is not known."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def peak_gpu_memory_mb(device: torch.device) -> float | None:
    """The most memory torch held on the GPU, in MB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / 1e6, 1) if device.type == "cuda" else None


def describe_device(device: torch.device) -> dict[str, Any]:
    """The device by name, with the CPU threads in use."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}
