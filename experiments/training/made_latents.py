"""Latents as the models make them, beside the true pictures: a decoder meets softer ones in use than encoded ones.

The truth's latents are noised and denoised again by the last steps of sampling, so that what comes out has the models'
own softness and still shows what the true picture shows, pixel for pixel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from avatar.conditions import Conditions
from avatar.guidance import predict_guided
from avatar.lessons.config import Motion
from avatar.model import TalkingModel
from avatar.settings import AnimateConfig
from avatar.training import conditions_of
from diffusion.backbone import Backbone
from diffusion.conditioning import Inputs
from diffusion.samplers import guided_denoise, make_scheduler, plan_timesteps, sample
from experiments.training.talking import EncodedClips
from experiments.world.dataset import Shards
from gen3d.priors.config import SamplingConfig

_VIEW_STEPS = 10
# Share of the schedule above which views would begin to show something else than the truth.
_VIEW_START = 0.4


@torch.no_grad()
def made_views(backbone: Backbone, shards: Shards, latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents ``[N, V, C, h, w]`` of scenes, as the UNet makes them of their own ``latents`` and captions.

    Each scene begins at another of the last steps, in turn.
    """
    scheduler, config = make_scheduler(backbone.scheduler), SamplingConfig()
    steps = plan_timesteps(scheduler, _VIEW_STEPS)
    starts = steps[steps <= _VIEW_START * backbone.schedule.num_timesteps]
    empty = backbone.encode_prompt([""])
    made = []
    for index, (clean, caption, c2w) in enumerate(zip(latents, shards.captions, shards.c2w, strict=True)):
        start = int(starts[index % len(starts)])
        given = Inputs(conditioning=backbone.encode_prompt([caption]), camera=c2w[None].to(backbone.device))
        denoise = guided_denoise(
            backbone.denoise,
            given,
            replace(given, conditioning=empty),
            guidance_scale=config.guidance_scale,
            guidance_rescale=config.guidance_rescale,
        )
        noisy = _noised(backbone, clean[None].float(), start, generator)
        made.append(sample(denoise, noisy, scheduler, num_steps=_VIEW_STEPS, start_timestep=start))
    return torch.cat(made).half().cpu()


@torch.no_grad()
def made_frames(
    backbone: Backbone, model: TalkingModel, clips: EncodedClips, generator: torch.Generator
) -> Tensor:
    """Latents ``[N, F - M, C, h, w]`` of clips without their first M frames, the motion frames, as the talking model
    makes them of their own latents and sound.

    Each clip begins at another of the sampler's last steps, in turn; never at the first, which is pure noise.
    """
    scheduler, config = make_scheduler(backbone.scheduler), AnimateConfig()
    starts = plan_timesteps(scheduler, config.num_steps)[1:]
    past = model.config.motion.motion_frames
    known = Motion().undisturbed()
    made = []
    for index in range(len(clips.data)):
        start = int(starts[index % len(starts)])
        batch = clips.batch(
            torch.tensor([index]),
            torch.tensor([past]),
            num_frames=clips.data.num_frames - past,
            past=past,
            device=backbone.device,
        )
        conditions = conditions_of(model, batch, known, generator=generator)

        def denoise(latents: Tensor, timestep: Tensor, given: Conditions = conditions) -> Tensor:
            return predict_guided(model, latents, timestep, given, audio_scale=config.guidance_scale_audio)

        noisy = _noised(backbone, batch.latents, start, generator)
        made.append(sample(denoise, noisy, scheduler, num_steps=config.num_steps, start_timestep=start))
    return torch.cat(made).half().cpu()


def _noised(backbone: Backbone, latents: Tensor, timestep: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(latents.shape, generator=generator).to(backbone.device)
    return backbone.schedule.add_noise(latents.to(backbone.device), noise, timestep)
