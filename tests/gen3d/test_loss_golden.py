"""Golden numbers of every loss on a small fixed UNet, in float64, so that they hold on any machine.

Its blocks have 64 channels and more: with groups of one channel, as 32 groups of 32, a GroupNorm would remove what the
timestep adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from diffusion.guidance import predict_together
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.sds import SDS
from gen3d.distillation.sjc import SJC
from gen3d.distillation.x0 import X0
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
            for index, name in enumerate(("cond", "uncond"))
        }

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        inputs = [Inputs(conditioning=self.words[name]) for name in which]
        return torch.stack(predict_together(self.denoiser, latents, timestep, inputs))


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


# Mean, root mean square, and one number of the gradient.
GOLDEN: list[tuple[Loss, tuple[float, float, float]]] = [
    (SDS(guidance_scale=7.5), (0.0874744162, 0.708475375, 1.37106489)),
    (SDS(guidance_scale=7.5, weighting="uniform"), (0.165794141, 1.04155909, 1.49438265)),
    (SDS(guidance_scale=7.5, weighting="fantasia3d"), (0.0389076357, 0.250716153, 0.393858218)),
    (X0(guidance_scale=5.0, rescale=0.0), (0.287156605, 2.52223206, 4.92866607)),
    (X0(guidance_scale=5.0, rescale=0.5), (0.286944998, 2.52038313, 4.92487794)),
    (SJC(guidance_scale=7.5), (0.165794141, 1.04155909, 1.49438265)),
    (SJC(guidance_scale=7.5, variance_reduction=False), (0.104729299, 0.18775792, 0.310866943)),
]


def gradient_of(loss: Loss, prior: Small) -> Tensor:
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    scores = Scores(
        prior=prior,
        noisy=prior.schedule.add_noise(latents, noise, t),
        timestep=t,
        cameras=cameras,
        together=loss.conditions(prior, cameras),
    )
    return loss(scores, latents, noise, {}, torch.Generator())


@pytest.mark.parametrize(("loss", "golden"), GOLDEN)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    gradient = gradient_of(loss, prior)
    found = (float(gradient.mean()), float(gradient.square().mean().sqrt()), float(gradient[1, 0, 2, 3, 4]))
    assert found == pytest.approx(golden, rel=1e-6)


def test_the_unet_sees_timestep_and_words(prior: Small) -> None:
    latents, cameras = numbers(1, 1, 4, 8, 8, seed=7), orbit(0.0, 0.0)
    first, second = (
        prior.predict(latents, torch.tensor([t]), cameras, ["cond", "uncond"]) for t in (200, 700)
    )
    assert float((first[0] - second[0]).abs().max()) > 1e-2
    assert float((first[0] - first[1]).abs().max()) > 1e-3
