"""VSD: its gradient, what its LoRA learns, and a run that is killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor

from diffusion.adapters.lora import LowRank
from diffusion.backbone import load
from gen3d.camera_sampling.orbit import Orbit
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Scores
from gen3d.distillation.vsd import VSD
from gen3d.optimize import optimize
from gen3d.priors.base import PriorConfig, Request
from gen3d.priors.config import TextPriorConfig
from gen3d.priors.text import TextPrior, TunedText
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import DistillConfig
from gen3d.state import State
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers
from tests.gen3d.test_distillation import Known


class Tunable(Small):
    """The small UNet with a LoRA on it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = LowRank(self.denoiser.unet, rank=2, multiview=False)

    def tuned(self, rank: int) -> TunedText:
        return TunedText(self.model, self.words["cond"])


class Moved(Tunable):
    """Whose LoRA has learnt something: every number of it is drawn."""

    def tuned(self, rank: int) -> TunedText:
        class Begun(TunedText):
            def begin(self, generator: torch.Generator) -> Tensor:
                return 0.1 * numbers(self.model.num_weights, seed=5)

        return Begun(self.model, self.words["cond"])


@pytest.fixture(scope="module")
def prior() -> Tunable:
    return Tunable()


def scores_of(prior: Small, latents: Tensor, noise: Tensor) -> Scores:
    t, cameras = torch.tensor([200, 700]), orbit([0.0, 90.0], 0.0)
    noisy = prior.schedule.add_noise(latents, noise, t)
    return Scores(prior=prior, noisy=noisy, timestep=t, cameras=cameras, together=("uncond", "cond"))


def test_before_it_has_learnt_the_gradient_is_that_of_guidance(prior: Tunable) -> None:
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise)
    expected = scores.sigma() ** 2 * 6.5 * (scores.eps("cond") - scores.eps("uncond"))
    torch.testing.assert_close(gradient_of(VSD(rank=2), prior), expected, rtol=1e-6, atol=1e-9)


def test_gradients_are_as_they_were() -> None:
    golden = (0.00252226118, 0.0282364072, 0.0440808856)
    assert golden_of(gradient_of(VSD(rank=2), Moved())) == pytest.approx(golden, rel=1e-6)


def test_what_it_learns_by_has_the_gradient_of_finite_differences() -> None:
    prior, loss = Moved(), VSD(rank=2)
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    scores = scores_of(prior, latents, noise)

    def at(weights: Tensor) -> Tensor:
        return loss.training_loss(scores, latents, {"lora": weights}, torch.Generator().manual_seed(3))

    weights = prior.tuned(2).begin(torch.Generator()).requires_grad_(True)
    at(weights).backward()
    assert weights.grad is not None
    direction = numbers(len(weights), seed=4)
    direction /= direction.norm()
    with torch.no_grad():
        moved = (at(weights + 1e-4 * direction) - at(weights - 1e-4 * direction)) / 2e-4
    assert float(weights.grad @ direction) == pytest.approx(float(moved), rel=1e-5)


def test_it_learns_the_pictures_there_are() -> None:
    """After some steps the LoRA predicts the noise in these pictures better than the prior, which expects others."""
    prior = TextPrior(TextPriorConfig(), Request(backbone=load("tiny"), prompt="a red mushroom"))
    loss, cameras = VSD(), orbit(torch.arange(4) * 90.0, 10.0)
    color = torch.tensor([0.1, 0.9, 0.3]).view(1, 1, 3, 1, 1)
    latents = prior.encode(color.expand(1, 4, 3, prior.image_size, prior.image_size)[..., :64, :64])
    scores = Scores(prior=prior, noisy=latents, timestep=torch.tensor([0]), cameras=cameras)
    weights = prior.tuned(4).begin(torch.Generator().manual_seed(0)).requires_grad_(True)

    def error(seed: int) -> Tensor:
        return loss.training_loss(scores, latents, {"lora": weights}, torch.Generator().manual_seed(seed))

    def errors() -> float:
        with torch.no_grad():
            return sum(float(error(seed)) for seed in range(100, 106))

    before, learner = errors(), torch.optim.Adam([weights], lr=0.01)
    for seed in range(15):
        learner.zero_grad()
        error(seed).backward()
        learner.step()
    assert errors() < 0.8 * before


def test_cameras_are_left_out_for_some(prior: Tunable) -> None:
    seen: list[Tensor] = []

    class Watched(TunedText):
        def predict(self, *given: object) -> Tensor:
            seen.append(given[4])  # type: ignore[arg-type]
            return super().predict(*given)  # type: ignore[arg-type]

    class Watching(Tunable):
        def tuned(self, rank: int) -> TunedText:
            return Watched(self.model, self.words["cond"])

    watching = Watching()
    latents = numbers(2, 1, 4, 8, 8, seed=7)
    scores = scores_of(watching, latents, latents)
    weights = {"lora": prior.tuned(2).begin(torch.Generator())}
    for share, expected in ((0.0, True), (1.0, False)):
        with torch.no_grad():
            VSD(rank=2, camera_dropout=share).training_loss(scores, latents, weights, torch.Generator())
        assert seen[-1].tolist() == [expected] * 2
    moved = 0.1 * numbers(prior.model.num_weights, seed=5)
    made = [
        prior.tuned(2).predict(
            moved, latents, torch.tensor([200, 700]), scores.cameras, torch.tensor([known] * 2)
        )
        for known in (True, False)
    ]
    assert float((made[0] - made[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "settings", [{"guidance_scale": -1.0}, {"rank": 0}, {"lora_rate": 0.0}, {"camera_dropout": 1.5}]
)
def test_bad_settings_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"vsd {next(iter(settings))}"):
        VSD(**settings)  # type: ignore[arg-type]


def test_a_prior_that_cannot_learn_is_refused_before_any_work() -> None:
    class Fixed(Known):
        def predict(
            self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]
        ) -> Tensor:
            raise AssertionError

    with pytest.raises(ValueError, match="a Fixed has no model that could learn"):
        VSD().check(Fixed())

    @dataclass(frozen=True, kw_only=True)
    class Settings(PriorConfig):
        name: Literal["fixed"] = "fixed"

        def build(self, request: Request) -> Fixed:
            return Fixed()

    chosen = Chosen(prior=Settings(), representation=VolumeConfig(), distillation=VSD())
    with pytest.raises(
        ValueError, match="'vsd' trains a copy of the prior's model, and prior 'fixed' has none"
    ):
        DistillConfig().check(chosen)


def test_a_killed_run_goes_on_bit_for_bit_with_its_lora() -> None:
    backbone = load("tiny")
    chosen = Chosen(
        prior=TextPriorConfig(),
        representation=VolumeConfig(resolutions=(8,), num_samples=8),
        distillation=VSD(),
    )
    given = Given(chosen=chosen, request=Request(backbone=backbone, prompt="a red mushroom"))
    config = DistillConfig(num_steps=3, num_views=4, render_size=(16,), cameras=Orbit())
    saves: list[tuple[dict[str, Tensor], dict[str, str]]] = []

    def run(**extra: object) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return optimize([config.build(given)], State(), generator=generator, **extra).tensors()  # type: ignore[arg-type]

    final = run(checkpoint_every=1, save=lambda step, tensors, about: saves.append((tensors, about)))
    first = saves[0][0]["distillation/guidance/lora"]
    assert "adam/distillation/guidance/lora/exp_avg" in saves[0][0]
    assert not torch.equal(first, final["distillation/guidance/lora"])
    for saved in saves[:-1]:
        again = run(resume=saved)
        assert again.keys() == final.keys()
        assert all(torch.equal(again[name], final[name]) for name in final)


def test_a_text_prior_tells_its_lora_no_view() -> None:
    prior = TextPrior(TextPriorConfig(joint_views=1), Request(backbone=load("tiny"), prompt="a red mushroom"))
    assert prior.tuned(2) is prior.tuned(2)
    assert torch.equal(prior.tuned(2).words.embeds, prior._encode(prior.prompt).embeds)
