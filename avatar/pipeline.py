"""A portrait and a sound -> talking frames, a clip at a time: memory does not grow with the length of the sound.

Clips follow each other without overlap; each sees the last frames of the one before (motion frames, EMO, arXiv
2402.17485, section 3.2). What is the same for all clips - the reference pass, the face's regions, the identity - is
computed once.

Shapes: S side of the square picture around the face, F frames of a clip, M motion frames, C, h, w of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from avatar.audio_features import FrameFeatures
from avatar.audio_frames import Edges, read_windows
from avatar.blink import blink_times, lids_of_frames
from avatar.conditions import Conditions
from avatar.guidance import predict_guided
from avatar.model import TalkingModel
from avatar.settings import AnimateConfig
from diffusion.backbone import Backbone
from diffusion.finite import check_finite
from diffusion.samplers import make_scheduler, sample

_REMEDY = "its adapters are damaged or the dtype is too narrow for them: load float32, or fetch them again"

# (what the numbers are for) -> a generator of its own, the same every time
Generators = Callable[[str], torch.Generator]


def check_clip_frames(config: AnimateConfig, model: TalkingModel) -> None:
    """Refuse clips that are longer than the model's motion modules can see at once, motion frames included."""
    motion = model.config.motion
    most = motion.max_frames - motion.motion_frames
    if config.clip_frames > most:
        raise ValueError(
            f"clip_frames is {config.clip_frames}; the talking model makes at most {most} frames at once"
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Face:
    """The picture that is made to speak. S is the backbone's image size.

    image: [3, S, S] in [0, 1]. location: [1, S, S] in [0, 1], where the face may be.
    regions: [K, S, S] in [0, 1], of the audio branches in the order of the model's config.
    """

    image: Tensor
    location: Tensor
    regions: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TalkingClip:
    """Frames start ... start + F - 1 and what the next clip needs.

    images: [F, 3, S, S] in [0, 1], decoded from latents [F, C, h, w]. past: [M, C, h, w], latents of the last frames.
    """

    index: int
    start: int
    images: Tensor
    latents: Tensor
    past: Tensor


@torch.no_grad()
def animate(
    model: TalkingModel,
    backbone: Backbone,
    face: Face,
    features: FrameFeatures,
    *,
    fps: Fraction,
    generators: Generators,
    config: AnimateConfig | None = None,
    edges: Edges = "clamp",
    first_clip: int = 0,
    past: Tensor | None = None,
) -> Iterator[TalkingClip]:
    """The clips of a whole sound, one after another.

    Args:
        model: the talking model on `backbone.unet`.
        features: what the model hears of the sound, at `fps`.
        generators: name -> generator; clip i draws its noise from "clip/i", blinks come from "blinks". With the same
            generators a clip is the same whether the ones before it were made now or earlier.
        first_clip, past: go on at this clip, `past` being that of the clip before.
    """
    config = config or AnimateConfig()
    check_clip_frames(config, model)
    if first_clip and past is None:
        raise ValueError(f"first_clip is {first_clip}, so the latents that came before are needed: give past")
    person = _person(model, backbone, face, config)
    scheduler = make_scheduler(backbone.scheduler, config.sampler)
    lids = _lids(features, fps, config, generators)
    keep = model.config.motion.motion_frames
    total = features.num_frames
    for index in range(first_clip, -(-total // config.clip_frames)):
        start = index * config.clip_frames
        stop = min(start + config.clip_frames, total)
        conditions = _of_clip(model, person, features, start, stop, past, config, edges)
        if lids is not None:
            conditions = replace(conditions, blink=lids(start, stop)[None].to(backbone.device))
        latents = _sample(
            model, backbone, conditions, stop - start, scheduler, generators(f"clip/{index}"), config
        )
        # A clip shorter than the motion frames keeps some of those before it.
        tail = latents if past is None else torch.cat([past.to(latents), latents])
        past = tail[len(tail) - min(keep, len(tail)) :].clone()  # of its own, so that it can be saved
        yield TalkingClip(
            index=index, start=start, images=backbone.decode(latents).float(), latents=latents, past=past
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Person:
    """What all clips share."""

    conditions: Conditions
    identity: Tensor | None


def _person(model: TalkingModel, backbone: Backbone, face: Face, config: AnimateConfig) -> _Person:
    size = backbone.image_size
    for name, value, channels in (
        ("image", face.image, 3),
        ("location", face.location, 1),
        ("regions", face.regions, len(model.config.audio.branches)),
    ):
        if value.shape != (channels, size, size):
            raise ValueError(f"face.{name} must be {[channels, size, size]}, got {list(value.shape)}")
    image = face.image.to(backbone.device)[None]
    latents = backbone.encode(image)
    identity = backbone.embed_image(image) if backbone.image_encoder is not None else None
    if identity is not None and identity.shape[1] != model.config.identity.embedding:
        identity = None
    conditions = Conditions(
        reference=model.encode_reference(latents[:, None], identity),
        identity=identity,
        location=model.encode_location(face.location.to(backbone.device)[None, None]),
        masks=model.encode_masks(face.regions.to(backbone.device)[None], *latents.shape[-2:]),
        weights=config.branch_weights(model.config.audio.branches),
    )
    return _Person(conditions=conditions, identity=identity)


def _of_clip(
    model: TalkingModel,
    person: _Person,
    features: FrameFeatures,
    start: int,
    stop: int,
    past: Tensor | None,
    config: AnimateConfig,
    edges: Edges,
) -> Conditions:
    radius = model.config.audio_projection.window // 2
    windows = read_windows(features.read, start, stop, features.num_frames, radius=radius, edges=edges)
    device = model.unet.device
    speed = None
    if config.head_speed is not None and model.speed is not None:
        speed = torch.full((1, stop - start), config.head_speed, device=device)
    motion = None
    if past is not None and len(past) == model.config.motion.motion_frames and len(past):
        motion = model.encode_motion(past.to(device)[None], person.identity)
    return replace(
        person.conditions,
        audio=check_finite(
            model.encode_audio(windows[None].to(device)), "what the talking model hears", _REMEDY
        ),
        motion=motion,
        speed=speed,
    )


def _lids(
    features: FrameFeatures, fps: Fraction, config: AnimateConfig, generators: Generators
) -> Callable[[int, int], Tensor] | None:
    if config.blinks_per_minute is None:
        return None
    seconds = float(features.num_frames / fps)
    starts = blink_times(seconds, config.blinks_per_minute, generator=generators("blinks"))
    return lambda first, last: config.blink_strength * lids_of_frames(starts, first, last, fps)


def _sample(
    model: TalkingModel,
    backbone: Backbone,
    conditions: Conditions,
    frames: int,
    scheduler: object,
    generator: torch.Generator,
    config: AnimateConfig,
) -> Tensor:
    """Latents [F, C, h, w]."""
    assert conditions.location is not None
    height, width = conditions.location.shape[-2:]
    noise = torch.randn(
        1, frames, backbone.latent_channels, height, width, generator=generator, device=generator.device
    ).to(backbone.device)

    def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
        prediction = predict_guided(
            model,
            latents,
            timestep,
            conditions,
            reference_scale=config.guidance_scale_reference,
            audio_scale=config.guidance_scale_audio,
            batched=config.batched,
        )
        return check_finite(prediction, "what the talking model predicts", _REMEDY)

    return sample(denoise, noise, scheduler, num_steps=config.num_steps, generator=generator)[0]
