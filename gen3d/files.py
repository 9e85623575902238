"""Pictures as bytes, and the files that a mesh's file names."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from video.pixels import from_uint8, to_uint8

MAX_FILE_BYTES = 1 << 29
"""The largest file that is read."""
MAX_TEXTURE = 8192
"""The longest side of a texture that is read, in texels."""
# Pillow knows dozens of formats, some of which run other programs.
_FORMATS = ["PNG", "JPEG", "WEBP", "BMP"]


def encode_png(image: Tensor) -> bytes:
    """[H, W, 3] float sRGB in [0, 1] -> 8-bit PNG. The same picture gives the same bytes."""
    return png_bytes(Image.fromarray(to_uint8(image.cpu()).numpy()))


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def decode_picture(data: bytes, name: str) -> Tensor:
    """PNG, JPEG, WebP, BMP or (by its name) TGA bytes -> [H, W, 3] float32 sRGB in [0, 1]; what covers is left out.

    Raises:
        ValueError: it begins with `name`: no such picture, a damaged one, or one of 16-bit greys or too many texels.
    """
    # TGA has no mark of its own by which to tell it from noise.
    formats = [*_FORMATS, "TGA"] if name.lower().endswith(".tga") else _FORMATS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if max(image.size) > MAX_TEXTURE:
                    raise ValueError(
                        f"it has {image.width} x {image.height} texels, up to {MAX_TEXTURE} a side are read"
                    )
                if image.mode.startswith(("I", "F")):
                    raise ValueError("it has more than 8 bits a texel and one channel; save it as 8-bit RGB")
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except (
        OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning,
    ) as error:  # fmt: skip
        raise ValueError(f"{name} holds no readable picture: {error}") from error
    return from_uint8(pixels)


def read_whole(path: Path) -> bytes:
    """The bytes of a file; ValueError if it is no regular file, is too large or cannot be read."""
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path.name}")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{path.name} has {size:,} bytes, up to {MAX_FILE_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error


def read_beside(path: Path, name: str) -> bytes:
    """The bytes of the file that `path` calls `name`: one of its own folder or of a folder in there, no other.

    A file from a stranger could name any file of the machine or any address otherwise, also by way of a link.

    Raises:
        ValueError: it lies elsewhere, is not there, or cannot be read.
    """
    folder = path.parent.resolve()
    inside = "only files of its own folder, and of folders in there, are read"
    if "://" in name or name.startswith(("/", "\\", "~")) or name[1:2] == ":":
        raise ValueError(f"it names {name!r}, and {inside}")
    try:
        found = (folder / name.replace("\\", "/")).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte, links in a circle
        raise ValueError(f"it names {name!r}, which is no name of a file") from error
    if not found.is_relative_to(folder):
        raise ValueError(f"it names {name!r}, and {inside}")
    if not found.is_file():
        raise ValueError(f"it names {name!r}, which is not there; put it beside {path.name}")
    return read_whole(found)
