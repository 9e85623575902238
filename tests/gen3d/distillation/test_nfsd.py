"""Noise-free score distillation."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.nfsd import NFSD
from gen3d.distillation.sds import SDS
from tests.gen3d.known_priors import SHAPE, Truths, followed, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (NFSD(guidance_scale=7.5), (0.000966679469, 0.028087857, 0.0455754749)),
        (NFSD(guidance_scale=7.5, low_noise=0.8), (0.0603747517, 0.1242933, 0.285213932)),
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


def test_each_object_has_the_rule_of_its_own_timestep(prior: Small) -> None:
    low, high = (gradient_of(NFSD(guidance_scale=7.5, low_noise=share), prior) for share in (1.0, 0.0))
    mixed = gradient_of(NFSD(guidance_scale=7.5, low_noise=0.5), prior)  # at the timesteps 200 and 700
    torch.testing.assert_close(mixed[0], low[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mixed[1], high[1], rtol=1e-9, atol=1e-12)
    # 200 itself is the first of the high ones.
    torch.testing.assert_close(
        gradient_of(NFSD(guidance_scale=7.5, low_noise=0.2), prior), high, rtol=1e-9, atol=1e-12
    )


def test_limits() -> None:
    """Above, at scale 1, CSD of the negative prompt; below, SDS with the drawn noise put back."""
    latents, noise = numbers(*SHAPE, seed=4), numbers(*SHAPE, seed=5)
    known = Truths(**{name: numbers(*SHAPE, seed=i) for i, name in enumerate(("cond", "uncond", "negative"))})
    above = gradient_at(NFSD(weighting="uniform", guidance_scale=1.0), known, latents, noise, 700)
    csd = CSD(negative=-1.0, uncond=0.0, normalize=False)
    torch.testing.assert_close(above, gradient_at(csd, known, latents, noise, 700))
    below = gradient_at(NFSD(guidance_scale=7.5, weighting="uniform"), known, latents, noise, 100)
    sds = gradient_at(SDS(weighting="uniform", guidance_scale=7.5), known, latents, noise, 100)
    torch.testing.assert_close(below, sds + noise)


def test_it_is_still_where_all_conditions_agree_unless_noise_is_low() -> None:
    truth = 0.5 * numbers(*SHAPE, seed=9)
    prior = Truths(cond=truth, uncond=truth, negative=truth)
    latents, noise = numbers(*SHAPE, seed=4), numbers(*SHAPE, seed=5)
    assert float(gradient_at(NFSD(), prior, latents, noise, 500).abs().max()) < 1e-12
    # Low noise alone pulls to the truth; the drawn noise, which stays in, averages out.
    low = NFSD(guidance_scale=7.5, low_noise=1.0, weighting="uniform")
    assert float((followed(low, prior, steps=600, rate=0.02) - truth).square().mean().sqrt()) < 0.15


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"guidance_scale": -1.0}, "nfsd guidance_scale"), ({"low_noise": 1.5}, "nfsd low_noise")],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NFSD(**settings)  # type: ignore[arg-type]


def test_it_asks_for_a_negative_prompt_where_that_counts() -> None:
    assert NFSD().wants() == {"negative"}
    assert NFSD(low_noise=1.0).wants() == NFSD(low_noise=1.0).heeds() == frozenset()
