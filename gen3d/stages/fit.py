"""Fitting a volume to views, one batch of rays at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.rays import draw_rays
from gen3d.regularisers import distortion
from gen3d.render.volume import render_rays
from gen3d.representations.volume import Volume
from gen3d.stages.config import FitConfig
from gen3d.state import State, adam_step
from gen3d.views import Views


def save_volume(state: State, volume: Volume) -> None:
    state.set_group("volume", {k: v.detach() for k, v in volume.state_dict().items()})


def load_volume(state: State) -> Volume:
    """The state's volume, sharing its tensors."""
    return Volume.from_state_dict(state.group("volume"))


def fit_step(
    state: State, config: FitConfig, step: int, num_steps: int, generator: torch.Generator
) -> dict[str, float]:
    """Step ``step`` of a fit of ``num_steps`` of the state's volume to its views; returns the losses."""
    volume, views = load_volume(state), Views.load(state)
    if step % config.refresh_every == 0:
        volume.refresh(dilate=1)
        state["volume/cell_density"] = volume.cell_density
    rays = draw_rays(views, config.num_rays, generator)
    volume.grid.requires_grad_(True)
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
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    learning_rate = config.learning_rate * config.learning_rate_decay ** (step / max(1, num_steps))
    adam_step(state, {"volume/grid": learning_rate})
    return {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in losses.items()}}
