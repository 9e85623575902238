"""The linear form, and the losses that are choices of its coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.linear import Linear, unit
from gen3d.distillation.nfsd import NFSD
from gen3d.distillation.sds import SDS
from gen3d.distillation.sds_bridge import SDSBridge
from tests.gen3d.known_priors import SHAPE, Normals, Truths, followed, gradient_at, scores_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers

MIXED = Linear(
    cond=1.0,
    negative=((0.0, 0.0), (0.5, -1.0)),
    uncond=0.25,
    noise=-0.5,
    weighting="fantasia3d",
    normalize=True,
)


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (Linear(), (0.0876097796, 0.707496961, 1.35615519)),
        (MIXED, (0.208644783, 1.0, 1.47766202)),
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (SDS(guidance_scale=5.0), Linear()),
        (SDS(guidance_scale=1.0), Linear(cond=1.0, uncond=0.0)),
        (
            CSD(normalize=False),
            Linear(
                cond=1.0,
                negative=((0.0, 0.0), (0.5, -1.0)),
                uncond=((0.0, -1.0), (0.5, 0.0)),
                noise=0.0,
                weighting="uniform",
            ),
        ),
        (NFSD(guidance_scale=7.5, low_noise=0.0), Linear(cond=7.5, uncond=-6.5, negative=-1.0, noise=0.0)),
        (NFSD(guidance_scale=7.5, low_noise=1.0), Linear(cond=7.5, uncond=-6.5, noise=0.0)),
    ],
)
def test_sds_csd_and_nfsd_are_choices_of_it(loss: Loss, same: Linear, prior: Small) -> None:
    torch.testing.assert_close(gradient_of(loss, prior), gradient_of(same, prior), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "passes"),
    [
        (Linear(), [("uncond", "cond")]),
        (Linear(uncond=0.0), [("cond",)]),
        (Linear(cond=0.0, uncond=1.0), [("uncond",)]),
        (MIXED, [("uncond", "negative", "cond")]),
        (SDS(guidance_scale=1.0), [("cond",)]),
        (SDS(guidance_scale=0.0), [("uncond",)]),
        (CSD(uncond=0.0, negative=-1.0), [("negative", "cond")]),
        (CSD(negative=0.0, uncond=-1.0), [("uncond", "cond")]),
        (NFSD(), [("uncond", "cond", "negative")]),
        (NFSD(low_noise=1.0), [("uncond", "cond")]),
        (SDSBridge(), [("source", "cond")]),
    ],
)
def test_what_has_no_coefficient_is_not_predicted(
    loss: Loss, passes: list[tuple[str, ...]], prior: Small
) -> None:
    prior.passes.clear()
    gradient_of(loss, prior)
    assert prior.passes == passes


def test_a_negative_prompt_takes_the_place_of_no_words_in_sds() -> None:
    class Steered(Truths):
        def guidance_conditions(self, cameras: Cameras) -> tuple[str, ...]:
            return ("negative", "cond")

    prior = Steered(cond=numbers(*SHAPE, seed=2), negative=numbers(*SHAPE, seed=3))
    latents, noise = numbers(*SHAPE, seed=4), numbers(*SHAPE, seed=5)
    by_sds = gradient_at(SDS(guidance_scale=4.0), prior, latents, noise, 500)
    assert prior.passes == [("negative", "cond")]
    by_hand = Linear(cond=4.0, negative=-3.0, uncond=0.0)
    torch.testing.assert_close(by_sds, gradient_at(by_hand, prior, latents, noise, 500))


def test_perpendicular_negatives_are_in_the_conditional_prediction() -> None:
    class Perpendicular(Truths):
        def guidance_conditions(self, cameras: Cameras) -> tuple[str, ...]:
            return ("uncond", "cond", "perpendicular_1")

        def direction(self, predictions: dict[str, Tensor], cameras: Cameras) -> Tensor:
            return predictions["cond"] - predictions["uncond"] - 0.3 * predictions["perpendicular_1"]

    names: Sequence[str] = ("uncond", "cond", "perpendicular_1")
    prior = Perpendicular(**{name: numbers(*SHAPE, seed=seed) for seed, name in enumerate(names)})
    latents, noise = numbers(*SHAPE, seed=4), numbers(*SHAPE, seed=5)
    for scale in (1.0, 7.5):
        loss = SDS(guidance_scale=scale, weighting="uniform")
        expected = scores_at(prior, loss, latents, noise, 500).guided_eps(scale) - noise
        prior.passes.clear()
        torch.testing.assert_close(gradient_at(loss, prior, latents, noise, 500), expected)
        assert [set(each) for each in prior.passes] == [set(names)]


def test_it_is_the_gradient_of_log_densities() -> None:
    """Where eps is -sigma times the gradient of a log density, a sum of eps is that of a sum of log densities."""
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0), negative=(0.1, 0.5))
    loss = Linear(cond=3.0, uncond=-1.5, negative=-0.5, noise=0.0, weighting="uniform")
    latents, noise, t = numbers(*SHAPE, seed=6), numbers(*SHAPE, seed=7), torch.tensor([400])
    alpha, sigma = prior.schedule.alpha(t, latents), prior.schedule.sigma(t, latents)
    gradient = gradient_at(loss, prior, latents, noise, t) * alpha / sigma

    def value(latents: Tensor) -> float:
        noisy = alpha * latents + sigma * noise
        parts = {"cond": 3.0, "uncond": -1.5, "negative": -0.5}
        return -float(sum(scale * prior.log_density(name, noisy, t) for name, scale in parts.items()))

    for index in ((0, 0, 0, 0, 0), (0, 1, 2, 3, 1), (0, 2, 3, 1, 2)):
        step = torch.zeros_like(latents)
        step[index] = 1e-4
        slope = (value(latents + step) - value(latents - step)) / 2e-4
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-6)


def test_pictures_follow_a_prior_that_knows_them() -> None:
    truth = 0.5 * numbers(*SHAPE, seed=9)
    prior = Truths("v_prediction", cond=truth, uncond=truth)
    assert float((followed(Linear(weighting="uniform"), prior) - truth).abs().max()) < 0.05


def test_a_unit_gradient_is_of_one_size() -> None:
    gradient = torch.stack([numbers(3, 4, seed=0), 1e-6 * numbers(3, 4, seed=1), torch.zeros(3, 4)])
    size = unit(gradient).square().mean(dim=(1, 2)).sqrt()
    assert size.tolist() == pytest.approx([1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cond": 1e9}, "linear cond"),
        ({"negative": ((0.5, 1.0), (0.2, 0.0))}, "linear negative"),
        ({"cond": 0.0, "uncond": 0.0}, "no prediction"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Linear(**settings)  # type: ignore[arg-type]


def test_it_looks_at_the_negative_prompt_where_that_counts() -> None:
    assert Linear().wants() == Linear().heeds() == frozenset()
    assert MIXED.wants() == MIXED.heeds() == {"negative"}
