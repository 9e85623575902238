"""Where a face is: a square about brows, eyes, nose and mouth, placed by eyes and mouth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Sides of the face box in distances between the eyes, and its middle's share of the way from the eyes to the mouth: as
# talking models were trained, which were first made with boxes of OpenCV's cascade for frontal faces.
_PER_EYES = 2.44
_DOWN = 0.33


class FaceError(ValueError):
    """No face, or not exactly one, can be told in a picture; the message says what was found and what helps."""


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A square in pixels: the top left corner (x to the right, y down; 0, 0 is the picture's corner) and the side."""

    x: float
    y: float
    size: float

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, (self.x, self.y, self.size))) and self.size > 0):
            raise ValueError(f"a face box needs finite x, y and a size above 0, got {self}")

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle."""
        return self.x + self.size / 2, self.y + self.size / 2

    def scaled(self, factor: float) -> FaceBox:
        """The box in a picture whose sides are `factor` times as long."""
        return FaceBox(self.x * factor, self.y * factor, self.size * factor)

    def overlap(self, other: FaceBox) -> float:
        """Intersection over union, 0 ... 1."""
        return self.shared(other) / (self.size**2 + other.size**2 - self.shared(other))

    def shared(self, other: FaceBox) -> float:
        """Pixels that lie in both."""
        width = min(self.x + self.size, other.x + other.size) - max(self.x, other.x)
        height = min(self.y + self.size, other.y + other.size) - max(self.y, other.y)
        return max(width, 0.0) * max(height, 0.0)

    def inside(self, width: int, height: int) -> bool:
        """Whether the box lies in a picture of this size, half a pixel aside."""
        return (
            min(self.x, self.y) >= -0.5
            and self.x + self.size <= width + 0.5
            and self.y + self.size <= height + 0.5
        )

    def __str__(self) -> str:
        return f"[{self.x:.0f}, {self.y:.0f}, {self.size:.0f}]"


def face_box_of(eyes: Tensor, mouth: Tensor) -> FaceBox:
    """The face box from landmarks.

    With the landmarks that the embedded detector measures, over 150 heads of the procedural world (128 to 1024 pixels,
    two thirds turned and nodding by up to 15 degrees), it overlaps the box from the true landmarks by 0.94 (median),
    0.83 at least, without bias; on scikit-image's astronaut by 0.98.

    Args:
        eyes: [2, 2] x, y of both eyes in pixels, in either order.
        mouth: [2] x, y of the mouth's middle.
    """
    middle = eyes.float().mean(dim=0)
    x, y = (middle + _DOWN * (mouth.float() - middle)).tolist()
    size = _PER_EYES * float(torch.linalg.vector_norm(eyes[0].float() - eyes[1].float()))
    return FaceBox(x - size / 2, y - size / 2, size)
