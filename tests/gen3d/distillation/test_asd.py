"""Asynchronous score distillation."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.asd import ASD
from gen3d.distillation.csd import CSD
from gen3d.distillation.two_times import later, shares
from tests.gen3d.known_priors import SHAPE, Truths, followed, gradient_at, scores_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


def test_golden_and_passes(prior: Small) -> None:
    prior.passes.clear()
    golden = (-0.000520647979, 0.0278252932, 0.046202393)
    assert golden_of(gradient_of(ASD(guidance_scale=7.5), prior)) == pytest.approx(golden, rel=1e-6)
    assert sorted(prior.passes) == [("cond",), ("uncond", "cond")]


def test_at_one_time_it_is_the_guidance_of_sds(prior: Small) -> None:
    csd = gradient_of(CSD(negative=0.0, uncond=-1.0, weighting="sds", normalize=False), prior)
    torch.testing.assert_close(
        gradient_of(ASD(guidance_scale=7.5, plus=0.0), prior), 6.5 * csd, rtol=1e-6, atol=1e-10
    )


def test_by_hand() -> None:
    prior = Truths(cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    latents, noise = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4)
    loss = ASD(guidance_scale=4.0, plus=0.5, weighting="uniform")
    gradient = gradient_at(loss, prior, latents, noise, 600, lowest=100)
    u = torch.rand(1, generator=torch.Generator().manual_seed(11))
    t_plus = torch.tensor([600 + int(0.5 * 500 * u)])
    assert int(t_plus) > 610
    scores = scores_at(prior, loss, latents, noise, 600)
    other = scores_at(prior, loss, latents, noise, t_plus)
    torch.testing.assert_close(gradient, scores.guided_eps(4.0) - other.eps("cond"))


def test_times_stay_within_the_schedule() -> None:
    prior = Truths(cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    scores = scores_at(prior, ASD(), numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 990, lowest=0)
    assert later(scores, 99.7).tolist() == [999]
    assert later(scores, -1000.0).tolist() == [0]
    assert 0.0 <= float(shares(scores, torch.Generator())) < 1.0
    # A timestep below the lowest is no way down.
    gradient = gradient_at(
        ASD(plus=1.0), prior, numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 50, lowest=200
    )
    torch.testing.assert_close(
        gradient,
        gradient_at(ASD(plus=0.0), prior, numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 50),
    )


def test_pictures_follow_a_prior_that_knows_them() -> None:
    truth = 0.5 * numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    ended = followed(ASD(plus=0.5, weighting="uniform"), prior, steps=800)
    assert float((ended - truth).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "named"), [({"guidance_scale": -1.0}, "asd guidance_scale"), ({"plus": 1.5}, "asd plus")]
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ASD(**settings)  # type: ignore[arg-type]
