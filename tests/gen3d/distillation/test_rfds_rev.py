"""RFDS-Rev: the noise is corrected first; its other identities stand with RFDS's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d.cameras import orbit
from gen3d.distillation.rfds import RFDS
from gen3d.distillation.rfds_rev import RFDSRev
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


def test_it_is_the_equation_worked_by_hand(prior: Small) -> None:
    """In flow coordinates, by hand from the network's noise: correct at CFG 1, noise anew, then v_hat - (eps - z)."""
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    alpha, sigma = prior.schedule.alpha(t, latents), prior.schedule.sigma(t, latents)
    level = sigma / (alpha + sigma)

    def velocity(noisy_flow: Tensor, scale: float) -> Tensor:
        cond, uncond = prior.predict(noisy_flow * (alpha + sigma), t, cameras, ["cond", "uncond"])
        eps = uncond + scale * (cond - uncond)
        return (eps - noisy_flow) / (1.0 - level)  # of z = (1 - level) x0 + level eps

    corrected = noise + (1.0 - level) * (
        velocity((1.0 - level) * latents + level * noise, 1.0) + latents - noise
    )
    expected = velocity((1.0 - level) * latents + level * corrected, 7.5) - (corrected - latents)
    found = gradient_of(RFDSRev(guidance_scale=7.5), prior)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert float((found - gradient_of(RFDS(guidance_scale=7.5), prior)).abs().max()) > 0.1


def test_gradients_are_as_they_were(prior: Small) -> None:
    golden = (0.0683137112, 0.305369066, 0.706828055)
    assert golden_of(gradient_of(RFDSRev(guidance_scale=7.5), prior)) == pytest.approx(golden, rel=1e-6)


def test_it_asks_three_times() -> None:
    prior = Small()
    gradient_of(RFDSRev(), prior)
    assert prior.passes == [("cond",), ("uncond", "cond")]


def test_a_bad_setting_is_named() -> None:
    with pytest.raises(ValueError, match="rfds_rev guidance_scale"):
        RFDSRev(guidance_scale=1e9)
