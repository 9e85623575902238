"""RFDS: a rectified flow on any schedule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion.schedule import Schedule
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.rfds import RFDS
from gen3d.distillation.rfds_rev import RFDSRev
from gen3d.distillation.sds import SDS
from gen3d.distillation.x0 import X0
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers
from tests.gen3d.test_distillation import Known


class Flow(Small):
    """The small UNet behind a rectified flow: timestep i of the flow is the variance-preserving schedule's timestep i,
    at sigma / (alpha + sigma), and the network is shown what it knows from there."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = self.schedule
        total = self.inner.alphas + self.inner.sigmas
        self.schedule = Schedule(
            alphas=self.inner.alphas / total, sigmas=self.inner.sigmas / total, prediction_type="flow"
        )

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        scale = self.inner.alpha(timestep, latents) + self.inner.sigma(timestep, latents)
        known = latents * scale
        eps = super().predict(known, timestep, cameras, which)
        return torch.stack(
            [self.inner.convert(each, known, timestep, self.inner.prediction_type, "flow") for each in eps]
        )


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize("loss", [RFDS(guidance_scale=7.5), RFDSRev(guidance_scale=7.5)])
def test_a_variance_preserving_backbone_is_a_rectified_flow(loss: Loss, prior: Small) -> None:
    torch.testing.assert_close(gradient_of(loss, prior), gradient_of(loss, Flow()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("build", [Small, Flow])
def test_it_is_x0_over_the_flow_sigma_and_a_weighted_sds(build: type[Small]) -> None:
    prior = build()
    t = torch.tensor([200, 700]).view(2, 1, 1, 1, 1)
    alpha, sigma = prior.schedule.alphas[t], prior.schedule.sigmas[t]
    by_rfds = gradient_of(RFDS(guidance_scale=7.5), prior)
    by_x0 = gradient_of(X0(guidance_scale=7.5, rescale=0.0), prior) * (alpha + sigma) / sigma
    by_sds = gradient_of(SDS(guidance_scale=7.5, weighting="uniform"), prior) * (alpha + sigma) / alpha
    torch.testing.assert_close(by_rfds, by_x0, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(by_rfds, by_sds, rtol=1e-6, atol=1e-9)


def test_gradients_are_as_they_were(prior: Small) -> None:
    golden = (0.452547651, 3.43366979, 6.47723494)
    assert golden_of(gradient_of(RFDS(guidance_scale=7.5), prior)) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize("loss", [RFDS(guidance_scale=5.0), RFDSRev(guidance_scale=5.0)])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow"])
def test_it_is_finite_at_pure_noise(loss: Loss, prediction_type: str) -> None:
    shape = (1, 1, 4, 8, 8)
    prior = Known(prediction_type, cond=numbers(*shape, seed=2), uncond=numbers(*shape, seed=3))
    alphas = torch.linspace(0.9999, 0.0, 1000, dtype=torch.float64)
    prior.schedule = (
        Schedule.flow()
        if prediction_type == "flow"
        else Schedule.from_alphas_cumprod(alphas.square(), "v_prediction")
    )
    latents, noise = numbers(*shape, seed=0), numbers(*shape, seed=1)
    last = torch.tensor([prior.schedule.num_timesteps - 1])
    assert prior.schedule.zero_terminal_snr
    scores = Scores(
        prior=prior,
        noisy=prior.schedule.add_noise(latents, noise, last),
        timestep=last,
        cameras=orbit(0.0, 0.0),
        together=loss.conditions(prior, orbit(0.0, 0.0)),
    )
    gradient = loss(scores, latents, noise, {}, torch.Generator())
    assert bool(torch.isfinite(gradient).all())
    # At pure noise the correction of the noise has no share, and both are z - x0_hat.
    expected = latents - scores.guided_x0(5.0)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def test_a_bad_setting_is_named() -> None:
    with pytest.raises(ValueError, match="rfds guidance_scale"):
        RFDS(guidance_scale=-1.0)
