"""The UNet behind the joint: what it takes grows with its adapters, and several denoisers may share it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diffusion.adapters.attach import add_input_features, add_layer_hooks
from diffusion.adapters.multiview import MultiviewAttention, add_multiview_attention
from diffusion.adapters.reference import ReferenceAttention, add_reference_attention, fill_bank
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from tests.diffusion.models import make_unet, orbit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(rows: int = 1) -> Inputs:
    return Inputs(conditioning=Conditioning(embeds=noise(rows, 5, 32, seed=1)))


def adapted() -> UNetDenoiser:
    unet = make_unet(camera=False).eval()
    add_reference_attention(unet)
    add_layer_hooks(unet)
    add_input_features(unet)
    return UNetDenoiser(unet)


def test_it_takes_what_its_unet_and_the_adapters_on_it_read() -> None:
    denoiser = UNetDenoiser(make_unet(camera=True))
    unet = denoiser.unet
    assert (denoiser.in_channels, denoiser.takes) == (4, {"camera"})
    add_reference_attention(unet)
    assert denoiser.takes == {"camera", "bank", "record"}
    add_layer_hooks(unet)
    add_input_features(unet)
    assert denoiser.takes == {"camera", "bank", "record", "after_attention", "features"}
    assert UNetDenoiser(make_unet(camera=False)).takes == set()


@torch.no_grad()
@pytest.mark.parametrize("part", ["bank", "record", "after_attention", "features", "camera"])
def test_what_no_adapter_reads_is_refused_and_not_ignored(part: str) -> None:
    bank = fill_bank(adapted(), noise(1, 1, 4, 8, 8), words())
    parts: dict[str, Any] = {
        "bank": bank,
        "record": {},
        "after_attention": lambda name, x: 2.0 * x,
        "features": noise(1, 2, 32, 8, 8),
        "camera": orbit(1, 2),
    }
    inputs = replace(words(), **{part: parts[part]})
    with pytest.raises(ValueError, match=f"cannot read {part}; .* takes nothing|no camera embedding"):
        UNetDenoiser(make_unet(camera=False).eval())(noise(1, 2, 4, 8, 8), 5, inputs)
    if part not in ("camera", "record"):
        denoiser, latents = adapted(), noise(1, 2, 4, 8, 8)
        assert not torch.allclose(denoiser(latents, 5, inputs), denoiser(latents, 5, words()), atol=1e-4)


@torch.no_grad()
def test_two_denoisers_of_one_unet_differ_in_whether_views_see_each_other() -> None:
    together = UNetDenoiser(make_unet(camera=False).eval(), joint_views=True)
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


def test_making_one_leaves_adapters_as_they_are() -> None:
    unet = make_unet(camera=False)
    UNetDenoiser(unet)
    assert {type(each) for each in unet.attn_processors.values()} == {MultiviewAttention}
    add_reference_attention(unet)
    UNetDenoiser(unet)
    add_multiview_attention(unet)
    assert {type(each) for each in unet.attn_processors.values()} == {ReferenceAttention}
