"""PNG bytes of textures."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def encode_png(image: Tensor) -> bytes:
    """[H, W, 3] float sRGB in [0, 1] -> 8-bit PNG. The same picture gives the same bytes."""
    pixels = (image.detach().cpu().clamp(0.0, 1.0) * 255.0).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes, name: str) -> Tensor:
    """PNG bytes -> [H, W, 3] float32 sRGB in [0, 1]."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} holds no readable PNG texture: {error}") from error
    return torch.from_numpy(pixels / np.float32(255.0))
