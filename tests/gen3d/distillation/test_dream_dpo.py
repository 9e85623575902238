"""DreamDPO: towards the better of two noises, away from the other."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.dream_dpo import DreamDPO
from gen3d.distillation.sds import SDS
from gen3d.distillation.wrapper import tried, unguided
from gen3d.distillation.x0 import X0
from tests.gen3d.distillation.test_reward_sds import Bright, scores_of
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(("sign", "min_gap"), [(1.0, 0.0), (-1.0, 0.0), (1.0, 100.0)])
def test_it_is_the_equation_worked_by_hand(sign: float, min_gap: float, prior: Small) -> None:
    loss = DreamDPO(loss=SDS(guidance_scale=7.5), reward=Bright(sign=sign), min_gap=min_gap)
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise, loss)
    found = loss(scores, latents, noise, {}, torch.Generator().manual_seed(3))
    trials = tried(scores, latents, noise, 2, torch.Generator().manual_seed(3))
    rewards = torch.stack([sign * there.guided_x0(7.5)[:, :, 0].flatten(1).mean(1) for there, _ in trials])
    weight = scores.sigma() ** 2
    for item in range(2):
        win = int(rewards[:, item].argmax())
        (won, won_noise), (lost, lost_noise) = trials[win], trials[1 - win]
        expected = (won.guided_eps(7.5) - won_noise)[item]
        if min_gap == 0.0:
            expected = expected - (lost.eps("cond") - lost_noise)[item]
        torch.testing.assert_close(found[item], weight[item] * expected, rtol=1e-6, atol=1e-9)


def test_gradients_are_as_they_were(prior: Small) -> None:
    loss = DreamDPO(loss=SDS(guidance_scale=7.5), reward=Bright())
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(
        (-0.00359765535, 0.965011886, 2.26379527), rel=1e-6
    )


def test_it_asks_four_times() -> None:
    counting = Small()
    gradient_of(DreamDPO(loss=X0(), reward=Bright()), counting)
    assert counting.passes == [("uncond", "cond")] * 2


def test_the_loser_has_no_guidance() -> None:
    assert unguided(X0(guidance_scale=5.0, rescale=0.25)) == X0(guidance_scale=1.0, rescale=0.25)
    inner = DreamDPO(loss=X0(), reward=Bright())
    assert unguided(inner) is inner


@pytest.mark.parametrize("settings", [{"min_gap": -1.0}, {"sampling_scale": 1e9}])
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"dream_dpo (min_gap|sampling)"):
        DreamDPO(loss=X0(), reward=Bright(), **settings)
