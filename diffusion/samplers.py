"""Sampling: a pure loop over a diffusers scheduler, and the helper from prompts and cameras to views."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from diffusion.backbone import Backbone
from diffusion.conditioning import Conditioning, Inputs
from diffusion.config import SamplerName
from diffusion.finite import check_finite
from diffusion.guidance import Given, Predict, cfg, check_guidance, predict_together, rescale
from diffusion.held_views import held_views

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class SampleStep:
    """What a callback sees after a step: `step` counts from 0, `latents` are at the next noise level."""

    step: int
    num_steps: int
    timestep: int
    latents: torch.Tensor


def make_scheduler(scheduler: Any, sampler: SamplerName = "ddim") -> Any:
    """A fresh DDIM or DPM-Solver++ (2M) scheduler with the noise levels of `scheduler`, trailing spacing."""
    if sampler not in get_args(SamplerName):
        raise ValueError(f"sampler is {sampler!r}, allowed: {', '.join(get_args(SamplerName))}")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        if sampler == "ddim":  # for a rectified flow both are Euler's method
            return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
        return DPMSolverMultistepScheduler(
            num_train_timesteps=scheduler.config["num_train_timesteps"],
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=scheduler.config["shift"],
        )
    # Trailing spacing starts at the last timestep, as zero-terminal-SNR models require. Latents have no fixed
    # range, so nothing is clipped.
    if sampler == "ddim":
        return DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing", clip_sample=False)
    return DPMSolverMultistepScheduler.from_config(
        scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
        thresholding=False,
    )


def plan_timesteps(scheduler: Any, num_steps: int, start_timestep: int | None = None) -> torch.Tensor:
    """The timesteps of `num_steps` steps over the whole schedule, or those from `start_timestep` down.

    Latents to start from must be noised to the first of them, the greatest not above `start_timestep`.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    most = scheduler.config.num_train_timesteps
    if num_steps > most:
        raise ValueError(
            f"num_steps must be at most {most}, the timesteps of the model's schedule, got {num_steps}"
        )
    scheduler.set_timesteps(num_steps)
    timesteps = scheduler.timesteps
    if start_timestep is None:
        return timesteps
    remaining = timesteps[timesteps <= start_timestep]
    if start_timestep > most or len(remaining) == 0:
        raise ValueError(
            f"start_timestep must be in [{math.ceil(timesteps[-1])}, {most}] with {num_steps} steps, "
            f"got {start_timestep}"
        )
    return remaining


def sample(
    denoise: Denoise,
    latents: torch.Tensor,
    scheduler: Any,
    *,
    num_steps: int,
    start_timestep: int | None = None,
    generator: torch.Generator | None = None,
    keep: Callable[[torch.Tensor], torch.Tensor] | None = None,
    callback: Callable[[SampleStep], None] | None = None,
) -> torch.Tensor:
    """Runs `latents` from noise down to clean latents; gradients are not recorded. NaN or infinity is a NonFiniteError.

    Args:
        denoise: (latents, timestep []) -> prediction in the scheduler's parameterisation.
        latents: [...] at the noise level of the first timestep of `plan_timesteps`.
        scheduler: any diffusers scheduler; a copy is stepped, so the one given keeps no state of this run.
        num_steps: steps over the whole schedule; with `start_timestep` only the rest of them are taken.
        generator: for schedulers that add noise.
        keep: what holds of the latents at every noise level, such as views that are given: makes it so, before the
            first step and after each.
    """
    scheduler = type(scheduler).from_config(scheduler.config)
    timesteps = plan_timesteps(scheduler, num_steps, start_timestep)
    if start_timestep is not None and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(len(scheduler.timesteps) - len(timesteps))
    accepts_generator = "generator" in inspect.signature(scheduler.step).parameters
    scales = hasattr(scheduler, "scale_model_input")  # flow matching has none
    extra = {"generator": generator} if accepts_generator else {}
    keep = keep or (lambda latents: latents)
    with torch.no_grad():
        latents = keep(latents)
        for step, timestep in enumerate(timesteps):
            scaled = scheduler.scale_model_input(latents, timestep) if scales else latents
            prediction = denoise(scaled, timestep)
            latents = keep(scheduler.step(prediction, timestep, latents, return_dict=False, **extra)[0])
            check_finite(
                latents,
                f"what step {step + 1} of {len(timesteps)} of the sampler makes",
                "lower the guidance scale, load the weights as float32, or fetch them again if they are damaged",
            )
            if callback is not None:
                callback(
                    SampleStep(step=step, num_steps=len(timesteps), timestep=int(timestep), latents=latents)
                )
    return latents


def guided_denoise(
    predict: Predict[Given],
    given: Given,
    unconditional: Given | None,
    *,
    guidance_scale: float,
    guidance_rescale: float = 0.0,
    fixed: torch.Tensor | None = None,
    at_once: int | None = None,
) -> Denoise:
    """A `denoise` for `sample` with classifier-free guidance, both predictions in one forward pass.

    Args:
        predict: the model: a `Denoiser`, `Backbone.denoise`, or any function (latents, timestep, given) -> prediction.
        given: `Inputs` that say what to make.
        unconditional: the same with empty or negative words; without it, or with a scale of 1, there is no guidance.
        guidance_scale: standard classifier-free guidance, finite.
        guidance_rescale: in [0, 1], see `guidance.rescale`.
        fixed: [B, V] bool, views that are given and clean: their timestep is 0, and they do not count in the rescaling.
        at_once: 1 makes one prediction after the other, for half the memory.
    """
    check_guidance(guidance_scale, guidance_rescale)
    counted = None if fixed is None else ~fixed

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if fixed is not None:
            timestep = torch.where(fixed, 0, timestep.to(fixed.device))
        if unconditional is None or guidance_scale == 1.0:
            return predict(latents, timestep, given)
        uncond, cond = predict_together(predict, latents, timestep, [unconditional, given], at_once=at_once)
        return rescale(cfg(uncond, cond, guidance_scale), cond, guidance_rescale, counted)

    return denoise


def sample_views(
    backbone: Backbone,
    prompts: Sequence[str] | Conditioning,
    cameras: torch.Tensor | None,
    *,
    generator: torch.Generator,
    guidance_scale: float = 5.0,
    guidance_rescale: float = 0.5,
    num_steps: int = 20,
    sampler: SamplerName = "ddim",
    negative_prompt: str = "",
    domains: torch.Tensor | None = None,
    init_images: torch.Tensor | None = None,
    start_timestep: int | None = None,
    fixed: torch.Tensor | None = None,
    callback: Callable[[SampleStep], None] | None = None,
) -> torch.Tensor:
    """Samples views of objects from words, from pictures, or from both.

    Args:
        prompts: one for all, B (one per object) or B V (one per view); or their conditioning.
        cameras: c2w [B, V, 4, 4] (glTF camera, world +Y up), or None for a backbone without camera embedding.
        guidance_scale: standard classifier-free guidance, 1 = none.
        guidance_rescale: in [0, 1], see `guidance.rescale`.
        num_steps: over the whole schedule, also when sampling starts in its middle.
        domains: long [B, V], what each view shows, as `Inputs.domain`; None is colours.
        init_images: [B, V, 3, H, W] in [0, 1]: pictures to start from, noised to `start_timestep` (SDEdit), or the
            `fixed` ones among them, or both.
        start_timestep: None starts from noise, and then only what is `fixed` of `init_images` counts.
        fixed: bool [B, V], views that are given: clean from the first step on, they tell the others what to show and
            come back as they are. At least one view of each object must be left to make. Only models that were trained
            for it heed them.

    Returns:
        [B, V, 3, H, W] in [0, 1]; V is the backbone's own number of views when there are no cameras.
    """
    if (init_images is None) != (start_timestep is None and fixed is None):
        raise ValueError(
            "init_images belong together with start_timestep, with fixed, or with both: give neither, or one of these"
        )
    check_guidance(guidance_scale, guidance_rescale)
    conditioning = prompts if isinstance(prompts, Conditioning) else backbone.encode_prompt(prompts)
    shape = _views_shape(backbone, conditioning, cameras, init_images)
    if len(conditioning) == 1:
        conditioning = conditioning.repeat(shape[0])
    camera = None if cameras is None else cameras.to(backbone.device)
    domain = None if domains is None else domains.to(backbone.device)
    given, unconditional = Inputs(conditioning=conditioning, camera=camera, domain=domain), None
    if guidance_scale != 1.0:
        negative = backbone.encode_prompt([negative_prompt]).repeat(len(conditioning))
        unconditional = replace(given, conditioning=negative)

    scheduler = make_scheduler(backbone.scheduler, sampler)
    noise = torch.randn(shape, generator=generator, device=generator.device).to(backbone.device)
    if init_images is None or start_timestep is None:
        latents = noise * float(scheduler.init_noise_sigma)
    else:
        first = plan_timesteps(scheduler, num_steps, start_timestep)[0].round().long()
        with torch.no_grad():
            clean = backbone.encode(init_images.to(backbone.device))
        latents = backbone.schedule.add_noise(clean, noise, first)
    held = held_views(backbone, init_images, fixed)
    denoise = guided_denoise(
        backbone.denoise,
        given,
        unconditional,
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        fixed=None if held is None else held.fixed,
    )
    latents = sample(
        denoise,
        latents,
        scheduler,
        num_steps=num_steps,
        start_timestep=start_timestep,
        generator=generator,
        keep=None if held is None else held.keep,
        callback=callback,
    )
    with torch.no_grad():
        return backbone.decode(latents) if held is None else held.decode(latents)


def _views_shape(
    backbone: Backbone, conditioning: Conditioning, cameras: torch.Tensor | None, images: torch.Tensor | None
) -> tuple[int, ...]:
    """Shape [B, V, C, h, w] of the latents; B and V must agree among all inputs."""
    if cameras is not None:
        if cameras.ndim != 4 or cameras.shape[-2:] != (4, 4):
            raise ValueError(f"cameras must be c2w [B, V, 4, 4], got {list(cameras.shape)}")
        batch, num_views = cameras.shape[:2]
    elif images is not None:
        batch, num_views = images.shape[:2]
    else:
        batch, num_views = len(conditioning), backbone.num_views
    if images is not None:
        if images.ndim != 5 or tuple(images.shape[:2]) != (batch, num_views):
            raise ValueError(f"init_images must be [{batch}, {num_views}, 3, H, W], got {list(images.shape)}")
        height, width = images.shape[-2:]
    else:
        height = width = backbone.image_size
    if len(conditioning) not in (1, batch, batch * num_views):
        raise ValueError(
            f"prompts must be 1, {batch} (one per object) or {batch * num_views} (one per view), "
            f"got {len(conditioning)}"
        )
    factor = backbone.downscale
    return batch, num_views, backbone.latent_channels, height // factor, width // factor
