"""BlazeFace, short range: faces with eyes, nose, mouth and ears, in a picture of 128 x 128 pixels.

Bazarevsky et al., 2019, "BlazeFace: Sub-millisecond neural face detection on mobile GPUs", arXiv 1907.05047; the
network and the weights are those of Google's MediaPipe, see weights/README.md.

Shapes: B pictures, A = 896 anchors, K = 6 points: right eye, left eye (the person's own), nose, mouth, both ears.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

SIDE = 128
"""Pixels a side of the picture that is looked at."""

WEIGHTS = Path(__file__).parent / "weights"

# (channels of the map, whether it is half the size of the one before), block by block; the eleventh's and the last
# block's maps, 16 x 16 and 8 x 8, are those that faces are read from, with 2 and 6 anchors at each place.
_BLOCKS = (
    (24, False), (28, False), (32, True), (36, False), (42, False), (48, True), (56, False), (64, False),
    (72, False), (80, False), (88, False), (96, True), (96, False), (96, False), (96, False), (96, False),
)  # fmt: skip
_FINE = 11
_VALUES = 16  # of each anchor: middle, size and 6 points


class BlazeBlock(nn.Module):
    """A separable 3 x 3 convolution beside a shortcut, which is pooled and filled up with zeros where it must be."""

    def __init__(self, before: int, after: int, *, halves: bool, prelu: bool = False) -> None:
        super().__init__()
        self.halves, self.more = halves, after - before
        self.depthwise = nn.Conv2d(before, before, 3, stride=2 if halves else 1, groups=before)
        self.pointwise = nn.Conv2d(before, after, 1)
        self.activation = nn.PReLU(after) if prelu else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, h, w] -> [B, after, h, w], or half as high and wide."""
        shortcut = F.max_pool2d(x, 2) if self.halves else x
        out = self.pointwise(self.depthwise(same(x, 3, self.depthwise.stride[0])))
        return self.activation(out + F.pad(shortcut, (0, 0, 0, 0, 0, self.more)))


class BlazeFace(nn.Module):
    """The network alone; `load_blaze_face` fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, stride=2)
        blocks, before = [], 24
        for after, halves in _BLOCKS:
            blocks.append(BlazeBlock(before, after, halves=halves))
            before = after
        self.blocks = nn.ModuleList(blocks)
        # In the order of their weights in the file.
        self.scores = nn.ModuleList([nn.Conv2d(88, 2, 1), nn.Conv2d(96, 6, 1)])
        self.boxes = nn.ModuleList([nn.Conv2d(88, 2 * _VALUES, 1), nn.Conv2d(96, 6 * _VALUES, 1)])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 128, 128] in [-1, 1] -> scores [B, A] before the sigmoid, and [B, A, 16] in pixels from anchors."""
        x = F.relu(self.stem(same(images, 5, 2)))
        maps = []
        for index, block in enumerate(self.blocks, start=1):
            x = block(x)
            if index in (_FINE, len(self.blocks)):
                maps.append(x)
        scores = [_flat(head(x), 1) for head, x in zip(self.scores, maps, strict=True)]
        boxes = [_flat(head(x), _VALUES) for head, x in zip(self.boxes, maps, strict=True)]
        return torch.cat(scores, dim=1)[..., 0], torch.cat(boxes, dim=1)

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 128, 128] in [0, 1] -> how sure each anchor is of a face, [B, A] in [0, 1], and its points [B, A, 8,
        2] x, y in pixels: the box's top left and bottom right, then the K points."""
        scores, raw = self(images * 2.0 - 1.0)
        raw = raw.unflatten(-1, (8, 2))
        middle, half = raw[..., :1, :] + anchors()[:, None], raw[..., 1:2, :] / 2
        points = raw[..., 2:, :] + anchors()[:, None]
        return scores.sigmoid(), torch.cat([middle - half, middle + half, points], dim=-2)


@cache
def anchors() -> Tensor:
    """[A, 2] x, y in pixels: the middles of the map's places, row by row."""
    placed = []
    for side, count in ((16, 2), (8, 6)):
        middles = (torch.arange(side) + 0.5) * (SIDE / side)
        grid = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), dim=-1).reshape(-1, 2)
        placed.append(grid.repeat_interleave(count, dim=0))
    return torch.cat(placed)


@cache
def load_blaze_face() -> BlazeFace:
    """The network with its weights, float32 on the CPU."""
    return filled(BlazeFace(), WEIGHTS / "blaze_face_short_range.safetensors")


def filled(network: Network, file: Path) -> Network:
    """The network with weights from a file of ours, ready to be used; as float32 whatever the file holds."""
    network.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    network.eval().requires_grad_(False)
    # Channels last: three times as fast on a CPU. The form is missing in the signatures that torch declares.
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros about a map of even sides, as TensorFlow's padding "SAME" puts them: the larger half right and below."""
    total = kernel - stride
    return F.pad(x, (total // 2, total - total // 2) * 2)


def _flat(x: Tensor, values: int) -> Tensor:
    """[B, n * values, h, w] -> [B, h * w * n, values]."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, values)
