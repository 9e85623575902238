"""LoRA on a UNet that stays as it is: nothing is copied, nothing is drawn, and calls without it are as before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.adapters.lora import LowRank
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from gen3d.cameras import orbit
from tests.diffusion.models import make_unet


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WORDS, LATENTS = Conditioning(embeds=normal(1, 4, 32, seed=1)), normal(1, 4, 4, 8, 8, seed=2)
CAMERA = orbit(torch.arange(4) * 90.0, 10.0).c2w[None]
TOLD = Inputs(conditioning=WORDS, camera=CAMERA)


@pytest.mark.parametrize("camera", [True, False])
@torch.no_grad()
def test_the_unet_is_as_before_and_no_weight_is_copied(camera: bool) -> None:
    unet = make_unet(camera=camera)
    denoiser = UNetDenoiser(unet, multiview=True)
    before = {name: each.data_ptr() for name, each in unet.named_parameters()}
    modules = [name for name, _ in unet.named_modules()]
    inputs = Inputs(conditioning=WORDS, camera=CAMERA if camera else None)
    expected, random = denoiser(LATENTS, 300, inputs), torch.get_rng_state()
    model = LowRank(unet, rank=4, multiview=True)
    weights = model.begin(torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(weights, LATENTS, 300, TOLD), expected, rtol=1e-5, atol=1e-5)
    assert float((model(weights + 0.05, LATENTS, 300, TOLD) - expected).abs().max()) > 1e-3
    assert torch.equal(denoiser(LATENTS, 300, inputs), expected)
    assert torch.equal(torch.get_rng_state(), random), "nothing draws from torch's own generator"
    assert before == {name: each.data_ptr() for name, each in unet.named_parameters()}
    assert modules == [name for name, _ in unet.named_modules()]
    assert unet.config["class_embed_type"] == ("projection" if camera else None)
    with_storage = {each.data_ptr() for each in model._call.parameters() if each.device.type != "meta"}
    assert with_storage == set(before.values())


@pytest.mark.parametrize("camera", [True, False])
def test_all_that_learns_has_a_gradient_and_counts(camera: bool) -> None:
    model = LowRank(make_unet(camera=camera), rank=2, multiview=True)
    weights = model.begin(torch.Generator().manual_seed(0)) + 0.05 * normal(model.num_weights, seed=3)
    weights.requires_grad_(True)
    model(weights, LATENTS, 300, TOLD).square().sum().backward()
    assert weights.grad is not None
    # A camera's last row, which is 0 0 0 1, tells nothing.
    assert float((weights.grad == 0).float().mean()) < 0.02
    # Cameras are seen, by the embedding that was there or by the one that learns.
    turned = Inputs(conditioning=WORDS, camera=CAMERA.flip(1))
    with torch.no_grad():
        changed = model(weights, LATENTS, 300, turned) - model(weights, LATENTS, 300, TOLD)
    assert float(changed.abs().max()) > 1e-3


def test_it_learns_in_float32_whatever_the_unet_has() -> None:
    unet = make_unet(camera=False).to(torch.bfloat16)
    model = LowRank(unet, rank=2, multiview=True)
    weights = model.begin(torch.Generator().manual_seed(0)).requires_grad_(True)
    made = model(weights, LATENTS, 300, TOLD)
    made.square().sum().backward()
    assert made.dtype == torch.float32
    assert weights.grad is not None
    assert weights.grad.dtype == torch.float32
    assert bool(torch.isfinite(weights.grad).all())


def test_what_cannot_be_is_refused() -> None:
    model = LowRank(make_unet(), rank=2, multiview=True)
    with pytest.raises(ValueError, match=r"weights must be \[\d+\], got \[3\]"):
        model(torch.zeros(3), LATENTS, 300, TOLD)
    unet = make_unet(camera=False)
    unet.class_embedding = torch.nn.Embedding(10, unet.time_embedding.linear_2.out_features)
    unet.register_to_config(num_class_embeds=10)
    with pytest.raises(ValueError, match="an embedding of another kind"):
        LowRank(unet, rank=2, multiview=True)
