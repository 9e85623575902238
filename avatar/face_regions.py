"""Which part of a picture follows the sound how: soft masks of pose, face and lips from the face box alone.

As in Hallo (arXiv 2406.08801, section 3.2): a box about the face's outline, widened by 1.2, and one about the lips,
widened by 2, both blurred; the pose is what is not face, and the face is without the lips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avatar.face_box import FaceBox

# Outline and lips in sides of the face box: middle x, middle y, width, height.
_OUTLINE = (0.5, 0.53, 0.86, 1.04)
_LIPS = (0.5, 0.76, 0.42, 0.22)
_WIDER_FACE = 1.2
_WIDER_LIPS = 2.0
# Gaussian blur in sides of the face box.
_BLUR_FACE = 0.10
_BLUR_LIPS = 0.06


def regions(boxes: FaceBox | Sequence[FaceBox], size: int) -> Tensor:
    """[3, size, size] float32 in [0, 1]: pose, face, lip, the order of Hallo's audio branches; they sum to 1.

    Args:
        boxes: the face's box in pixels of a square picture of this size (`Crop.to_crop`); of several boxes, one for
            each frame of a clip, the union counts.
        size: side of the picture.
    """
    boxes = _checked(boxes, size)
    face = _union([_blurred(_part(box, _OUTLINE, _WIDER_FACE), _BLUR_FACE * box.size, size) for box in boxes])
    lip = _union([_blurred(_part(box, _LIPS, _WIDER_LIPS), _BLUR_LIPS * box.size, size) for box in boxes])
    lip = torch.minimum(lip, face)
    return torch.stack([1.0 - face, face - lip, lip])


def face_mask(boxes: FaceBox | Sequence[FaceBox], size: int) -> Tensor:
    """[1, size, size] float32 in [0, 1]: where the face may be, for the face locator.

    The sharp rectangle whose blurred form is the face of `regions`; its border pixels hold the covered share. Of
    several boxes the union. Arguments as for `regions`.
    """
    boxes = _checked(boxes, size)
    return _union([_covered(_part(box, _OUTLINE, _WIDER_FACE), size) for box in boxes])[None]


def _checked(boxes: FaceBox | Sequence[FaceBox], size: int) -> Sequence[FaceBox]:
    boxes = [boxes] if isinstance(boxes, FaceBox) else boxes
    if not boxes:
        raise ValueError("boxes must name at least one face box, got none")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return boxes


def _part(
    box: FaceBox, part: tuple[float, float, float, float], wider: float
) -> tuple[float, float, float, float]:
    """left, right, top, bottom in pixels."""
    x, y, width, height = (value * box.size for value in part)
    x, y, width, height = x + box.x, y + box.y, width * wider, height * wider
    return x - width / 2, x + width / 2, y - height / 2, y + height / 2


def _blurred(part: tuple[float, float, float, float], sigma: float, size: int) -> Tensor:
    """[size, size]: the rectangle convolved with a Gaussian, in closed form, 1 at its peak."""
    left, right, top, bottom = part
    places = torch.arange(size, dtype=torch.float64) + 0.5

    def profile(low: float, high: float) -> Tensor:
        scale = 1.0 / (math.sqrt(2.0) * sigma)
        peak = 2.0 * math.erf((high - low) / 2 * scale)
        return (torch.erf((places - low) * scale) - torch.erf((places - high) * scale)) / peak

    return (profile(top, bottom)[:, None] * profile(left, right)).clamp(0.0, 1.0).float()


def _covered(part: tuple[float, float, float, float], size: int) -> Tensor:
    """[size, size]: the share of each pixel that lies in the rectangle."""
    left, right, top, bottom = part
    low = torch.arange(size, dtype=torch.float64)

    def profile(start: float, stop: float) -> Tensor:
        return ((low + 1.0).clamp(max=stop) - low.clamp(min=start)).clamp(0.0, 1.0)

    return (profile(top, bottom)[:, None] * profile(left, right)).float()


def _union(masks: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(masks)).amax(0)
