"""Score-distillation losses: identities between them, golden numbers, and what a perfect prior does to pictures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion import guidance
from diffusion.schedule import Schedule
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.annealing import AnnealingConfig
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.inject import clip_gradient, inject
from gen3d.distillation.sds import SDS
from gen3d.distillation.sjc import SJC
from gen3d.distillation.weighting import weight
from gen3d.distillation.x0 import X0
from gen3d.priors.base import ScoringPrior


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def schedule(prediction_type: str = "epsilon") -> Schedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return Schedule.from_alphas_cumprod((1 - betas).cumprod(0), prediction_type)


class Known(ScoringPrior):
    """A prior that predicts what it was told; counts its passes."""

    num_views, image_size = 3, 4

    def __init__(self, prediction_type: str = "epsilon", **predictions: Tensor) -> None:
        self.schedule, self.predictions = schedule(prediction_type), predictions
        self.passes: list[tuple[str, ...]] = []

    def sample(self, cameras: Cameras, generator: torch.Generator, **_: object) -> Tensor:
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        self.passes.append(tuple(which))
        return torch.stack([self.predictions[name] for name in which])


SHAPE, CAMERAS = (2, 3, 4, 4, 4), orbit(torch.arange(6) * 60.0, 10.0)


def scores_of(prior: Known, latents: Tensor, noise: Tensor, loss: Loss | None = None) -> Scores:
    t = torch.tensor([200, 700])
    together = () if loss is None else loss.conditions(prior, CAMERAS)
    noisy = prior.schedule.add_noise(latents, noise, t)
    return Scores(prior=prior, noisy=noisy, timestep=t, cameras=CAMERAS, together=together)


def gradient_of(loss: Loss, prior: Known, latents: Tensor, noise: Tensor) -> Tensor:
    scores = scores_of(prior, latents, noise, loss)
    return loss(scores, latents, noise, {}, torch.Generator())


def random_prior(prediction_type: str = "epsilon") -> tuple[Known, Tensor, Tensor]:
    prior = Known(prediction_type, cond=normal(*SHAPE, seed=2), uncond=normal(*SHAPE, seed=3))
    return prior, normal(*SHAPE), normal(*SHAPE, seed=1)


def test_injected_gradient_is_the_gradient_over_the_batch() -> None:
    latents = normal(3, 4, 2, 2).requires_grad_(True)
    gradient = normal(3, 4, 2, 2, seed=1)
    loss = inject(latents, gradient)
    loss.backward()
    torch.testing.assert_close(latents.grad, gradient / 3)
    assert float(loss.detach()) == pytest.approx(float(0.5 * gradient.square().sum() / 3), rel=1e-5)
    with pytest.raises(ValueError, match="shape"):
        inject(latents, gradient[:2])


def test_weightings_golden() -> None:
    alpha, sigma = torch.tensor([0.8, 0.6]), torch.tensor([0.6, 0.8])
    assert weight(alpha, sigma, "sds").tolist() == pytest.approx([0.36, 0.64])
    assert weight(alpha, sigma, "uniform").tolist() == [1.0, 1.0]
    assert weight(alpha, sigma, "fantasia3d").tolist() == pytest.approx([0.288, 0.384])
    with pytest.raises(ValueError, match="fantasia3d"):
        weight(alpha, sigma, "other")  # type: ignore[arg-type]


def test_sds_is_the_weighted_difference_of_the_noises() -> None:
    prior, latents, noise = random_prior()
    cond, uncond = prior.predictions["cond"], prior.predictions["uncond"]
    sigma = prior.schedule.sigma(torch.tensor([200, 700])).view(2, 1, 1, 1, 1)
    expected = sigma.square() * (uncond + 7.5 * (cond - uncond) - noise)
    torch.testing.assert_close(gradient_of(SDS(guidance_scale=7.5), prior, latents, noise), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_sjc_with_variance_reduction_is_sds_without_weight(prediction_type: str) -> None:
    prior, latents, noise = (
        part.double() if isinstance(part, Tensor) else part for part in random_prior(prediction_type)
    )
    assert isinstance(prior, Known)
    prior.predictions = {name: value.double() for name, value in prior.predictions.items()}
    by_sjc = gradient_of(SJC(guidance_scale=20.0), prior, latents, noise)
    by_sds = gradient_of(SDS(guidance_scale=20.0, weighting="uniform"), prior, latents, noise)
    torch.testing.assert_close(by_sjc, by_sds, rtol=1e-6, atol=1e-9)
    # Without it, the drawn noise stays in: the estimate is compared with the noisy latents.
    plain = gradient_of(SJC(guidance_scale=20.0, variance_reduction=False), prior, latents, noise)
    torch.testing.assert_close(plain, by_sds + noise, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_x0_without_rescale_is_sds_weighted_by_sigma_over_alpha(prediction_type: str) -> None:
    prior, latents, noise = (
        part.double() if isinstance(part, Tensor) else part for part in random_prior(prediction_type)
    )
    assert isinstance(prior, Known)
    if prediction_type == "flow":
        prior.schedule = Schedule.flow()
    prior.predictions = {name: value.double() for name, value in prior.predictions.items()}
    by_x0 = gradient_of(X0(guidance_scale=5.0, rescale=0.0), prior, latents, noise)
    by_sds = gradient_of(SDS(guidance_scale=5.0, weighting="uniform"), prior, latents, noise)
    scores = scores_of(prior, latents, noise)
    torch.testing.assert_close(by_x0, by_sds * scores.sigma() / scores.alpha(), rtol=1e-6, atol=1e-9)


def test_rescale_gives_the_contrast_of_the_unguided_estimate() -> None:
    prior, latents, noise = random_prior()
    scores = scores_of(prior, latents, noise)
    plain, full, half = (scores.guided_x0(30.0, share) for share in (0.0, 1.0, 0.5))
    axes = (1, 2, 3, 4)
    torch.testing.assert_close(full.std(dim=axes), scores.x0("cond").std(dim=axes))
    torch.testing.assert_close(half, 0.5 * (full + plain))
    torch.testing.assert_close(full, guidance.rescale(plain, scores.x0("cond"), 1.0))
    with pytest.raises(ValueError, match="rescale"):
        X0(rescale=1.5)


def test_scores_predict_each_condition_once_and_together() -> None:
    prior, latents, noise = random_prior()
    loss = X0()
    scores = scores_of(prior, latents, noise, loss)
    loss(scores, latents, noise, {}, torch.Generator())
    scores.eps("cond")
    scores.guided_eps(3.0)
    assert prior.passes == [("uncond", "cond")]
    scores_of(prior, latents, noise).guided_eps(1.0)
    assert prior.passes[1:] == [("cond",)], "no guidance asks for no unconditional prediction"


def test_pictures_follow_a_prior_that_knows_them() -> None:
    """Every loss, from noise to the truth: the predictions are those of a model that has seen one picture alone."""

    class Truth(Known):
        def predict(
            self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]
        ) -> Tensor:
            x0 = self.predictions["truth"].expand_as(latents)
            return torch.stack([self.schedule.from_x0(x0, latents, timestep)] * len(which))

    truth = 0.5 * normal(1, 3, 4, 4, 4, seed=9)
    prior = Truth("v_prediction", truth=truth)
    for loss in (SDS(weighting="uniform"), X0(rescale=0.0), SJC()):
        latents, generator = normal(1, 3, 4, 4, 4), torch.Generator().manual_seed(0)
        for _ in range(200):
            t = torch.randint(100, 900, (1,), generator=generator)
            noise = torch.randn(latents.shape, generator=generator)
            scores = Scores(
                prior=prior,
                noisy=prior.schedule.add_noise(latents, noise, t),
                timestep=t,
                cameras=CAMERAS[:3],
                together=loss.conditions(prior, CAMERAS[:3]),
            )
            latents = latents - 0.05 * clip_gradient(loss(scores, latents, noise, {}, generator), 1.0)
        assert float((latents - truth).abs().max()) < 0.05, loss


def test_clip_gradient_limits_the_rms_of_each_item() -> None:
    gradient = torch.cat([torch.full((1, 4), 10.0), torch.full((1, 4), 0.1)])
    clipped = clip_gradient(gradient, 1.0)
    assert clipped[0].tolist() == pytest.approx([1.0] * 4)
    assert torch.equal(clipped[1], gradient[1])


def test_annealing_follows_its_points() -> None:
    linear = AnnealingConfig(low=((0.0, 0.98), (0.5, 0.02)), high=((0.0, 0.98), (0.5, 0.5)))
    assert linear.range(0.0) == pytest.approx((0.98, 0.98))
    assert linear.range(0.25) == pytest.approx((0.5, 0.74))
    assert linear.range(0.99) == pytest.approx((0.02, 0.5))
    assert AnnealingConfig(low=0.02, high=0.98).range(0.7) == (0.02, 0.98)
    hifa = AnnealingConfig(mode="hifa", low=0.02, high=0.98)
    assert hifa.range(0.25) == pytest.approx((0.98 - 0.96 * 0.5,) * 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"low": 1.2},
        {"low": ((0.0, 0.9),), "high": 0.5},
        {"high": ((0.5, 0.5), (0.2, 0.4))},
        {"low": ()},
    ],
)
def test_annealing_checks(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="annealing"):
        AnnealingConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: SDS(guidance_scale=-1.0), "sds guidance_scale"),
        (lambda: SJC(guidance_scale=1e9), "sjc guidance_scale"),
        (lambda: X0(guidance_scale=1e9), "x0 guidance_scale"),
    ],
)
def test_bad_settings_are_named(build, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build()
