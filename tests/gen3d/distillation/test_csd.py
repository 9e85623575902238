"""Classifier score distillation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.sds import SDS
from tests.gen3d.known_priors import SHAPE, Normals, Truths, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (CSD(), (0.272147703, 1.0, 1.73905046)),
        (
            CSD(negative=-0.5, uncond=-0.5, weighting="sds", normalize=False),
            (0.000632239559, 0.00268157097, 0.00638706835),
        ),
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_it_is_the_guidance_of_sds(weighting: str, prior: Small) -> None:
    much, none = (gradient_of(SDS(guidance_scale=s, weighting=weighting), prior) for s in (7.5, 1.0))  # type: ignore[arg-type]
    loss = CSD(negative=0.0, uncond=-1.0, weighting=weighting, normalize=False)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient_of(loss, prior), (much - none) / 6.5, rtol=1e-6, atol=1e-10)


def test_it_is_the_gradient_of_a_classifier() -> None:
    """-log p(prompt | noisy latents), by Bayes' rule, times sigma / alpha."""
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    loss = CSD(negative=0.0, uncond=-1.0, normalize=False)
    latents, noise, t = numbers(*SHAPE, seed=6), numbers(*SHAPE, seed=7), torch.tensor([400])
    alpha, sigma = prior.schedule.alpha(t, latents), prior.schedule.sigma(t, latents)
    gradient = gradient_at(loss, prior, latents, noise, t) * alpha / sigma

    def value(latents: Tensor) -> float:
        noisy = alpha * latents + sigma * noise
        return float(prior.log_density("uncond", noisy, t) - prior.log_density("cond", noisy, t))

    for index in ((0, 0, 0, 0, 0), (0, 1, 2, 3, 1)):
        step = torch.zeros_like(latents)
        step[index] = 1e-4
        slope = (value(latents + step) - value(latents - step)) / 2e-4
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-6)


def test_it_leads_from_no_words_to_the_prompt_and_never_stops() -> None:
    cond, uncond = numbers(*SHAPE, seed=2), numbers(*SHAPE, seed=3)
    prior = Truths(cond=cond, uncond=uncond)
    loss = CSD(negative=0.0, uncond=-1.0)
    way = (uncond - cond) / (uncond - cond).square().mean().sqrt()
    for latents in (numbers(*SHAPE, seed=4), cond, 100.0 * cond):
        gradient = gradient_at(loss, prior, latents, numbers(*SHAPE, seed=5), 300)
        torch.testing.assert_close(gradient, way, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"negative": 1.0}, "csd negative"),
        ({"uncond": ((0.0, -200.0),)}, "csd uncond"),
        ({"negative": 0.0, "uncond": 0.0}, "both 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CSD(**settings)  # type: ignore[arg-type]
