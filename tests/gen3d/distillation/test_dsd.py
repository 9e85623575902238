"""Diverse score distillation."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.dsd import DSD
from tests.gen3d.known_priors import FLOW, SHAPE, Truths, followed, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden", "evaluations"),
    [
        (DSD(guidance_scale=7.5), (0.00172266336, 0.0545279943, 0.0618531889), 21),
        (
            DSD(guidance_scale=7.5, second_scale=2.0, num_steps=3),
            (0.000401861671, 0.0473243334, 0.043047873),
            12,
        ),
    ],
)
def test_gradients_are_as_they_were(
    loss: Loss, golden: tuple[float, float, float], evaluations: int, prior: Small
) -> None:
    prior.passes.clear()
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)
    assert sum(len(each) for each in prior.passes) == evaluations
    assert all(set(each) in ({"uncond", "cond"}, {"cond"}) for each in prior.passes)


def test_where_the_times_meet_it_is_guidance_alone() -> None:
    """At the noise that the path has found, SDS's guidance; 0 where both are guided alike."""
    cond, uncond = numbers(*SHAPE, seed=1), numbers(*SHAPE, seed=2)
    latents, unused = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4)
    for schedule in (None, FLOW):
        prior = Truths("v_prediction", cond=cond, uncond=uncond)
        if schedule is not None:
            prior.schedule = schedule
        gradient = gradient_at(
            DSD(guidance_scale=7.5, plus=0.0, weighting="uniform"), prior, latents, unused, 600
        )
        csd = CSD(negative=0.0, uncond=-1.0, normalize=False)
        torch.testing.assert_close(gradient, 6.5 * gradient_at(csd, prior, latents, unused, 600))
        same = DSD(guidance_scale=7.5, plus=0.0, second_scale=7.5)
        assert float(gradient_at(same, prior, latents, unused, 600).abs().max()) < 1e-9


def test_its_noise_is_what_the_path_of_the_run_has_found() -> None:
    """A known picture's path from pure noise keeps its noise, and latents of that picture then have no gradient."""
    truth = numbers(*SHAPE, seed=1)
    prior = Truths("flow", cond=truth, uncond=truth)
    prior.schedule = FLOW
    loss = DSD(guidance_scale=7.5, plus=0.5)
    assert float(gradient_at(loss, prior, truth, truth, 600).abs().max()) < 1e-9
    assert float(gradient_at(loss, prior, truth + 0.1, truth, 600).abs().max()) > 1e-3


def test_pictures_follow_a_prior_that_knows_them() -> None:
    truth = 0.5 * numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    ended = followed(DSD(guidance_scale=7.5, plus=0.5, weighting="uniform", num_steps=3), prior, steps=800)
    assert float((ended - truth).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "dsd guidance_scale"),
        ({"second_scale": -1.0}, "dsd second_scale"),
        ({"plus": 2.0}, "dsd plus"),
        ({"num_steps": 0}, "dsd num_steps"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DSD(**settings)  # type: ignore[arg-type]
