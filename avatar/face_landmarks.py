"""MediaPipe's face mesh: 468 points of one face in a picture of 192 x 192 pixels, and whether there is one.

Kartynnik et al., 2019, "Real-time facial surface geometry from monocular video on mobile GPUs", arXiv 1907.06724; see
weights/README.md for where network and weights come from.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from avatar.blaze_face import WEIGHTS, BlazeBlock, filled, same

SIDE = 192
"""Pixels a side of the picture that is looked at: the face upright in the middle, two thirds of the side."""

# Channels of the map, and whether it is half the size of the one before.
_BLOCKS = (
    (16, False), (16, False), (32, True), (32, False), (32, False), (64, True), (64, False), (64, False),
    (128, True), (128, False), (128, False), (128, True), (128, False), (128, False),
)  # fmt: skip

# Points of the mesh: corners and lids of the eyes, right and left (the person's own); corners and inner lips' middles.
_RIGHT_EYE, _LEFT_EYE, _MOUTH = (33, 133, 159, 145), (263, 362, 386, 374), (61, 291, 13, 14)


class FaceLandmarks(nn.Module):
    """The network alone; `load_face_landmarks` fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.activation = nn.PReLU(16)
        blocks, before = [], 16
        for after, halves in _BLOCKS:
            blocks.append(BlazeBlock(before, after, halves=halves, prelu=True))
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.presence = _branch(blocks=(True,), out=1)
        self.points = _branch(blocks=(True, False, False), out=468 * 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 192, 192] in [0, 1] -> points [B, 468, 3], x, y and depth in pixels, and how sure it is that there
        is a face, [B] before the sigmoid."""
        x = self.blocks(self.activation(self.stem(same(images, 3, 2))))
        return self.points(x).reshape(-1, 468, 3), self.presence(x).flatten()

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 192, 192] in [0, 1] -> the mesh's points [B, 468, 2], x, y in pixels, and how sure it is that there
        is a face, [B] in [0, 1]."""
        points, presence = self(images)
        return points[..., :2], presence.sigmoid()


def eyes_and_mouth(points: Tensor) -> tuple[Tensor, Tensor]:
    """The middles of the right and the left eye (the person's own), [..., 2, 2], and of the mouth, [..., 2], from the
    mesh's points [..., 468, 2]."""
    eyes = [points[..., each, :].mean(dim=-2) for each in (_RIGHT_EYE, _LEFT_EYE)]
    return torch.stack(eyes, dim=-2), points[..., _MOUTH, :].mean(dim=-2)


@cache
def load_face_landmarks() -> FaceLandmarks:
    """The network with its weights, float32 on the CPU."""
    return filled(FaceLandmarks(), WEIGHTS / "face_landmarks.safetensors")


def _branch(*, blocks: tuple[bool, ...], out: int) -> nn.Sequential:
    """From the last map to `out` numbers; a block for each of `blocks`, which may halve the map."""
    return nn.Sequential(
        *(BlazeBlock(128, 128, halves=halves, prelu=True) for halves in blocks),
        nn.Conv2d(128, 32, 1),
        nn.PReLU(32),
        BlazeBlock(32, 32, halves=False, prelu=True),
        nn.Conv2d(32, out, 3),
    )
