"""A video file back to frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError


@dataclass(frozen=True, kw_only=True)
class Clip:
    """frames: [F, 3, H, W] float32 in [0, 1], sRGB. fps: frames a second. metadata: the container's tags."""

    frames: torch.Tensor
    fps: Fraction
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return float(len(self.frames) / self.fps)


def decode(path: str | Path) -> Clip:
    """All frames of the first video stream of a file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream")
            stream = container.streams.video[0]
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            rate, metadata = stream.average_rate, dict(container.metadata)
    except FileNotFoundError:
        raise
    except FFmpegError as error:
        raise ValueError(f"{path} is no video that can be read: {error.strerror}") from error
    if not pictures or rate is None:
        raise ValueError(f"{path} has no frames")
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255.0
    return Clip(frames=frames, fps=Fraction(rate), metadata=metadata)
