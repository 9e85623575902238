"""The square of a picture that a portrait is made from, and the way back into the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar.face_box import FaceBox

# With these a head of the world's training portraits is cropped to its whole picture, on average.
MARGIN = 1.43
RISE = 0.07


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of whole pixels; it may reach beyond the picture.

    x, y: top left corner. size: side.
    """

    x: int
    y: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a crop's size must be at least 1 pixel, got {self.size}")

    @staticmethod
    def around(box: FaceBox, *, margin: float = MARGIN, rise: float = RISE) -> Crop:
        """The crop for a face.

        Args:
            margin: side of the crop in sides of the face box, at least 1.
            rise: how far the crop's middle lies above the face's, in sides of the face box.
        """
        if not margin >= 1.0:
            raise ValueError(f"margin must be at least 1 (crop side / face box side), got {margin:g}")
        x, y = box.centre
        side = max(round(margin * box.size), 1)
        return Crop(round(x - side / 2), round(y - rise * box.size - side / 2), side)

    def cut(self, image: Tensor, size: int) -> Tensor:
        """[3, H, W] -> [3, size, size], antialiased; beyond the picture its border is repeated."""
        _check(image)
        rows = torch.arange(self.y, self.y + self.size, device=image.device).clamp(0, image.shape[1] - 1)
        columns = torch.arange(self.x, self.x + self.size, device=image.device).clamp(0, image.shape[2] - 1)
        return _resize(image[:, rows[:, None], columns], size, size)

    def paste(
        self, frame: Tensor, image: Tensor, feather: float = 0.08, share: Tensor | None = None
    ) -> Tensor:
        """[3, s, s] made for this crop, laid into [3, H, W].

        Pixels outside the crop keep their bits. Along the crop's border frame and picture are blended, except
        where the crop ends at or beyond the picture's own border.

        Args:
            feather: width of the blended border in sides of the crop, 0 ... 0.5.
            share: [1, s, s] in [0, 1], how much of each pixel is the frame's (`Backdrop.share`); None for all of it.
        """
        _check(image)
        _check(frame)
        if frame.shape[1] != frame.shape[2]:
            raise ValueError(f"frame must be square, got {list(frame.shape)}")
        if not 0.0 <= feather <= 0.5:
            raise ValueError(f"feather must lie between 0 and 0.5 of the crop's side, got {feather:g}")
        out = image.clone()
        top, bottom = max(self.y, 0), min(self.y + self.size, image.shape[1])
        left, right = max(self.x, 0), min(self.x + self.size, image.shape[2])
        if top >= bottom or left >= right:
            return out
        inside = slice(top - self.y, bottom - self.y), slice(left - self.x, right - self.x)
        fitted = _resize(frame.to(image), self.size, self.size)[:, inside[0], inside[1]]
        width = feather * self.size
        rows = _ramp(bottom - top, self.y > 0, self.y + self.size < image.shape[1], width).to(image)
        columns = _ramp(right - left, self.x > 0, self.x + self.size < image.shape[2], width).to(image)
        weight = rows[:, None] * columns
        if share is not None:
            fine = F.interpolate(share.to(image)[None], (self.size, self.size), mode="bilinear")
            weight = weight * fine[0, 0][inside]
        out[:, top:bottom, left:right] = torch.lerp(image[:, top:bottom, left:right], fitted, weight)
        return out

    def scaled(self, factor: float) -> Crop:
        """The crop in a picture whose sides are `factor` times as long, to the nearest pixel."""
        return Crop(round(self.x * factor), round(self.y * factor), max(round(self.size * factor), 1))

    def to_crop(self, box: FaceBox, size: int) -> FaceBox:
        """A box of the picture in the pixels of `cut(image, size)`."""
        scale = size / self.size
        return FaceBox((box.x - self.x) * scale, (box.y - self.y) * scale, box.size * scale)

    def to_picture(self, box: FaceBox, size: int) -> FaceBox:
        """The inverse of `to_crop`."""
        scale = self.size / size
        return FaceBox(box.x * scale + self.x, box.y * scale + self.y, box.size * scale)


def shrunk(image: Tensor, max_size: int) -> Tensor:
    """[3, H, W] as it is, or antialiased so that its longer side is `max_size` pixels; sides are even then."""
    _check(image)
    longest = max(image.shape[1:])
    if longest <= max_size:
        return image
    height, width = (max(side * max_size // longest // 2 * 2, 2) for side in image.shape[1:])
    return _resize(image, height, width)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[1:] == (height, width):
        return image
    # Bicubic overshoots at edges.
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0].clamp(0.0, 1.0)


def _ramp(length: int, fade_in: bool, fade_out: bool, width: float) -> Tensor:
    """[length] weights, 1 but for smooth slopes of `width` pixels at the ends that fade."""
    place = torch.arange(length) + 0.5
    share = torch.ones(length)
    for fades, distance in ((fade_in, place), (fade_out, length - place)):
        if fades and width > 0:
            t = (distance / width).clamp(max=1.0)
            share = share * (t * t * (3.0 - 2.0 * t))
    return share


def _check(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"a picture must be [3, H, W] float, got {list(image.shape)} {image.dtype}")
