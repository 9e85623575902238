"""Fitting a volume to views, one batch of rays at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.distillation.regularisers import distortion
from gen3d.render.volume import render_rays
from gen3d.representations.volume import Volume
from gen3d.stages.views import Views, draw_rays
from gen3d.state import State, adam_step


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a volume is fitted to views.

    Per step: num_rays rays of num_samples samples. Losses, as weights beside the mean squared colour error: mask
    (opacity against the silhouettes), distortion (no fog: the light of a ray comes from one place), density_tv and
    color_tv (smooth fields). learning_rate falls to learning_rate * learning_rate_decay over a fit (all
    rounds together), by a constant factor a step. Empty cells are found anew every refresh_every steps.
    """

    num_rays: int = 1024
    num_samples: int = 64
    learning_rate: float = 0.1
    learning_rate_decay: float = 0.1
    mask: float = 1.0
    distortion: float = 0.1
    density_tv: float = 0.3
    color_tv: float = 0.01
    tv_fraction: float = 0.25
    refresh_every: int = 16

    def __post_init__(self) -> None:
        for name in ("num_rays", "num_samples", "refresh_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"fit {name} must be at least 1, got {getattr(self, name)}")
        for name in ("mask", "distortion", "density_tv", "color_tv"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"fit {name} is a weight and must not be negative, got {getattr(self, name)}"
                )
        if not self.learning_rate > 0:
            raise ValueError(f"fit learning_rate must be above 0, got {self.learning_rate}")
        for name in ("learning_rate_decay", "tv_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"fit {name} must lie above 0 and up to 1, got {getattr(self, name)}")


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
