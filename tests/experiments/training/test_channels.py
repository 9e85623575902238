"""More latent channels and fewer: what stays computes what it did; what a channel is worth."""

from __future__ import annotations

import pytest
import torch

from diffusion.attention import AttentionContext
from diffusion.backbone import load
from experiments.training.channels import narrowed_unet, narrowed_vae, pixel_cost, pixel_weights, widened
from experiments.training.models import build_unet, build_vae


@torch.no_grad()
def test_a_wider_vae_does_what_it_did() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow, wide = build_vae(4), build_vae(8)
    wide.load_state_dict(widened(narrow.state_dict(), wide.state_dict()))
    images = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    old, new = narrow.encode(images).latent_dist, wide.encode(images).latent_dist  # pyright: ignore
    assert torch.allclose(new.mean[:, :4], old.mean, atol=1e-5)
    assert torch.allclose(new.logvar[:, :4], old.logvar, atol=1e-5)
    assert float(new.mean[:, 4:].std()) > 0.0
    pictures = [vae.decode(z.mean, return_dict=False)[0] for vae, z in ((narrow, old), (wide, new))]
    assert torch.allclose(*pictures, atol=1e-5)


@torch.no_grad()
def test_a_wider_unet_does_what_it_did() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow, wide = build_unet((32, 32), 4), build_unet((32, 32), 8)
    wide.load_state_dict(widened(narrow.state_dict(), wide.state_dict()))
    x, words = (torch.randn(shape, generator=generator) for shape in ((4, 8, 16, 16), (4, 5, 128)))
    camera = torch.randn(4, 16, generator=generator)
    outputs = [
        unet(
            x[:, : unet.config["in_channels"]], 500, words,
            class_labels=camera, cross_attention_kwargs={"context": AttentionContext(num_views=4)},
        ).sample
        for unet in (narrow, wide)
    ]  # fmt: skip
    assert torch.allclose(outputs[1][:, :4], outputs[0], atol=1e-5)


def test_equal_shapes_are_the_weights_themselves() -> None:
    vae, other = build_vae(4).state_dict(), build_vae(4).state_dict()
    assert all(torch.equal(value, vae[name]) for name, value in widened(vae, other).items())


@torch.no_grad()
def test_a_narrower_vae_has_the_same_latents_and_sees_the_others_at_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow, kept = build_vae(4), build_vae(3), [3, 0, 2]
    mean = torch.randn(4, generator=generator)
    narrow.load_state_dict(narrowed_vae(wide.state_dict(), kept, mean))
    images = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    old, new = wide.encode(images).latent_dist, narrow.encode(images).latent_dist  # pyright: ignore
    assert torch.allclose(new.mean, old.mean[:, kept], atol=1e-5)
    assert torch.allclose(new.logvar, old.logvar[:, kept], atol=1e-5)
    latents = old.mean.clone()
    latents[:, 1] = mean[1]
    # The border differs by its padding, and group norms spread a little of that: the layers before them are compared.
    before, after = (
        vae.decoder.conv_in(vae.post_quant_conv(z))
        for vae, z in ((wide, latents), (narrow, latents[:, kept]))
    )
    assert torch.allclose(before[..., 1:-1, 1:-1], after[..., 1:-1, 1:-1], atol=1e-5)


@torch.no_grad()
def test_a_narrower_unet_does_the_same_where_the_others_are_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow, kept = build_unet((32, 32), 4), build_unet((32, 32), 2), [2, 0]
    narrow.load_state_dict(narrowed_unet(wide.state_dict(), kept))
    x, words = (torch.randn(shape, generator=generator) for shape in ((4, 4, 16, 16), (4, 5, 128)))
    x[:, [1, 3]] = 0.0
    settings = {
        "class_labels": torch.randn(4, 16, generator=generator),
        "cross_attention_kwargs": {"context": AttentionContext(num_views=4)},
    }
    expected = wide(x, 500, words, **settings).sample[:, kept]
    assert torch.allclose(narrow(x[:, kept], 500, words, **settings).sample, expected, atol=1e-5)


def test_a_channel_that_the_decoder_ignores_costs_nothing() -> None:
    backbone = load("tiny")
    with torch.no_grad():
        backbone.vae.post_quant_conv.weight[:, 2] = 0.0
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        costs, weights = pixel_cost(backbone, images), pixel_weights(backbone, images)
    assert costs[2] == 0.0
    others = [c for c in range(backbone.latent_channels) if c != 2]
    assert costs.max() > 1e-4
    assert float(weights.mean()) == pytest.approx(1.0)
    assert 0.04 < float(weights[2]) < float(weights[others].max())
