"""Interval score matching."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.ism import ISM
from tests.gen3d.known_priors import FLOW, SHAPE, Normals, Truths, gradient_at, scores_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden", "evaluations"),
    [
        (ISM(guidance_scale=7.5), (0.0144428389, 0.217689936, 0.114848632), 7),
        (ISM(guidance_scale=7.5, gap=0.3, stride=0.05), (0.0342530552, 0.230528323, 0.159493888), 11),
    ],
)
def test_gradients_are_as_they_were(
    loss: Loss, golden: tuple[float, float, float], evaluations: int, prior: Small
) -> None:
    prior.passes.clear()
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)
    assert sum(len(each) for each in prior.passes) == evaluations
    assert prior.passes[-1] == ("uncond", "cond")


def test_it_is_the_weighted_difference_of_noises_at_two_times() -> None:
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    latents, noise = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4)
    loss, schedule = ISM(guidance_scale=4.0, gap=0.1, stride=0.2), prior.schedule
    here = scores_at(prior, loss, latents, noise, 0)
    for there in (200, 400, 500):
        eps, t, to = here.eps("uncond"), here.timestep, torch.tensor([there])
        x0 = (here.noisy - schedule.sigma(t, eps) * eps) / schedule.alpha(t, eps)
        here = here.at(schedule.alpha(to, eps) * x0 + schedule.sigma(to, eps) * eps, to)
    t, eps = torch.tensor([600]), here.eps("uncond")
    x0 = (here.noisy - here.sigma() * eps) / here.alpha()
    there = here.at(schedule.alpha(t, eps) * x0 + schedule.sigma(t, eps) * eps, t)
    expected = there.sigma() / there.alpha() * (there.guided_eps(4.0) - eps)
    torch.testing.assert_close(gradient_at(loss, prior, latents, noise, 600), expected, rtol=1e-6, atol=1e-9)


def test_without_a_gap_it_is_guidance_at_the_inverted_latents() -> None:
    known = Truths(cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    latents, noise, t = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), torch.tensor([600])
    ratio = known.schedule.sigma(t, latents) / known.schedule.alpha(t, latents)
    csd = gradient_at(CSD(negative=0.0, uncond=-1.0, normalize=False), known, latents, noise, t)
    gradient = gradient_at(ISM(guidance_scale=7.5, gap=0.0), known, latents, noise, t)
    torch.testing.assert_close(gradient, 7.5 * ratio * csd, rtol=1e-6, atol=1e-9)
    # It goes there in proportion to the gap.
    smooth = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    none, small, large = (
        gradient_at(ISM(guidance_scale=7.5, gap=gap), smooth, latents, noise, t) for gap in (0.0, 0.002, 0.02)
    )
    assert float((small - none).abs().max()) < 0.15 * float((large - none).abs().max())


def test_it_is_finite_at_pure_noise() -> None:
    prior = Truths("flow", cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    prior.schedule = FLOW
    gradient = gradient_at(
        ISM(guidance_scale=7.5), prior, numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 999
    )
    way = 7.5 * (prior.predictions["uncond"] - prior.predictions["cond"])
    torch.testing.assert_close(gradient, way, rtol=1e-6, atol=1e-9)


def test_a_prior_that_knows_one_picture_leaves_all_where_they_are() -> None:
    truth = numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    gradient = gradient_at(
        ISM(guidance_scale=7.5), prior, numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 300
    )
    assert float(gradient.abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "ism guidance_scale"),
        ({"gap": 2.0}, "ism gap"),
        ({"stride": 0.0}, "ism stride"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ISM(**settings)  # type: ignore[arg-type]
