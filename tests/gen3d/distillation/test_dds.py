"""Delta denoising score."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.dds import DDS
from gen3d.distillation.sds import SDS
from tests.gen3d.known_priors import SHAPE, Truths, followed, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


def test_golden_and_passes() -> None:
    prior = Small()
    assert golden_of(gradient_of(DDS(guidance_scale=7.5), prior)) == pytest.approx(
        (0.0469659235, 0.0883738386, 0.179561419), rel=1e-6
    )
    assert prior.passes == [("uncond", "cond"), ("uncond", "source")]


def test_it_is_the_difference_of_two_sds_gradients() -> None:
    cond, uncond, source = (numbers(*SHAPE, seed=seed) for seed in (1, 2, 3))
    latents, began, noise = (numbers(*SHAPE, seed=seed) for seed in (4, 5, 6))
    for weighting in ("uniform", "sds"):
        sds = SDS(guidance_scale=7.5, weighting=weighting)  # type: ignore[arg-type]
        here = gradient_at(sds, Truths(cond=cond, uncond=uncond), latents, noise, 500)
        there = gradient_at(sds, Truths(cond=source, uncond=uncond), began, noise, 500)
        prior = Truths(cond=cond, uncond=uncond, source=source)
        loss = DDS(guidance_scale=7.5, weighting=weighting)  # type: ignore[arg-type]
        gradient = gradient_at(loss, prior, latents, noise, 500, source=began)
        torch.testing.assert_close(gradient, here - there)


def test_the_same_pictures_by_the_same_words_stay() -> None:
    words = numbers(*SHAPE, seed=1)
    prior = Truths(cond=words, source=words, uncond=numbers(*SHAPE, seed=2))
    latents = numbers(*SHAPE, seed=4)
    gradient = gradient_at(DDS(), prior, latents, numbers(*SHAPE, seed=6), 500, source=latents)
    assert float(gradient.abs().max()) == 0.0


def test_pictures_are_changed_by_what_the_words_differ_in() -> None:
    cond, source, began = (0.3 * numbers(*SHAPE, seed=seed) for seed in (1, 2, 3))
    prior = Truths("v_prediction", cond=cond, source=source, uncond=torch.zeros(SHAPE).double())
    ended = followed(DDS(guidance_scale=2.0), prior, steps=400, source=began)
    assert float((ended - began - 2.0 * (cond - source)).abs().max()) < 0.05


def test_settings_and_wants() -> None:
    with pytest.raises(ValueError, match="dds guidance_scale"):
        DDS(guidance_scale=-1.0)
    assert DDS().wants() == {"source", "source_latents"}
    assert DDS().heeds() == {"source", "negative"}
