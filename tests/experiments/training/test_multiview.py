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
    first = multiview.cached_latents(backbone, _shards(0), tmp_path)
    assert first.shape == (2, 4, 4, 4, 4)
    other = multiview.cached_latents(backbone, _shards(1), tmp_path)
    assert not torch.equal(first, other)
    assert len(list(tmp_path.iterdir())) == 2

    def encode(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(backbone, "encode", encode)
    assert torch.equal(multiview.cached_latents(backbone, _shards(0), tmp_path), first)
