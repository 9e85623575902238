"""Guidance against numbers worked out by hand and the published formulas."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from diffusion.backbone import Backbone
from diffusion.conditioning import Inputs
from diffusion.guidance import (
    cfg,
    check_guidance,
    compose,
    nested,
    nested_weights,
    predict_together,
    rescale,
)
from tests.diffusion.models import CAPTIONS, orbit


def test_cfg_golden() -> None:
    uncond, cond = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.0])
    assert cfg(uncond, cond, 7.5).tolist() == [8.5, 13.0]
    assert torch.equal(cfg(uncond, cond, 1.0), cond)
    assert torch.equal(cfg(uncond, cond, 0.0), uncond)


def test_compose_golden() -> None:
    uncond, first, second = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])
    assert compose(uncond, [first, second], [2.0, -0.5]).tolist() == [1.5]
    assert torch.equal(compose(uncond, [first], [7.5]), cfg(uncond, first, 7.5))
    assert torch.equal(compose(uncond, [], []), uncond)
    with pytest.raises(ValueError, match="got 1 and 2"):
        compose(uncond, [first], [1.0, 2.0])


def test_rescale_golden() -> None:
    cond, guided = torch.tensor([[1.0, -1.0]]), torch.tensor([[4.0, 0.0]])  # stds sqrt(2), 2 sqrt(2)
    torch.testing.assert_close(rescale(guided, cond, 1.0), torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(rescale(guided, cond, 0.5), torch.tensor([[3.0, 0.0]]))
    assert rescale(guided, cond, 0.0) is guided


def test_rescale_is_lin_et_al_for_images_and_mvdream_for_views() -> None:
    generator = torch.Generator().manual_seed(0)
    cond = torch.randn(2, 4, 4, 8, 8, generator=generator)
    guided = 3 * torch.randn(2, 4, 4, 8, 8, generator=generator)
    guided[:, 1] *= 4
    flat = rescale(guided[:, 0], cond[:, 0], 0.7)
    torch.testing.assert_close(flat, rescale_noise_cfg(guided[:, 0], cond[:, 0], 0.7))
    # MVDream: one factor per object, the standard deviation taken over its four views together.
    views = rescale(guided, cond, 0.5)
    factor = cond.reshape(2, -1).std(1) / guided.reshape(2, -1).std(1)
    expected = 0.5 * guided * factor.view(2, 1, 1, 1, 1) + 0.5 * guided
    torch.testing.assert_close(views, expected)
    torch.testing.assert_close(views[:, 1] / guided[:, 1], views[:, 0] / guided[:, 0])


def test_nested_golden() -> None:
    """u + g_ref (ref - u) + g_audio (full - ref)."""
    chain = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([5.0])]
    assert nested(chain, [2.0, 1.5]).tolist() == [1.0 + 2.0 * 1.0 + 1.5 * 3.0]
    assert nested_weights([2.0, 1.5]) == (-1.0, 0.5, 1.5)
    assert sum(nested_weights([7.3, -0.2])) == pytest.approx(1.0)
    torch.testing.assert_close(nested(chain[:2], [7.5]), cfg(chain[0], chain[1], 7.5))


def test_nested_needs_only_predictions_that_count() -> None:
    first, middle, last = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([5.0])
    joint = nested([first, None, last], [3.5, 3.5])
    torch.testing.assert_close(joint, cfg(first, last, 3.5))
    assert torch.equal(nested([None, None, last], [1.0, 1.0]), last)
    assert torch.equal(nested([None, middle, None], [1.0, 0.0]), middle)
    assert torch.equal(nested([first, None, None], [0.0, 0.0]), first)
    with pytest.raises(ValueError, match=r"prediction 0 counts with weight -2\.5 and cannot be None"):
        nested([None, middle, last], [3.5, 1.0])
    with pytest.raises(ValueError, match="one more than scales, got 2 and 2"):
        nested([first, last], [1.0, 1.0])


# ---- predictions


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize(
    "timestep", [300, torch.tensor(300), torch.tensor([20, 900]), torch.arange(8).view(2, 4)]
)
@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_predictions_made_together_are_those_made_apart(
    backbone: Backbone, timestep: torch.Tensor | int, at_once: int | None
) -> None:
    """One row for all, one for each object, and one for each view, in one call."""
    latents, text = noise(2, 4, 4, 8, 8), backbone.encode_prompt([*CAPTIONS, "", "a", "b", "c", "d"])
    given = [
        Inputs(conditioning=text[rows], camera=orbit(2, 4)) for rows in (slice(1), slice(1, 3), slice(8))
    ]
    apart = [backbone.denoise(latents, timestep, each) for each in given]
    batches: list[int] = []

    def counted(latents: torch.Tensor, timestep: torch.Tensor | int, inputs: Inputs) -> torch.Tensor:
        batches.append(len(latents))
        return backbone.denoise(latents, timestep, inputs)

    together = predict_together(counted, latents, timestep, given, at_once=at_once)
    assert batches == {None: [6], 1: [2, 2, 2], 2: [4, 2]}[at_once]
    for got, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        assert at_once != 1 or torch.equal(got, expected)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@torch.no_grad()
def test_a_row_for_all_objects_stays_one_for_all_of_its_own(backbone: Backbone) -> None:
    latents, text = noise(2, 4, 4, 8, 8), backbone.encode_prompt(CAPTIONS[:2])
    given = [Inputs(conditioning=text[[row]], camera=orbit(2, 4)) for row in (0, 1)]
    for got, each in zip(predict_together(backbone.denoise, latents, 5, given), given, strict=True):
        torch.testing.assert_close(got, backbone.denoise(latents, 5, each), rtol=0, atol=1e-5)


def test_predicting_together_needs_conditions_of_one_kind(backbone: Backbone) -> None:
    latents, text = noise(1, 4, 4, 8, 8), backbone.encode_prompt(["a"])
    assert predict_together(backbone.denoise, latents, 5, []) == []
    with pytest.raises(ValueError, match="at_once must be at least 1, or None for all, got 0"):
        predict_together(backbone.denoise, latents, 5, [Inputs(conditioning=text)], at_once=0)
    with pytest.raises(ValueError, match="camera must be given in all conditions or in none"):
        predict_together(
            backbone.denoise,
            latents,
            5,
            [Inputs(conditioning=text), Inputs(conditioning=text, camera=orbit(1, 4))],
        )


@pytest.mark.parametrize(
    ("scale", "factor", "message"),
    [
        (float("nan"), 0.5, "guidance_scale must be a finite number, got nan"),
        (float("inf"), 0.0, "guidance_scale must be a finite number, got inf"),
        (5.0, -0.1, r"guidance_rescale must lie in \[0, 1\], got -0.1"),
        (1.0, float("nan"), r"guidance_rescale must lie in \[0, 1\], got nan"),
    ],
)
def test_guidance_that_cannot_be(scale: float, factor: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_guidance(scale, factor)
