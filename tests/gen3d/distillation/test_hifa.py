"""HiFA: SDS in latents, the same distance between pictures, and thin surfaces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d.cameras import orbit
from gen3d.distillation.base import Scores
from gen3d.distillation.hifa import HiFA
from gen3d.distillation.sds import SDS
from gen3d.regularisers import z_variance
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


class Painting(Small):
    """Whose decoder is linear: three colours of four channels, at twice the size."""

    def decode(self, latents: Tensor) -> Tensor:
        return 0.5 + latents[..., :3, :, :].repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.fixture(scope="module")
def prior() -> Painting:
    return Painting()


def scores_of(prior: Small, latents: Tensor) -> Scores:
    noise, t = numbers(2, 1, 4, 8, 8, seed=8), torch.tensor([200, 700])
    noisy = prior.schedule.add_noise(latents, noise, t)
    return Scores(prior=prior, noisy=noisy, timestep=t, cameras=orbit([0.0, 90.0], 0.0))


def test_gradients_are_as_they_were(prior: Painting) -> None:
    golden = (0.0874744162, 0.708475375, 1.37106489)
    assert golden_of(gradient_of(HiFA(guidance_scale=7.5), prior)) == pytest.approx(golden, rel=1e-6)
    of_latents = gradient_of(SDS(guidance_scale=7.5), prior)
    torch.testing.assert_close(
        gradient_of(HiFA(guidance_scale=7.5), prior), of_latents, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_pictures_and_latents_are_pulled_by_the_same_weight(prior: Painting, weighting: str) -> None:
    """Pictures that are the decoded latents: their gradient is the decoded one of the latents."""
    latents = numbers(2, 1, 4, 8, 8, seed=7)
    loss = HiFA(guidance_scale=7.5, weighting=weighting, image_weight=0.5)  # type: ignore[arg-type]
    scores = scores_of(prior, latents)
    found = loss.image_gradient(scores, prior.decode(latents), latents)
    assert found is not None
    of_latents = loss(scores, latents, numbers(2, 1, 4, 8, 8, seed=8), {}, torch.Generator())
    torch.testing.assert_close(found, 0.5 * (prior.decode(of_latents) - 0.5), rtol=1e-6, atol=1e-9)


def test_golden_gradient_of_pictures(prior: Painting) -> None:
    images = numbers(2, 1, 3, 16, 16, seed=11)
    found = HiFA(guidance_scale=7.5).image_gradient(
        scores_of(prior, numbers(2, 1, 4, 8, 8, seed=7)), images, images
    )
    assert found is not None
    golden = (-0.0154825485, 0.0884706281, 0.0949228708)
    assert golden_of(found[:, :, [0, 1, 2, 0]]) == pytest.approx(golden, rel=1e-6)


def test_without_the_image_weight_pictures_are_left_alone(prior: Painting) -> None:
    latents = numbers(2, 1, 4, 8, 8, seed=7)
    assert HiFA(image_weight=0.0).image_gradient(scores_of(prior, latents), latents, latents) is None


@pytest.mark.parametrize("settings", [{"guidance_scale": -1.0}, {"image_weight": -1.0}])
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"hifa {next(iter(settings))}"):
        HiFA(**settings)


def test_z_variance_is_that_of_the_depth_of_solid_rays() -> None:
    weights = torch.tensor([[0.4, 0.4, 0.0], [0.0, 0.9, 0.0], [0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]).double()
    t = torch.tensor([1.0, 2.0, 3.0]).double().expand(4, 3)
    # Halves at 1 and 2; one place; too thin to count; thirds at 1, 2 and 3.
    expected = (0.25 + 0.0 + 2.0 / 3.0) / 3
    assert float(z_variance(weights, t, weights.sum(1))) == pytest.approx(expected)
    assert float(z_variance(weights[2:3], t[2:3], weights[2:3].sum(1))) == 0.0
    learning = (weights + 0.01).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda w: z_variance(w, t, w.sum(1)), learning)
