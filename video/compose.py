"""Frames beside frames, with words above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from video.pixels import from_uint8

CAPTION_HEIGHT = 24
_SMALLEST_LETTERS = 8
_INK = 0.1


def side_by_side(clips: Sequence[Tensor], *, gap: int = 0, fill: float = 1.0) -> Tensor:
    """Clips [F, 3, H, W_i] with equal F and H -> [F, 3, H, sum W_i + gaps], from left to right."""
    if not clips:
        raise ValueError("clips is empty; give at least one")
    shapes = [list(clip.shape) for clip in clips]
    if any(len(shape) != 4 or shape[:3] != shapes[0][:3] for shape in shapes):
        raise ValueError(f"clips must be [F, 3, H, W] and agree in F and H, got {shapes}")
    frames, channels, height, _ = clips[0].shape
    parts: list[Tensor] = []
    for clip in clips:
        if parts and gap:
            parts.append(clip.new_full((frames, channels, height, gap), fill))
        parts.append(clip)
    return torch.cat(parts, dim=3)


def stream_side_by_side(
    clips: Sequence[Iterable[Tensor]],
    *,
    captions: Sequence[str] | None = None,
    gap: int = 0,
    fill: float = 1.0,
) -> Iterator[Tensor]:
    """Clips of frames [3, H, W_i] in [0, 1] -> frames [3, H, sum W_i + gaps], one at a time.

    captions: words above each clip, such as ("truth", "result"); they make the frames 24 pixels higher.

    A clip that ends before the others is a ValueError, when it ends.
    """
    if not clips:
        raise ValueError("clips is empty; give at least one")
    if captions is not None and len(captions) != len(clips):
        raise ValueError(f"there are {len(captions)} captions for {len(clips)} clips; give one each")
    return _joined(clips, captions, gap, fill)


def caption(text: str, width: int, *, height: int = CAPTION_HEIGHT) -> Tensor:
    """Dark words in the middle of a white strip, [3, height, width] in [0, 1]; the font has Latin letters only."""
    for size in range(max(height * 5 // 8, _SMALLEST_LETTERS), _SMALLEST_LETTERS - 1, -1):
        font = ImageFont.load_default(size)
        if font.getlength(text) <= width:
            break
    else:
        raise ValueError(f"caption {text!r} does not fit into {width} pixels; shorten it")
    strip = Image.new("L", (width, height))
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, 255, font=font, anchor="mm")
    ink = from_uint8(torch.from_numpy(np.array(strip)))
    return (1.0 - (1.0 - _INK) * ink).expand(3, -1, -1).contiguous()


def _joined(
    clips: Sequence[Iterable[Tensor]], captions: Sequence[str] | None, gap: int, fill: float
) -> Iterator[Tensor]:
    readers = [iter(clip) for clip in clips]
    header: Tensor | None = None
    index = 0
    while True:
        row = [next(reader, None) for reader in readers]
        frames = [frame for frame in row if frame is not None]
        if not frames:
            return
        if len(frames) < len(row):
            ended = [place for place, frame in enumerate(row) if frame is None]
            raise ValueError(
                f"clips {ended} end after {index} frames, the others go on; cut them to one length"
            )
        joined = side_by_side([frame[None] for frame in frames], gap=gap, fill=fill)[0]
        if captions is not None:
            if header is None:
                strips = [
                    caption(text, frame.shape[-1]) for text, frame in zip(captions, frames, strict=True)
                ]
                header = side_by_side([strip[None] for strip in strips], gap=gap)[0].to(joined)
            joined = torch.cat([header, joined], dim=1)
        yield joined
        index += 1
