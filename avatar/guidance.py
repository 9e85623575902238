"""One denoising prediction with guidance towards the person and towards the sound."""

from __future__ import annotations

import torch

from avatar.conditions import Conditions
from avatar.model import TalkingModel
from diffusion.guidance import nested, nested_weights, predict_together


@torch.no_grad()
def predict_guided(
    model: TalkingModel,
    latents: torch.Tensor,
    timestep: torch.Tensor | int,
    conditions: Conditions,
    *,
    reference_scale: float = 1.0,
    audio_scale: float = 1.0,
    batched: bool = False,
) -> torch.Tensor:
    """u + reference_scale (ref - u) + audio_scale (full - ref), with only those passes whose weight is not 0.

    u lacks person and sound, ref lacks sound, full has both; the rest of the conditions (motion frames, speed,
    camera) is in all three. Equal scales are the joint guidance of EMO and Hallo, two passes; both 1 is no
    guidance, one pass.

    Args:
        latents, timestep, conditions: as for `TalkingModel.forward`; timestep int, [], [B] or [B, F].
        batched: all passes as one batch (faster on a GPU, more memory) instead of one after another.
    """
    scales = (reference_scale, audio_scale)
    branches = (conditions.drop(reference=True, audio=True), conditions.drop(audio=True), conditions)
    used = [index for index, weight in enumerate(nested_weights(scales)) if weight != 0.0]
    made = predict_together(
        model, latents, timestep, [branches[index] for index in used], at_once=None if batched else 1
    )
    predictions: list[torch.Tensor | None] = [None] * len(branches)
    for index, prediction in zip(used, made, strict=True):
        predictions[index] = prediction
    return nested(predictions, scales)
