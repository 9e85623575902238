"""The UNet behind the joint: what it takes grows with its adapters, and several denoisers may share it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diffusion.adapters.reference import fill_bank
from diffusion.adapters.unet_hooks import add_input_features
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from tests.diffusion.models import make_unet, orbit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(rows: int = 1) -> Inputs:
    return Inputs(conditioning=Conditioning(embeds=noise(rows, 5, 32, seed=1)))


def adapted() -> UNetDenoiser:
    unet = make_unet(camera=False).eval()
    add_input_features(unet)
    return UNetDenoiser(unet)


def test_it_takes_what_its_unet_was_built_for() -> None:
    to_layers = {"bank", "record", "after_attention"}
    denoiser = UNetDenoiser(make_unet(camera=True))
    assert (denoiser.in_channels, denoiser.takes) == (4, {*to_layers, "camera"})
    add_input_features(denoiser.unet)
    assert denoiser.takes == {*to_layers, "camera", "features"}
    plain = UNetDenoiser(make_unet(camera=False))
    assert plain.takes == to_layers
    with pytest.raises(
        ValueError, match="cannot read features; besides conditioning it takes after_attention, bank"
    ):
        plain(noise(1, 2, 4, 8, 8), 5, replace(words(), features=noise(1, 2, 32, 8, 8)))
    with pytest.raises(ValueError, match="camera was given, but this backbone has no camera embedding"):
        plain(noise(1, 2, 4, 8, 8), 5, replace(words(), camera=orbit(1, 2)))


@torch.no_grad()
@pytest.mark.parametrize("part", ["bank", "after_attention", "features"])
def test_what_it_takes_it_does_not_ignore(part: str) -> None:
    parts: dict[str, Any] = {
        "bank": fill_bank(adapted(), noise(1, 1, 4, 8, 8), words()),
        "after_attention": lambda name, x: 2.0 * x,
        "features": noise(1, 2, 32, 8, 8),
    }
    denoiser, latents = adapted(), noise(1, 2, 4, 8, 8)
    given = denoiser(latents, 5, replace(words(), **{part: parts[part]}))
    assert not torch.allclose(given, denoiser(latents, 5, words()), atol=1e-4)


@torch.no_grad()
def test_two_denoisers_of_one_unet_differ_in_whether_views_see_each_other() -> None:
    together = UNetDenoiser(make_unet(camera=False).eval(), multiview=True)
    apart = UNetDenoiser(together.unet)
    latents = noise(2, 3, 4, 8, 8)
    changed = latents.clone()
    changed[0, 0] += 1.0
    moved = [
        (denoiser(changed, 300, words()) - denoiser(latents, 300, words())).abs().amax((2, 3, 4)) > 1e-5
        for denoiser in (together, apart)
    ]
    assert moved[0].tolist() == [[True] * 3, [False] * 3]
    assert moved[1].tolist() == [[True, False, False], [False] * 3]
    one_by_one = torch.stack([apart(latents[:, view], 300, words()) for view in range(3)], dim=1)
    torch.testing.assert_close(apart(latents, 300, words()), one_by_one, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_ordinary_call_of_its_unet_stays_what_it_was() -> None:
    plain, adapted_unet = make_unet(camera=False).eval(), adapted().unet
    latents, text = noise(2, 4, 8, 8), words(2).conditioning.embeds
    assert torch.equal(adapted_unet(latents, 5, text).sample, plain(latents, 5, text).sample)
    assert list(adapted_unet.state_dict()) == list(plain.state_dict())
