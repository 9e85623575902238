"""Rewards over any loss: which noises count, what is asked of the prior, and tiny's CLIP as a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from diffusion.backbone import load
from experiments.benchmark.truth import TrueViews
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.cds import CDS
from gen3d.distillation.cfd import CFD
from gen3d.distillation.dream_dpo import DreamDPO
from gen3d.distillation.dsd import DSD
from gen3d.distillation.reward_sds import RewardSDS
from gen3d.distillation.sdi import SDI
from gen3d.distillation.sds import SDS
from gen3d.distillation.vsd import VSD
from gen3d.distillation.wrapper import denoised, tried
from gen3d.distillation.x0 import X0
from gen3d.priors.base import Request, ScoringPrior
from gen3d.priors.config import TextPriorConfig
from gen3d.priors.text import TextPrior
from gen3d.rewards.base import Reward
from gen3d.rewards.clip import Clip
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@dataclass(frozen=True, kw_only=True)
class Bright(Reward):
    """Prefers pictures whose first channel is bright."""

    name: Literal["bright"] = "bright"
    sign: float = 1.0

    def score(self, images: Tensor, prior: ScoringPrior) -> Tensor:
        return self.sign * images[:, :, 0].flatten(1).mean(1)


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


def scores_of(prior: Small, latents: Tensor, noise: Tensor, loss: Loss) -> Scores:
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    return Scores(
        prior=prior,
        noisy=prior.schedule.add_noise(latents, noise, t),
        timestep=t,
        cameras=cameras,
        together=loss.conditions(prior, cameras),
    )


def test_shares_of_the_best_and_the_worst_of_each_object() -> None:
    loss = RewardSDS(loss=SDS(), reward=Bright(), num_noises=5, num_best=2)
    rewards = torch.tensor([[1.0, 5.0], [4.0, 4.0], [3.0, 3.0], [5.0, 1.0], [2.0, 2.0]])
    shares = loss.shares(rewards)
    expected = [[-0.05, 0.45], [0.45, 0.45], [0.0, 0.0], [0.45, -0.05], [-0.05, -0.05]]
    torch.testing.assert_close(shares, torch.tensor(expected))
    torch.testing.assert_close(loss.shares(rewards * 0.0).sum(0), torch.tensor([0.8, 0.8]))


@pytest.mark.parametrize("num_steps", [1, 3])
def test_it_is_the_sum_of_the_gradients_of_the_noises_by_hand(num_steps: int, prior: Small) -> None:
    inner = SDS(guidance_scale=7.5)
    loss = RewardSDS(
        loss=inner, reward=Bright(), num_noises=4, num_best=1, num_steps=num_steps, sampling_scale=2.0
    )
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise, loss)
    found = loss(scores, latents, noise, {}, torch.Generator().manual_seed(3))
    trials = tried(scores, latents, noise, 4, torch.Generator().manual_seed(3))
    gradients = torch.stack([inner(there, latents, each, {}, torch.Generator()) for there, each in trials])
    brightness = torch.stack(
        [denoised(there, 2.0, num_steps)[:, :, 0].flatten(1).mean(1) for there, _ in trials]
    )
    for item in range(2):
        best, worst = int(brightness[:, item].argmax()), int(brightness[:, item].argmin())
        expected = 0.9 * gradients[best, item] - 0.1 * gradients[worst, item]
        torch.testing.assert_close(found[item], expected, rtol=1e-6, atol=1e-9)


def test_denoising_of_a_prior_that_knows_the_truth_finds_it(prior: Small) -> None:
    truth = numbers(2, 1, 4, 8, 8, seed=20)

    class Knowing(Small):
        def predict(
            self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]
        ) -> Tensor:
            self.passes.append(tuple(which))
            return torch.stack([self.schedule.from_x0(truth, latents, timestep)] * len(which))

    knowing = Knowing()
    scores = scores_of(knowing, numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8), SDS())
    torch.testing.assert_close(denoised(scores, 7.5, 4), truth, rtol=1e-6, atol=1e-6)
    assert len(knowing.passes) == 4


def test_evaluations_of_a_step() -> None:
    loss = RewardSDS(loss=SDS(), reward=Bright(), num_noises=4, num_best=1, num_steps=3)
    counting = Small()
    gradient_of(loss, counting)
    assert counting.passes == [("uncond", "cond")] * 12, "the first step of each noise is the loss's own"
    counting.passes.clear()
    gradient_of(RewardSDS(loss=SDS(), reward=Bright(), until=0.2), counting)
    assert counting.passes == [("uncond", "cond")], "after its share of the steps the loss goes on alone"


def test_gradients_are_as_they_were(prior: Small) -> None:
    loss = RewardSDS(loss=SDS(guidance_scale=7.5), reward=Bright(), num_noises=4, num_steps=2)
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(
        (0.0541684816, 0.423931675, 0.849779818), rel=1e-6
    )


def test_a_wrapper_keeps_what_it_wraps() -> None:
    inner = VSD()
    loss = RewardSDS(loss=inner, reward=Bright())
    assert loss.wants() == inner.wants()
    assert loss.rates() == inner.rates()
    with pytest.raises(ValueError, match="no model that could learn"):
        DreamDPO(loss=inner, reward=Bright()).check(Small())


def test_the_clip_of_tiny_prefers_what_the_prompt_asks_for() -> None:
    prior = TextPrior(TextPriorConfig(), Request(backbone=load("tiny"), prompt="a red mushroom"))
    cameras = orbit(torch.arange(4) * 90.0, 15.0)
    shown = torch.stack(
        [TrueViews(f"{each}, on a light blue background", prior.image_size)(cameras) for each in
         ("a red mushroom", "a green mug", "a yellow duck")]
    )  # fmt: skip
    reward = Clip()
    reward.check(prior)
    scores = reward.score(shown, prior)
    assert scores.shape == (3,)
    assert int(scores.argmax()) == 0
    torch.testing.assert_close(reward.score(shown[1:2], prior), scores[1:2], rtol=1e-4, atol=1e-5)


def test_a_prior_without_a_prompt_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="reward 'clip' compares with a prompt, which a Small does not have"):
        RewardSDS(loss=X0(), reward=Clip()).check(Small())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_noises": 1}, "num_noises"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_best": 4}, "num_best must be at most half of the 6 noises, got 4"),
        ({"worst_weight": 2.0}, "worst_weight"),
        ({"until": 2.0}, "until"),
        ({"sampling_scale": -1.0}, "sampling_scale"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"reward_sds {named}"):
        RewardSDS(loss=X0(), reward=Bright(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrapper", [RewardSDS, DreamDPO])
@pytest.mark.parametrize("loss", [CFD(), CDS(), DSD(), SDI()])
def test_a_loss_with_a_noise_of_its_own_is_refused(wrapper: type, loss: Loss) -> None:
    with pytest.raises(ValueError, match=f"loss is {loss.name}, which has a noise of its own"):  # type: ignore[attr-defined]
        wrapper(loss=loss, reward=Clip())
