"""What a talking portrait is conditioned on, and how conditions are dropped for training and guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffusion.adapters.audio import MaskPyramid
from diffusion.adapters.bank import KVBank
from diffusion.conditioning import cat_fields


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Conditions of B clips of F frames; `TalkingModel` makes them from pictures, sound and masks.

    What is None is absent: no reference is read, identity and sound are zeros, no face region is marked, every audio
    branch sees the whole picture, motion frames are zeros, speed and blinks are free, the camera is in front.

    reference: bank of the person's pictures (`TalkingModel.encode_reference`).
    identity: [B, E] embedding of the person's picture.
    location: [B, F or 1, C0, h, w] features of the face region (`encode_location`).
    audio: [B, F, T, A] tokens of sound (`encode_audio`).
    masks: region of each audio branch (`encode_masks`).
    weights: factor of each audio branch; 0 leaves the branch out.
    motion: bank of the last frames of the clip before, oldest first (`encode_motion`).
    speed: [B, F] head speed in degrees per second.
    blink: [B, F] lids in [0, 1]: 0 as in the portrait, 1 shut.
    camera: [B, F, 4, 4] c2w, for a UNet with a camera embedding.
    """

    reference: KVBank | None = None
    identity: torch.Tensor | None = None
    location: torch.Tensor | None = None
    audio: torch.Tensor | None = None
    masks: MaskPyramid | None = None
    weights: tuple[float, ...] | None = None
    motion: KVBank | None = None
    speed: torch.Tensor | None = None
    blink: torch.Tensor | None = None
    camera: torch.Tensor | None = None

    def drop(
        self,
        *,
        reference: Sequence[bool] | bool = False,
        audio: Sequence[bool] | bool = False,
        motion: Sequence[bool] | bool = False,
    ) -> Conditions:
        """The same conditions with some taken from some clips, as in training with dropout and in guidance.

        Args:
            reference: which of the B clips lose the person: the pictures, the identity and the face region.
            audio: which lose the sound.
            motion: which lose the frames before, as if theirs were the first clip.
        """
        changes: dict[str, Any] = {}
        if self.reference is not None:
            changes["reference"] = self.reference.drop(_rows(reference, len(self.reference)))
        if self.motion is not None:
            rows = _rows(motion, len(self.motion))
            changes["motion"] = KVBank({k: _zero_rows(v, rows) for k, v in self.motion.tokens.items()})
        for name, rows in (("identity", reference), ("location", reference), ("audio", audio)):
            value: torch.Tensor | None = getattr(self, name)
            if value is not None:
                changes[name] = _zero_rows(value, _rows(rows, len(value)))
        return replace(self, **changes)

    @staticmethod
    def cat(items: Sequence[Conditions]) -> Conditions:
        """The clips of several conditions, one after another; all must have the same parts and sizes."""
        return cat_fields(items)


def dropout_rows(batch: int, probability: float, generator: torch.Generator) -> tuple[bool, ...]:
    """B flags, each True with the given probability: which clips lose a condition in this step."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability must be in [0, 1], got {probability}")
    drawn = torch.rand(batch, generator=generator, device=generator.device)
    return tuple((drawn < probability).tolist())


def _rows(rows: Sequence[bool] | bool, batch: int) -> tuple[bool, ...]:
    flags = (rows,) * batch if isinstance(rows, bool) else tuple(bool(row) for row in rows)
    if len(flags) != batch:
        raise ValueError(f"there are {batch} clips, but {len(flags)} flags say which to drop")
    return flags


def _zero_rows(value: torch.Tensor, rows: tuple[bool, ...]) -> torch.Tensor:
    if not any(rows):
        return value
    if all(rows):
        return torch.zeros_like(value)
    keep = ~torch.tensor(rows, device=value.device)
    # Not a product: 0 times infinity is not 0.
    return torch.where(keep.view(-1, *[1] * (value.ndim - 1)), value, torch.zeros_like(value))
