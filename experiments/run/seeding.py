"""Randomness and arithmetic that repeat: named generators from one seed, fixed threads, deterministic kernels."""

from __future__ import annotations

import hashlib
import os

import torch


def derive_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of a run. Streams are independent of the order they are asked for in."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(seed: int, name: str = "main", device: torch.device | str = "cpu") -> torch.Generator:
    """A `torch.Generator` for the stream `name` of a run with `seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, name))


def default_threads() -> int:
    """CPU threads this process may use: OMP_NUM_THREADS, else the cores it is allowed on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def make_deterministic(seed: int, threads: int, device: torch.device) -> dict[str, object]:
    """Set torch so that the same seed gives the same bits on the same machine; returns what was set, for the report.

    The libraries draw from explicit generators. The global one is seeded all the same, because a new module's
    initial weights come from it.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # cuBLAS picks its workspace, and with it the order of its sums, unless told.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.enable_cudnn_sdp(False)  # its attention has no gradients that repeat
    # Some CUDA kernels have no deterministic form; there torch warns and the run is only nearly repeatable.
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    # That setting also fills every new tensor with NaN, which costs time and changes no result of correct code.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.manual_seed(derive_seed(seed, "modules"))
    return {"seed": seed, "threads": threads, "deterministic_algorithms": True}


def resolve_device(name: str) -> torch.device:
    """The torch device of that name; ValueError when this machine has none."""
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise ValueError(f"device is {name!r}, but torch sees no CUDA device here; use device=cpu")
        if (device.index or 0) >= count:
            raise ValueError(f"device is {name!r}, but torch sees only {count}: cuda:0 ... cuda:{count - 1}")
    return device
