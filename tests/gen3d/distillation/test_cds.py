"""Consistency distillation sampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d.distillation.base import Loss
from gen3d.distillation.cds import CDS
from tests.gen3d.known_priors import SHAPE, Normals, Truths, gradient_at, scores_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (CDS(guidance_scale=7.5), (0.0149076008, 0.0409232915, 0.0202728023)),
        (
            CDS(guidance_scale=((0.0, 10.0), (1.0, 2.0)), gap=(0.05, 0.05)),
            (0.00524170674, 0.0150892405, 0.0108645187),
        ),
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    prior.passes.clear()
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)
    assert prior.passes == [("uncond", "cond")] * 2


def test_where_the_times_meet_it_is_zero(prior: Small) -> None:
    assert float(gradient_of(CDS(gap=(0.0, 0.0)), prior).abs().max()) < 1e-12


def test_by_hand_in_variance_exploding_coordinates() -> None:
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    loss = CDS(guidance_scale=3.0, gap=(0.2, 0.2))
    latents, unused = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4)
    memory: dict[str, Tensor] = {}
    loss.start(memory, prior, SHAPE[1:], torch.Generator().manual_seed(11))
    fixed = memory["noise"].double()

    def eps(x: Tensor, t: int) -> Tensor:
        level, at = x.new_tensor(0.0), torch.tensor([t])
        level = prior.schedule.sigma(at, x) / prior.schedule.alpha(at, x)
        scores = scores_at(prior, loss, latents, unused, at).at(x / (1 + level**2).sqrt(), at)
        return scores.guided_eps(3.0)

    s, t = (prior.schedule.sigma(each, latents) / prior.schedule.alpha(each, latents) for each in (500, 700))
    x = latents + t * fixed
    expected = eps(x, 700) - eps(x + (s - t) * eps(x, 700), 500)
    torch.testing.assert_close(gradient_at(loss, prior, latents, unused, 500), expected, rtol=1e-6, atol=1e-9)


def test_the_noise_is_that_of_the_run() -> None:
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    loss, memory = CDS(gap=(0.2, 0.2)), dict[str, Tensor]()
    loss.start(memory, prior, SHAPE[1:], torch.Generator().manual_seed(3))
    latents = numbers(*SHAPE, seed=3)
    first, second = (
        loss(
            scores_at(prior, loss, latents, numbers(*SHAPE, seed=seed), 500),
            latents,
            numbers(*SHAPE, seed=seed),
            memory,
            torch.Generator().manual_seed(seed),
        )
        for seed in (5, 6)
    )
    assert torch.equal(first, second)
    loss.start(memory, prior, SHAPE[1:], torch.Generator().manual_seed(4))
    other = loss(scores_at(prior, loss, latents, latents, 500), latents, latents, memory, torch.Generator())
    assert not torch.equal(first, other)


def test_straight_paths_leave_pictures_where_they_are() -> None:
    truth = numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    gradient = gradient_at(CDS(), prior, numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4), 300)
    assert float(gradient.abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "cds guidance_scale"),
        ({"gap": (0.1, 1.5)}, "cds gap"),
        ({"gap": (0.3, 0.1)}, "cds gap must be the least and the greatest"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CDS(**settings)  # type: ignore[arg-type]
