"""More latent channels: the wider network computes what the narrow one did."""

from __future__ import annotations

import torch

from experiments.training.models import build_unet, build_vae
from experiments.training.widen import widened


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
            class_labels=camera, cross_attention_kwargs={"num_views": 4},
        ).sample
        for unet in (narrow, wide)
    ]  # fmt: skip
    assert torch.allclose(outputs[1][:, :4], outputs[0], atol=1e-5)


def test_equal_shapes_are_the_weights_themselves() -> None:
    vae, other = build_vae(4).state_dict(), build_vae(4).state_dict()
    assert all(torch.equal(value, vae[name]) for name, value in widened(vae, other).items())
