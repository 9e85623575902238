"""What of a portrait is no head: a plain backdrop stays the picture's own, and only what moves over it is drawn.

A model repeats even a still backdrop a little off, each frame in its own way: a faint square that flickers. Where the
portrait is plain, a difference that small says nothing, and the portrait's own pixels are taken. What differs by more,
a head that moves over the backdrop, is shown in full; in between the two are blended, so that nothing jumps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from avatar.face_box import FaceBox

# Largest range of a plain place's 3 x 3 pixels, any channel. Studio walls with a gradient stay below it.
_PLAIN = 6 / 255
# Mean difference over 5 x 5 pixels up to which a frame repeats the backdrop, and from which it shows something else:
# the embedded model's still backdrops differ by up to 5 levels in 99 of 100 places.
_SAME, _OTHER = 5 / 255, 13 / 255
_WINDOW = 5
# Specks of a pattern are no backdrop: a plain area is at least this share of the picture.
_LEAST = 0.01
# No plain cheek is a backdrop: radius of the disc about the face's middle that is the head's, in sides of its box.
_FACE_RADIUS = 0.4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Backdrop:
    """Of one portrait, S x S pixels.

    plain: [1, S, S] in [0, 1], 1 for the backdrop, with a soft edge.
    seen: [3, S, S] in [0, 1], the portrait as its model's autoencoder gives it back: what a frame without any motion
        looks like.
    """

    plain: Tensor
    seen: Tensor

    @staticmethod
    def of(portrait: Tensor, seen: Tensor, box: FaceBox) -> Backdrop:
        """Find the plain places of a portrait [3, S, S] that reach its border.

        Args:
            seen: the portrait encoded and decoded, [3, S, S].
            box: the face, in the portrait's pixels.
        """
        if portrait.shape != seen.shape or portrait.ndim != 3 or len(portrait) != 3:
            raise ValueError(
                f"portrait and seen must be [3, S, S], got {list(portrait.shape)}, {list(seen.shape)}"
            )
        pixels = portrait.detach().cpu().numpy()
        window = (1, 3, 3)
        spread = ndimage.maximum_filter(pixels, window) - ndimage.minimum_filter(pixels, window)
        plain = spread.max(0) < _PLAIN
        rows, columns = np.mgrid[: plain.shape[0], : plain.shape[1]] + 0.5
        x, y = box.centre
        plain &= np.hypot(columns - x, rows - y) > _FACE_RADIUS * box.size
        areas = np.asarray(ndimage.label(plain)[0])  # pyright: ignore[reportIndexIssue]
        border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
        large = np.flatnonzero(np.bincount(areas.ravel()) >= _LEAST * plain.size)
        reaching = np.isin(areas, np.intersect1d(border[border > 0], large))
        # All nine pixels of a plain place are plain.
        whole = ndimage.binary_dilation(reaching, np.ones((3, 3)))
        return Backdrop(plain=_mean(torch.from_numpy(whole)[None].to(seen), 3), seen=seen)

    def share(self, frame: Tensor) -> Tensor:
        """How much of each pixel of a frame [3, S, S] is shown, [1, S, S] in [0, 1]; the rest is the portrait's."""
        away = _mean((frame - self.seen).abs(), _WINDOW).amax(0, keepdim=True)
        still = ((_OTHER - away) / (_OTHER - _SAME)).clamp(0.0, 1.0)
        return 1.0 - self.plain * still * still * (3.0 - 2.0 * still)


def _mean(image: Tensor, window: int) -> Tensor:
    """Of window x window pixels about each of [C, H, W]; beyond the border it is repeated."""
    return F.avg_pool2d(F.pad(image[None], (window // 2,) * 4, mode="replicate"), window, 1)[0]
