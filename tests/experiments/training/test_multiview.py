"""The UNet's inputs: latents are kept beside the pictures and found again by what made them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion.backbone import load
from experiments.training import multiview
from experiments.world.dataset import Shards


def _shards(seed: int) -> Shards:
    generator = torch.Generator().manual_seed(seed)
    return Shards(
        images=torch.randint(0, 256, (2, 4, 3, 32, 32), generator=generator, dtype=torch.uint8),
        c2w=torch.eye(4).expand(2, 4, 4, 4),
        fovy_deg=torch.full((2,), 40.0),
        captions=["a red ball", "a blue cube"],
        kinds=["thing", "thing"],
    )


def test_latents_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load("tiny")
    first = multiview.cached_latents(backbone, _shards(0).images, tmp_path)
    assert first.shape == (2, 4, backbone.latent_channels, 4, 4)
    other = multiview.cached_latents(backbone, _shards(1).images, tmp_path)
    assert not torch.equal(first, other)
    assert len(list(tmp_path.iterdir())) == 2

    def encode(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(backbone, "encode", encode)
    assert torch.equal(multiview.cached_latents(backbone, _shards(0).images, tmp_path), first)


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
