"""Frames beside frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def side_by_side(clips: Sequence[torch.Tensor], *, gap: int = 0, fill: float = 1.0) -> torch.Tensor:
    """Clips [F, 3, H, W_i] with equal F and H -> [F, 3, H, sum W_i + gaps], from left to right."""
    if not clips:
        raise ValueError("clips is empty; give at least one")
    shapes = [list(clip.shape) for clip in clips]
    if any(len(shape) != 4 or shape[:3] != shapes[0][:3] for shape in shapes):
        raise ValueError(f"clips must be [F, 3, H, W] and agree in F and H, got {shapes}")
    frames, channels, height, _ = clips[0].shape
    parts: list[torch.Tensor] = []
    for clip in clips:
        if parts and gap:
            parts.append(clip.new_full((frames, channels, height, gap), fill))
        parts.append(clip)
    return torch.cat(parts, dim=3)
