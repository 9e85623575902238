"""The UNet's inputs: latents are kept beside the pictures and found again by what made them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion.backbone import load
from experiments.training import multiview
from experiments.training.latents import cached_latents
from experiments.world.dataset import Shards


def _shards(seed: int) -> Shards:
    generator = torch.Generator().manual_seed(seed)
    return Shards(
        images=torch.randint(0, 256, (2, 4, 3, 32, 32), generator=generator, dtype=torch.uint8),
        masks=torch.full((2, 4, 1, 32, 32), 255, dtype=torch.uint8),
        c2w=torch.eye(4).expand(2, 4, 4, 4),
        fovy_deg=torch.full((2,), 40.0),
        captions=["a red ball", "a blue cube"],
        kinds=["thing", "thing"],
    )


def test_latents_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load("tiny")
    first = cached_latents(backbone, _shards(0).images, tmp_path)
    assert first.shape == (2, 4, backbone.latent_channels, 4, 4)
    other = cached_latents(backbone, _shards(1).images, tmp_path)
    assert not torch.equal(first, other)
    assert len(list(tmp_path.iterdir())) == 2

    def encode(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(backbone, "encode", encode)
    assert torch.equal(cached_latents(backbone, _shards(0).images, tmp_path), first)


@pytest.mark.parametrize("train_text", [True, False])
def test_the_text_transformer_learns_when_it_should(train_text: bool) -> None:
    backbone = load("tiny")
    recipe = multiview.MultiviewRecipe(
        backbone, _shards(0), _shards(1), channels=(32, 32), train_text=train_text
    )
    loss, _ = recipe.loss(2, torch.Generator().manual_seed(0))
    loss.backward()
    gradients = {name: p.grad for name, p in recipe.text.named_parameters()}
    # The projection belongs to the towers' comparison, which this recipe knows nothing of.
    assert gradients.pop("text_projection.weight") is None
    assert all((g is not None and bool(g.any())) == train_text for g in gradients.values())


def test_noise_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"give noise\.zero_terminal_snr=false with it"):
        multiview.NoiseConfig(prediction_type="epsilon")
    with pytest.raises(ValueError, match=r"noise\.min_snr_gamma is 0; it must be above 0"):
        multiview.NoiseConfig(min_snr_gamma=0)


def test_min_snr_is_a_weighted_mean() -> None:
    """Four pictures of one timestep each: the loss is the squared error, weighed by the schedule's weights."""
    backbone = load("tiny")
    losses = []
    for gamma in (None, 1e9, 0.1):
        torch.manual_seed(0)
        recipe = multiview.MultiviewRecipe(
            backbone,
            _shards(0),
            _shards(1),
            channels=(32, 32),
            noise=multiview.NoiseConfig(min_snr_gamma=gamma),
        )
        with torch.no_grad():
            losses.append(float(recipe.loss(4, torch.Generator().manual_seed(0))[0]))
    plain, unclipped, clipped = losses
    # Every weight lies below 1, and clipping only lowers them.
    assert 0 < clipped < unclipped < plain


def test_how_well_latents_are_denoised() -> None:
    """A UNet that says v = -x_t / 2 has x_0 = (alpha + sigma / 2) x_t, whose error is known."""
    backbone = load("tiny")
    recipe = multiview.MultiviewRecipe(backbone, _shards(0), _shards(1), channels=(32, 32))

    def half(latents, camera, t, tokens, noise, given):  # type: ignore[no-untyped-def]
        x0 = latents.float()
        x_t = recipe.schedule.add_noise(x0, noise, t)
        return -x_t / 2, recipe.schedule.target(x0, noise, t), x_t

    recipe._predict = half  # type: ignore[method-assign]
    measured = recipe.validate()["denoised_db"]
    x0, t = recipe.held_out.latents.float(), torch.tensor([62, 187])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    alpha, sigma = (
        getattr(recipe.schedule, name)[t].float().view(2, 1, 1, 1, 1) for name in ("alphas", "sigmas")
    )
    missed = ((alpha + sigma / 2) * (alpha * x0 + sigma * noise) - x0).square() * recipe.costs
    spread = ((x0 - x0.mean((0, 1, 3, 4), keepdim=True)).square() * recipe.costs).mean()
    expected = (10 * (spread / missed.mean((1, 2, 3, 4))).log10()).mean()
    assert measured == pytest.approx(float(expected), rel=1e-4)
