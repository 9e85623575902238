"""Warp kernels run on torch tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor


@cache
def _start() -> None:
    """Get Warp ready. Where there is no GPU its native code says so on the terminal, past Warp's own log level."""
    with nullcontext() if torch.cuda.is_available() else _unheard():
        wp.init()


@contextmanager
def _unheard() -> Iterator[None]:
    """What native code writes to standard error goes nowhere."""
    try:
        heard = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(heard, 2)
        os.close(nowhere)
        os.close(heard)


def launch(
    kernel: Any, dim: tuple[int, ...], device: torch.device, *arguments: tuple[Tensor, Any] | int
) -> None:
    """Run a kernel on torch tensors, each given with its Warp element type, in torch's own stream."""
    if 0 in dim:
        return
    _start()
    values = [
        a
        if isinstance(a, int)
        else wp.from_torch(a[0].detach(), dtype=a[1], requires_grad=False, return_ctype=True)
        for a in arguments
    ]
    stream = wp.stream_from_torch(device) if device.type == "cuda" else None
    wp.launch(kernel, dim=dim, inputs=values, device=wp.device_from_torch(device), stream=stream)
