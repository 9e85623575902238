"""The pictures that a benchmark gathers: by set ("samples", "truth", ...) and caption, kept in a run's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from video.pixels import from_uint8, to_uint8


class Album:
    """Pictures are kept with 8 bits a channel, as they would be in a file, and handed out as float32.

    tensors: all there is, as a checkpoint holds it: "set/index" -> uint8 [V, 3, S, S], or float32 of depth or normals.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.tensors = dict(tensors or {})

    def put(self, name: str, index: int, images: Tensor) -> None:
        """Keep images [V, 3, S, S] in [0, 1]."""
        self.tensors[_key(name, index)] = to_uint8(images).cpu()

    def put_depth(self, name: str, index: int, depth: Tensor) -> None:
        """Keep depth, or what else is no picture, as it is."""
        self.tensors[_key(name, index)] = depth.detach().float().cpu()

    def has(self, name: str, index: int) -> bool:
        return _key(name, index) in self.tensors

    def get(self, name: str, index: int) -> Tensor:
        """Images [V, 3, S, S] in [0, 1], or what was kept as it was."""
        kept = self.tensors[_key(name, index)]
        return from_uint8(kept) if kept.dtype == torch.uint8 else kept


def _key(name: str, index: int) -> str:
    return f"{name}/{index:04d}"
