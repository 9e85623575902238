"""Fitting a volume to views, one batch of rays at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.rays import draw_rays
from gen3d.regularisers import distortion
from gen3d.render.volume import render_rays
from gen3d.representations.volume import Volume
from gen3d.stages.config import FitConfig
from gen3d.state import State
from gen3d.views import Views


def save_volume(state: State, volume: Volume) -> None:
    state.set_group("volume", {k: v.detach() for k, v in volume.state_dict().items()})


def load_volume(state: State) -> Volume:
    """The state's volume, sharing its tensors."""
    return Volume.from_state_dict(state.group("volume"))


def refresh(state: State, step: int, every: int) -> None:
    """Find anew what is empty in the state's volume, every so many steps."""
    if step % every == 0:
        volume = load_volume(state)
        volume.refresh(dilate=1)
        state["volume/cell_density"] = volume.cell_density


def fit_rate(config: FitConfig, step: int, num_steps: int) -> float:
    """The learning rate at step `step` of a fit of `num_steps`."""
    return config.learning_rate * config.learning_rate_decay ** (step / max(1, num_steps))


def fit_losses(state: State, config: FitConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """What random rays through the state's volume miss of the state's views, and the volume's regularisers."""
    volume, views = load_volume(state), Views.load(state)
    rays = draw_rays(views, config.num_rays, generator)
    rendered = render_rays(
        volume,
        rays.origins,
        rays.directions,
        rays.background,
        num_samples=config.num_samples,
        generator=generator,
    )
    losses: dict[str, Tensor] = {"color": (rendered.rgb - rays.color).square().mean()}
    if config.mask:
        losses["mask"] = config.mask * (rendered.opacity - rays.mask).square().mean()
    if config.distortion:
        losses["distortion"] = config.distortion * distortion(rendered.weights, rendered.t, rendered.step)
    if config.density_tv or config.color_tv:
        density_tv, color_tv = volume.total_variation(generator, config.tv_fraction)
        losses["tv"] = config.density_tv * density_tv + config.color_tv * color_tv
    return losses
