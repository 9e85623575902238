"""Score distillation via inversion."""

from __future__ import annotations

import pytest
import torch

from diffusion.schedule import Schedule
from gen3d.distillation.base import Loss
from gen3d.distillation.sdi import SDI, between
from gen3d.distillation.x0 import X0
from tests.gen3d.known_priors import FLOW, SHAPE, Truths, followed, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers
from tests.gen3d.test_distillation import schedule


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden", "evaluations"),
    [
        (SDI(guidance_scale=7.5), (0.0873746742, 0.732802923, 1.32850744), 16),
        (
            SDI(guidance_scale=7.5, eta=0.0, num_steps=4, inversion_scale=1.0),
            (0.0336870407, 0.201964044, 0.119792929),
            8,
        ),
    ],
)
def test_gradients_are_as_they_were(
    loss: Loss, golden: tuple[float, float, float], evaluations: int, prior: Small
) -> None:
    prior.passes.clear()
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)
    assert sum(len(each) for each in prior.passes) == evaluations


def test_it_is_the_x0_loss_at_the_noise_that_it_finds() -> None:
    """A known picture's inversion finds the noise that the latents are that picture with."""
    prior = Truths("v_prediction", cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    latents = numbers(*SHAPE, seed=3)
    loss, by_x0 = SDI(eta=0.0, guidance_scale=5.0), X0(guidance_scale=5.0, rescale=0.0)
    # What the drawn noise is has no part in it, and a known picture's estimate none in the noise.
    first, second = (gradient_at(loss, prior, latents, numbers(*SHAPE, seed=s), 500) for s in (4, 5))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, gradient_at(by_x0, prior, latents, numbers(*SHAPE, seed=4), 500))


@pytest.mark.parametrize("flow", [False, True])
def test_at_every_timestep_it_is_finite(flow: bool) -> None:
    prior = Truths("v_prediction", cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    zero = torch.linspace(0.999, 0.0, 1000, dtype=torch.float64)
    prior.schedule = FLOW if flow else Schedule.from_alphas_cumprod(zero, "v_prediction")
    latents = numbers(2, *SHAPE[1:], seed=3)
    end = prior.schedule.num_timesteps - 1
    for t in ([0, 0], [0, end], [950, 1], [end, end]):
        gradient = gradient_at(SDI(guidance_scale=7.5), prior, latents, latents, torch.tensor(t))
        assert bool(gradient.isfinite().all()), t


def test_noise_between_two_levels_is_ddpms() -> None:
    made, like = schedule(), numbers(1, 2, seed=0)
    low, high = torch.tensor([300]), torch.tensor([400])
    cumprod = made.alphas.square()
    variance = (1 - cumprod[300]) / (1 - cumprod[400]) * (1 - cumprod[400] / cumprod[300])
    assert float(between(made, low, high, like)) == pytest.approx(float(variance.sqrt()), rel=1e-9)
    assert float(between(made, high, high, like)) == 0.0
    prior = Truths("v_prediction", cond=numbers(*SHAPE, seed=1), uncond=numbers(*SHAPE, seed=2))
    assert prior.schedule.num_timesteps == made.num_timesteps


def test_pictures_follow_a_prior_that_knows_them() -> None:
    truth = 0.5 * numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    assert float((followed(SDI(guidance_scale=7.5, num_steps=3), prior) - truth).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "sdi guidance_scale"),
        ({"inversion_scale": 1e9}, "sdi inversion_scale"),
        ({"num_steps": 0}, "sdi num_steps"),
        ({"eta": 2.0}, "sdi eta"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SDI(**settings)  # type: ignore[arg-type]
