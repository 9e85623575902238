"""A small fixed UNet in float64, as a prior, for golden numbers of losses that hold on any machine.

Its blocks have 64 channels and more: with groups of one channel, as 32 groups of 32, a GroupNorm would remove what the
timestep adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from diffusion.guidance import predict_together
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Loss, Scores
from tests.gen3d.test_distillation import Known


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Small(Known):
    """A UNet whose weights and words are drawn from fixed seeds."""

    num_views = 1

    def __init__(self) -> None:
        super().__init__("epsilon")
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(64, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=16,
        ).double()
        with torch.no_grad():
            for index, (_, weights) in enumerate(sorted(unet.named_parameters())):
                weights.copy_(0.08 * numbers(*weights.shape, seed=index))
        self.denoiser = UNetDenoiser(unet.requires_grad_(False))
        self.words = {
            name: Conditioning(embeds=numbers(1, 4, 16, seed=1000 + index))
            for index, name in enumerate(("cond", "uncond", "negative", "source"))
        }

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        self.passes.append(tuple(which))
        inputs = [Inputs(conditioning=self.words[name]) for name in which]
        return torch.stack(predict_together(self.denoiser, latents, timestep, inputs))


def gradient_of(loss: Loss, prior: Small) -> Tensor:
    """The gradient of a loss for two objects of one view each, at two timesteps, a quarter of the way."""
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    scores = Scores(
        prior=prior,
        noisy=prior.schedule.add_noise(latents, noise, t),
        timestep=t,
        cameras=cameras,
        together=loss.conditions(prior, cameras),
        progress=0.25,
        lowest=20,
        highest=980,
        source=numbers(2, 1, 4, 8, 8, seed=9),
        surface=disc(2, 1, 16),
    )
    memory: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(10)
    loss.start(memory, prior, (1, 4, 8, 8), generator)
    return loss(scores, latents, noise, memory, generator)


def disc(objects: int, views: int, size: int) -> Tensor:
    """Points `[B, V, S, S, 3]` of a plane through the middle, seen from the front; NaN beyond a circle."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1)
    points[(x.square() + y.square()) > 0.8] = torch.nan
    return points.expand(objects, views, size, size, 3)


def golden_of(gradient: Tensor) -> tuple[float, float, float]:
    """Mean, root mean square, and one number of a gradient."""
    return float(gradient.mean()), float(gradient.square().mean().sqrt()), float(gradient[1, 0, 2, 3, 4])
