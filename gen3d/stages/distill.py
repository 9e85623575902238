"""Refining a volume by score distillation: pictures of it are pulled to what the diffusion model makes of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.guidance import cfg
from gen3d.cameras import orbit
from gen3d.distillation.annealing import draw_timestep
from gen3d.distillation.inject import clip_gradient, inject
from gen3d.distillation.sds import sds_gradient
from gen3d.distillation.x0 import x0_gradient
from gen3d.optimize import Fit
from gen3d.prompts import view_prompts
from gen3d.regularisers import opaque
from gen3d.render.volume import render_rays
from gen3d.stages.config import DistillConfig
from gen3d.stages.fit import load_volume, refresh
from gen3d.state import State


class Distill(Fit):
    """One step renders ``num_views`` pictures around the object and applies one gradient."""

    name = "distill"

    def __init__(
        self, config: DistillConfig, backbone: Backbone, prompt: str, negative_prompt: str = ""
    ) -> None:
        if config.num_views % backbone.num_views:
            raise ValueError(
                f"distill num_views must be a multiple of the backbone's {backbone.num_views}, got {config.num_views}"
            )
        self.config, self.backbone, self.prompt = config, backbone, prompt
        self.num_steps = config.num_steps
        self.unconditional = backbone.encode_prompt([negative_prompt])

    def before(self, state: State, step: int, generator: torch.Generator) -> None:
        refresh(state, step, 8)

    def rates(self, state: State, step: int) -> dict[str, float]:
        return {"volume/grid": self.config.learning_rate}

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        return {"timestep": float(state["distill/timestep"])}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config, volume = self.config, load_volume(state)
        turn, height = torch.rand(2, generator=generator, device=generator.device).tolist()
        azimuths = [360.0 * (turn + view / config.num_views) for view in range(config.num_views)]
        low, high = config.elevations_deg
        elevation = low + (high - low) * height
        cameras = orbit(azimuths, elevation, fovy_deg=config.fovy_deg).to(volume.device)

        size = config.render_size
        origins, directions = cameras.rays(size, size)
        rendered = render_rays(
            volume,
            origins.reshape(-1, 3),
            directions.reshape(-1, 3),
            state["views/backgrounds"][-1],
            num_samples=config.num_samples,
            generator=generator,
        )
        images = rendered.rgb.view(config.num_views, size, size, 3).permute(0, 3, 1, 2)
        full = (self.backbone.image_size, self.backbone.image_size)
        images = F.interpolate(images, full, mode="bilinear", antialias=True, align_corners=False)
        latents = self.backbone.encode(images)
        low_t, high_t = config.annealing.range(step, config.num_steps)
        t = draw_timestep(low_t, high_t, self.backbone.schedule.num_timesteps, generator)
        prompts = view_prompts(self.prompt, azimuths, [elevation] * len(azimuths), self.backbone.num_views)
        gradient = self._gradient(latents, t.to(latents.device), cameras.c2w, prompts, generator)
        density_tv, _ = volume.total_variation(generator, 0.25)
        state["distill/timestep"] = t
        return {
            config.loss: inject(latents, clip_gradient(gradient, config.max_gradient)) / latents[0].numel(),
            "opaque": config.opaque * opaque(rendered.opacity),
            "tv": config.density_tv * density_tv,
        }

    @torch.no_grad()
    def _gradient(
        self, latents: Tensor, t: Tensor, c2w: Tensor, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """Gradient for latents ``[V, C, h, w]`` of all views, at one timestep ``t [1]``."""
        config, backbone, schedule = self.config, self.backbone, self.backbone.schedule
        groups = len(latents) // backbone.num_views
        grouped = latents.detach().view(groups, backbone.num_views, *latents.shape[1:])
        camera = c2w.view(groups, backbone.num_views, 4, 4) if backbone.has_camera else None
        noise = torch.randn(grouped.shape, generator=generator, device=generator.device).to(grouped.device)
        t = t.expand(groups)
        noisy = schedule.add_noise(grouped, noise, t)
        conditioning = backbone.encode_prompt(prompts)
        cond = backbone.predict(noisy, t, conditioning, camera=camera)
        uncond = backbone.predict(noisy, t, self.unconditional, camera=camera)
        guided = cfg(uncond, cond, config.guidance_scale)
        if config.loss == "x0":
            x0_guided, x0_cond = schedule.to_x0(guided, noisy, t), schedule.to_x0(cond, noisy, t)
            gradient = x0_gradient(grouped, x0_guided, x0_cond, rescale=config.rescale)
        else:
            eps_hat = schedule.to_eps(guided, noisy, t)
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            gradient = sds_gradient(eps_hat, noise, alpha, sigma, weighting=config.weighting)
        return gradient.view_as(latents)
