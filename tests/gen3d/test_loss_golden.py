"""Golden numbers of every loss on a small fixed UNet, in float64, so that they hold on any machine."""

from __future__ import annotations

import pytest
import torch

from gen3d.cameras import orbit
from gen3d.distillation.base import Loss
from gen3d.distillation.sds import SDS
from gen3d.distillation.sjc import SJC
from gen3d.distillation.x0 import X0
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


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


@pytest.mark.parametrize(("loss", "golden"), GOLDEN)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


def test_the_unet_sees_timestep_and_words(prior: Small) -> None:
    latents, cameras = numbers(1, 1, 4, 8, 8, seed=7), orbit(0.0, 0.0)
    first, second = (
        prior.predict(latents, torch.tensor([t]), cameras, ["cond", "uncond"]) for t in (200, 700)
    )
    assert float((first[0] - second[0]).abs().max()) > 1e-2
    assert float((first[0] - first[1]).abs().max()) > 1e-3
