"""PNG bytes of textures."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from video.pixels import from_uint8, to_uint8


def encode_png(image: Tensor) -> bytes:
    """[H, W, 3] float sRGB in [0, 1] -> 8-bit PNG. The same picture gives the same bytes."""
    return png_bytes(Image.fromarray(to_uint8(image.cpu()).numpy()))


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes, name: str) -> Tensor:
    """PNG bytes -> [H, W, 3] float32 sRGB in [0, 1]."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} holds no readable PNG texture: {error}") from error
    return from_uint8(pixels)
