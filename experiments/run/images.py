"""Image tensors to PNG files and grids. Images: float32 [..., 3, H, W] in [0, 1], sRGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from files.atomic import write_bytes
from gen3d.files import encode_png
from video.pixels import from_uint8


def save_png(image: torch.Tensor, path: Path) -> None:
    """Write one image [3, H, W]. The same tensor always gives the same bytes."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must have shape [3, H, W], got {list(image.shape)}")
    write_bytes(path, encode_png(image.permute(1, 2, 0)))


def read_row(path: Path, gap: int = 2) -> torch.Tensor:
    """The images [C, 3, H, H] of a PNG that holds one row of square ones, as `grid` puts them."""
    with Image.open(path) as picture:
        pixels = from_uint8(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))
    return torch.stack([part[..., : part.shape[1]] for part in pixels.split(pixels.shape[1] + gap, dim=-1)])


def grid(images: torch.Tensor, gap: int = 2) -> torch.Tensor:
    """[R, C, 3, H, W] -> [3, R H + gaps, C W + gaps] on white, row by row."""
    rows, columns, channels, height, width = images.shape
    sheet = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[:, top : top + height, left : left + width] = images[row, column]
    return sheet
