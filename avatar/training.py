"""The loss of a talking model in a lesson (see `avatar.lessons`).

Shapes: B clips, F frames, M motion frames, K audio branches, W frames of a window of sound; C, h, w of latents; H, W of
pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar.conditions import Conditions, dropout_rows
from avatar.lessons.base import Lesson
from avatar.model import TalkingModel
from diffusion.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TalkingBatch:
    """Clips with all that is known of them.

    latents: [B, F, C, h, w]. past: [B, M, C, h, w], the frames before. reference: [B, 1, C, h, w], a picture of the
    person at another time. identity: [B, E] or None. windows: [B, F, W, ...] of sound features. location: [B, 1, 1, H,
    W] and regions: [B, K, H, W] as in `avatar.pipeline.Face`. speed: [B, F] degrees a second. blink: [B, F] in [0, 1].
    """

    latents: Tensor
    past: Tensor
    reference: Tensor
    identity: Tensor | None
    windows: Tensor
    location: Tensor
    regions: Tensor
    speed: Tensor
    blink: Tensor


def lesson_loss(
    model: TalkingModel,
    schedule: Schedule,
    batch: TalkingBatch,
    lesson: Lesson,
    *,
    channel_weights: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the model's own prediction, weighted clip by clip; [B].

    All frames of a clip share a timestep. channel_weights: [C], of the latents' channels, 1 on average; None weighs
    all alike. generator: lives on the CPU; draws timesteps, noise and what is dropped.
    """
    x0 = batch.latents
    count = len(x0)
    t = schedule.sample_timesteps(count, generator=generator).to(x0.device)
    noise = offset_noise(x0.shape, lesson.noise_offset, generator=generator).to(x0)
    conditions = conditions_of(model, batch, lesson, generator=generator)
    prediction = model(schedule.add_noise(x0, noise, t), t, conditions, still=lesson.still)
    error = (prediction.float() - schedule.target(x0, noise, t)).square()
    if channel_weights is not None:
        error = error * channel_weights[:, None, None].to(error)
    error = (error * _importance(model, batch, lesson).to(error)).flatten(1).mean(1)
    return error if lesson.min_snr_gamma is None else error * schedule.min_snr_weight(t, lesson.min_snr_gamma)


def conditions_of(
    model: TalkingModel, batch: TalkingBatch, lesson: Lesson, *, generator: torch.Generator
) -> Conditions:
    """The conditions of a lesson, some of them dropped."""
    count, height, width = len(batch.latents), *batch.latents.shape[-2:]
    moves = not lesson.still
    conditions = Conditions(
        reference=model.encode_reference(batch.reference, batch.identity),
        identity=batch.identity,
        location=model.encode_location(batch.location),
        audio=model.encode_audio(batch.windows) if moves else None,
        masks=model.encode_masks(batch.regions, height, width) if moves else None,
        motion=model.encode_motion(batch.past, batch.identity) if moves and batch.past.shape[1] else None,
        speed=batch.speed if lesson.steered else None,
        blink=batch.blink if lesson.steered else None,
    )
    reference, audio, motion = (dropout_rows(count, share, generator) for share in lesson.dropped())
    return conditions.drop(reference=reference, audio=audio, motion=motion)


def _importance(model: TalkingModel, batch: TalkingBatch, lesson: Lesson) -> Tensor:
    """[B, 1, 1, h, w], 1 on average over a picture."""
    size = (batch.latents.shape[-2], batch.latents.shape[-1])
    branches = model.config.audio.branches
    if lesson.lip_weight == 0.0 or "lip" not in branches:
        return torch.ones(len(batch.latents), 1, 1, *size)
    lips = F.adaptive_avg_pool2d(batch.regions[:, branches.index("lip")], size)
    weight = 1.0 + lesson.lip_weight * lips
    return (weight / weight.mean((1, 2), keepdim=True))[:, None, None]


def offset_noise(shape: torch.Size, offset: float, *, generator: torch.Generator) -> Tensor:
    """Noise [B, F, C, h, w] to which each clip and channel adds `offset` times a number of its own, on the CPU."""
    noise = torch.randn(shape, generator=generator)
    if offset == 0.0:
        return noise
    return noise + offset * torch.randn(shape[0], 1, shape[2], 1, 1, generator=generator)
