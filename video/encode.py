"""Frames to an H.264 MP4 that plays everywhere: yuv420p, the index in front, nothing left behind on failure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """fps: frames a second. crf: x264's quality, 0 (lossless) to 51; 18 looks like the source."""

    fps: int = 24
    crf: int = 18

    def __post_init__(self) -> None:
        if self.fps < 1:
            raise ValueError(f"fps must be at least 1, got {self.fps}")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be in 0 ... 51, got {self.crf}")


def encode(
    frames: torch.Tensor | Iterable[torch.Tensor],
    path: str | Path,
    *,
    config: EncodeConfig | None = None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write frames as MP4 and return how many there were. Equal frames give equal bytes.

    frames: [F, 3, H, W], or an iterable of [3, H, W]; float in [0, 1], sRGB. H and W must be even, and one size
        throughout: H.264 with 4:2:0 colour stores one colour for each 2 x 2 block.
    metadata: container tags such as `comment` and `title`.

    The file appears under `path` when it is whole; an error leaves what was there before.
    """
    config, path = config or EncodeConfig(), Path(path)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("frames is empty; a video needs at least one frame")
    height, width = _check_size(first)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    try:
        count = _write(chain([first], remaining), temporary, (height, width), config, metadata or {})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _check_size(frame: torch.Tensor) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[0] != 3:
        raise ValueError(
            f"frames must be [F, 3, H, W] or an iterable of [3, H, W], got a frame of {list(frame.shape)}"
        )
    if not frame.is_floating_point():
        raise ValueError(f"frames must be float in [0, 1], got {frame.dtype}")
    height, width = int(frame.shape[1]), int(frame.shape[2])
    if height % 2 or width % 2:
        raise ValueError(
            f"frames are {width} x {height}; H.264 needs an even width and height, crop or pad by one pixel"
        )
    return height, width


def _write(
    frames: Iterator[torch.Tensor],
    path: Path,
    size: tuple[int, int],
    config: EncodeConfig,
    metadata: Mapping[str, str],
) -> int:
    count = 0
    with av.open(
        str(path), mode="w", format="mp4", options={"movflags": "faststart+use_metadata_tags"}
    ) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("libx264", rate=config.fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, config.fps)
        stream.codec_context.time_base = Fraction(1, config.fps)
        # One thread: x264's rate decisions, and so the bytes, depend on the number of threads.
        stream.options = {"crf": str(config.crf), "preset": "medium", "threads": "1"}
        for frame in frames:
            if _check_size(frame) != size:
                raise ValueError(
                    f"frame {count} has shape {list(frame.shape)}, the first was {size[1]} x {size[0]}"
                )
            picture = av.VideoFrame.from_ndarray(_to_uint8(frame), format="rgb24")
            picture.pts, picture.time_base = count, Fraction(1, config.fps)
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode())
    return count


def _to_uint8(frame: torch.Tensor) -> np.ndarray:
    """[3, H, W] float in [0, 1] -> [H, W, 3] uint8."""
    if not torch.isfinite(frame).all():
        raise ValueError("a frame holds NaN or Inf")
    pixels = (frame.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).cpu().contiguous().numpy()
