"""sRGB pictures to the luma and chroma of a video and back, by the rules that players go by.

Where a video does not say how its colours are coded, players take it for BT.601 below 720 rows, and from there on for
BT.709. What is written here is BT.709 of limited range at every size, and says so.
"""

from __future__ import annotations

import av
import numpy as np
import torch

from video.pixels import to_uint8

BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
"""Numbers of ITU-T H.273; BT709 is that of the primaries, of the transfer and of the matrix."""
LIMITED, _FULL = 1, 2
"""FFmpeg's numbers: luma in 16 ... 235 and chroma in 16 ... 240, or both in 0 ... 255."""
_MATRICES = {BT709: "ITU709", 4: "FCC", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}

_HD_ROWS = 720

_KR, _KB = 0.2126, 0.0722
_KG = 1.0 - _KR - _KB
_BITS = 16


def _fixed_point(kr: float, kg: float, kb: float) -> list[int]:
    return [round(weight / 255 * (1 << _BITS)) for weight in (kr, kg, kb)]


_LUMA = _fixed_point(219 * _KR, 219 * _KG, 219 * _KB)
_BLUE = _fixed_point(-112 * _KR / (1 - _KB), -112 * _KG / (1 - _KB), 112)
_RED = _fixed_point(112, -112 * _KG / (1 - _KR), -112 * _KB / (1 - _KR))


def to_yuv420p(frame: torch.Tensor) -> av.VideoFrame:
    """[3, H, W] float sRGB in [0, 1] (clamped), H and W even -> a tagged picture of BT.709, with one chroma for 2 x 2
    pixels. ValueError for NaN or Inf."""
    rgb = _to_uint8(frame).astype(np.int32)
    height, width = rgb.shape[1:]
    fours = rgb.reshape(3, height // 2, 2, width // 2, 2).sum(axis=(2, 4), dtype=np.int32)
    planes = [_mixed(rgb, _LUMA, 16, _BITS)]
    planes += [_mixed(fours, weights, 128, _BITS + 2) for weights in (_BLUE, _RED)]
    packed = np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width)
    picture = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    picture.colorspace, picture.color_range = BT709, LIMITED
    return picture


def to_rgb(picture: av.VideoFrame) -> np.ndarray:
    """A decoded picture of any format -> [H, W, 3] uint8, by its tags and, where they say nothing, by its height."""
    if picture.format.is_rgb:
        return picture.to_ndarray(format="rgb24")
    full = picture.color_range == _FULL or picture.format.name.startswith(("yuvj", "gray"))
    matrix = picture.colorspace
    if matrix == _UNSPECIFIED:
        matrix = BT709 if picture.height >= _HD_ROWS else _BT601
    # With other values for what comes out, for PyAV may take equal ones as "nothing to convert".
    return picture.reformat(
        format="rgb24",
        src_colorspace=_MATRICES.get(matrix, "ITU601"),
        dst_colorspace="ITU601",
        src_color_range="JPEG" if full else "MPEG",
        dst_color_range="JPEG",
    ).to_ndarray()


def _mixed(rgb: np.ndarray, weights: list[int], offset: int, bits: int) -> np.ndarray:
    """Fixed point, so that every machine rounds alike: [3, h, w] -> [h, w] uint8."""
    red, green, blue = weights
    mixed = red * rgb[0] + green * rgb[1] + blue * rgb[2]
    return ((mixed + (offset << bits) + (1 << (bits - 1))) >> bits).astype(np.uint8)


def _to_uint8(frame: torch.Tensor) -> np.ndarray:
    """[3, H, W] float in [0, 1] -> the same as uint8."""
    if not torch.isfinite(frame).all():
        raise ValueError("a frame holds NaN or Inf")
    return to_uint8(frame).cpu().numpy()
