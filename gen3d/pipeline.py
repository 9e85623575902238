"""Recipes: lists of stages for ``gen3d.optimize.optimize``."""

from __future__ import annotations

import torch

from diffusion.backbone import Backbone
from diffusion.samplers import make_scheduler, plan_timesteps
from gen3d.optimize import Stage
from gen3d.prompts import is_blank
from gen3d.stages.config import (
    QuickstartConfig,
)
from gen3d.stages.multiview import BackboneViews
from gen3d.views import ViewProvider


def mesh_stages(
    config: QuickstartConfig, provider: ViewProvider, device: torch.device | str = "cpu"
) -> list[Stage]:
    """The stages that need nothing but views, whoever makes them."""
    stages: list[Stage] = [config.multiview.build(provider, device), config.extract.build()]
    if config.refine.num_steps:
        stages.append(config.refine.build())
    if config.redraw.timestep:
        stages.append(config.redraw.build(provider))
    return [*stages, config.texture.build()]


def quickstart_stages(config: QuickstartConfig, backbone: Backbone, prompt: str) -> list[Stage]:
    """The stages for ``prompt`` on the backbone's device. Afterwards ``gen3d.stages.mesh.load_mesh(state)`` is the
    textured mesh, and ``views/...`` in the state are the last views."""
    if is_blank(prompt):
        raise ValueError("prompt is empty; say what to make, for example prompt='a red mushroom'")
    counts = {"multiview.group_size": config.multiview.group_size}
    if config.redraw.timestep:
        counts["redraw.num_views"] = config.redraw.num_views
    for name, count in counts.items():
        if count % backbone.num_views:
            raise ValueError(
                f"{name} must be a multiple of the backbone's {backbone.num_views} views, got {count}"
            )
    if config.multiview.render_size != backbone.image_size:
        raise ValueError(
            f"multiview.render_size must be the backbone's image size {backbone.image_size}, "
            f"got {config.multiview.render_size}"
        )
    provider = BackboneViews(backbone, prompt, config.sampling)
    starts = {f"multiview.timesteps[{i}]": t for i, t in enumerate(config.multiview.timesteps)}
    starts["redraw.timestep"] = config.redraw.timestep
    for name, timestep in starts.items():
        if timestep:
            try:
                plan_timesteps(make_scheduler(backbone.scheduler), config.sampling.num_steps, timestep)
            except ValueError as error:
                raise ValueError(f"{name} does not go with sampling.num_steps: {error}") from None
    background = config.sampling.background
    if background not in ("", "auto") and "background" not in provider.prompt.lower():
        raise ValueError(
            f"sampling.background is {background!r}, which leaves no room for the prompt in the {backbone.max_tokens} "
            "tokens that the text encoder reads; describe it in fewer words"
        )
    stages = mesh_stages(config, provider, backbone.device)
    if config.distill.num_steps:
        stages.insert(1, config.distill.build(backbone, provider.prompt, config.sampling.negative_prompt))
    return stages
