"""Reference attention against attention written out, and the bank's rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffusion.adapters.bank import KVBank
from diffusion.adapters.reference import BankProjection, fill_bank, reference_layers
from diffusion.attention import AttentionContext, ContextAttention, add_context_attention, attend
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from tests.diffusion.models import make_unet

NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def make(seed: int = 0) -> UNet2DConditionModel:
    unet = make_unet(camera=False, seed=seed).eval()
    add_context_attention(unet)
    return unet


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return make()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(unet: UNet2DConditionModel, latents: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    rows = len(latents) // kwargs.get("num_views", 1)
    text = noise(1, 5, 32, seed=7).expand(rows, -1, -1)
    context = {"context": AttentionContext(**kwargs)} if kwargs else None
    return unet(latents, 300, text, cross_attention_kwargs=context, return_dict=False)[0]


def fill(unet: UNet2DConditionModel, pictures: torch.Tensor, text: torch.Tensor, **settings: int) -> KVBank:
    return fill_bank(UNetDenoiser(unet), pictures, Inputs(conditioning=Conditioning(embeds=text)), **settings)


def bank_of(unet: UNet2DConditionModel, batch: int, images: int = 1, seed: int = 3) -> KVBank:
    return fill(unet, noise(batch, images, 4, 8, 8, seed=seed), noise(batch, 5, 32, seed=seed))


@pytest.fixture
def attn() -> Attention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attention(16, heads=2, dim_head=8).eval()


@torch.no_grad()
@pytest.mark.parametrize("num_views", [1, 2])
def test_recording_and_a_bank_that_nobody_reads_change_no_bit(
    unet: UNet2DConditionModel, num_views: int
) -> None:
    latents = noise(4, 4, 8, 8)
    expected = run(unet, latents, num_views=num_views)
    assert torch.equal(run(unet, latents, num_views=num_views, record={}), expected)
    nobody = bank_of(unet, 2).drop([True, True])
    assert torch.equal(run(unet, latents, num_views=num_views, bank=nobody), expected)


@torch.no_grad()
def test_without_a_bank_it_is_the_ordinary_processor_to_the_bit(attn: Attention) -> None:
    hidden = noise(3, 12, 16)
    expected = AttnProcessor2_0()(attn, hidden)
    assert torch.equal(ContextAttention(NAME)(attn, hidden), expected)
    assert torch.equal(ContextAttention(NAME)(attn, hidden, hidden), AttnProcessor2_0()(attn, hidden, hidden))


@torch.no_grad()
def test_the_bank_holds_what_norm1_gave(unet: UNet2DConditionModel) -> None:
    pictures, text = noise(2, 3, 4, 8, 8), noise(2, 5, 32, seed=1)
    seen: dict[str, torch.Tensor] = {}
    handles = []
    for name, channels in reference_layers(unet).items():
        norm = unet.get_submodule(name.replace("attn1", "norm1"))
        assert norm.normalized_shape == (channels,)
        handles.append(norm.register_forward_hook(lambda _m, _i, out, key=name: seen.update({key: out})))
    bank = fill(unet, pictures, text)
    for handle in handles:
        handle.remove()
    assert list(bank.tokens) == list(seen)
    assert len(seen) == 7
    assert (len(bank), bank.num_images) == (2, 3)
    assert all(torch.equal(bank.layer(name).flatten(0, 1), value) for name, value in seen.items())
    # Pictures do not see each other, and t is 0.
    alone = fill(unet, pictures[:1, 1:2], text[:1])
    torch.testing.assert_close(alone.layer(NAME)[0, 0], bank.layer(NAME)[0, 1], rtol=0, atol=1e-5)
    late = fill(unet, pictures, text, timestep=500)
    assert not torch.allclose(late.layer(NAME), bank.layer(NAME))


@torch.no_grad()
def test_reading_ones_own_tokens_changes_nothing(unet: UNet2DConditionModel) -> None:
    """Attention over two copies of the same tokens is attention over one."""
    latents, text = noise(2, 4, 8, 8), noise(1, 5, 32, seed=7).expand(2, -1, -1)
    own = fill(unet, latents[:, None], text, timestep=300)
    torch.testing.assert_close(run(unet, latents, bank=own), run(unet, latents), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_picture_is_to_a_frame_what_a_view_is_to_a_view(attn: Attention) -> None:
    views = noise(4, 12, 16)
    together = ContextAttention(NAME)(attn, views, context=AttentionContext(num_views=2))
    bank = KVBank({NAME: views[[1, 3]][:, None]})
    referring = ContextAttention(NAME)(attn, views[[0, 2]], context=AttentionContext(bank=bank))
    torch.testing.assert_close(referring, together[[0, 2]], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("num_views", "frames"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_attention_written_out(attn: Attention, num_views: int, frames: int) -> None:
    batch, images = 2, 2
    hidden = noise(batch * frames * num_views, 5, 16)
    bank = KVBank({NAME: noise(batch, images, 7, 16, seed=1)})
    got = ContextAttention(NAME)(attn, hidden, context=AttentionContext(num_views=num_views, bank=bank))
    rows = hidden.reshape(batch * frames, num_views * 5, 16)
    for row in range(batch * frames):
        context = torch.cat([rows[row], bank.tokens[NAME][row // frames].flatten(0, 1)])
        expected = attend(attn, rows[row][None], context[None])
        torch.testing.assert_close(
            got.reshape(batch * frames, num_views * 5, 16)[row], expected[0], rtol=0, atol=1e-6
        )


@torch.no_grad()
def test_an_object_reads_its_own_pictures_only(unet: UNet2DConditionModel) -> None:
    latents, bank = noise(6, 4, 8, 8), bank_of(unet, 2)  # two clips of three frames
    other = KVBank(
        {name: value * torch.tensor([1.0, 1.5]).view(2, 1, 1, 1) for name, value in bank.tokens.items()}
    )
    moved = (run(unet, latents, bank=other) - run(unet, latents, bank=bank)).abs().amax((1, 2, 3))
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 1e-5).all()


@torch.no_grad()
def test_dropping_the_bank_object_by_object(unet: UNet2DConditionModel) -> None:
    latents, bank = noise(6, 4, 8, 8), bank_of(unet, 3)
    dropped = bank.drop([False, True, False])
    assert dropped.flags == (True, False, True)
    assert dropped.drop([True, False, False]).flags == (False, False, True)
    got, full, none = (run(unet, latents, bank=value) for value in (dropped, bank, None))
    for rows, expected in ((slice(0, 2), full), (slice(2, 4), none), (slice(4, 6), full)):
        torch.testing.assert_close(got[rows], expected[rows], rtol=0, atol=1e-6)
    assert not torch.allclose(full[2:4], none[2:4], atol=1e-4)


@torch.no_grad()
def test_banks_are_joined(unet: UNet2DConditionModel) -> None:
    first, second = bank_of(unet, 1, seed=1), bank_of(unet, 2, seed=2).drop([True, False])
    both = KVBank.cat([first, second])
    assert both.flags == (True, False, True)
    latents = noise(3, 4, 8, 8)
    apart = torch.cat([run(unet, latents[:1], bank=first), run(unet, latents[1:], bank=second)])
    torch.testing.assert_close(run(unet, latents, bank=both), apart, rtol=0, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_reference_net(checkpointing: bool) -> None:
    reference_net, denoiser = make(1).double(), make(2).double()
    if checkpointing:
        for network in (reference_net, denoiser):
            network.enable_gradient_checkpointing()
    pictures, latents, text = noise(1, 1, 4, 8, 8), noise(2, 4, 8, 8).double(), noise(1, 5, 32).double()

    def loss() -> torch.Tensor:
        bank = fill(reference_net, pictures, text)
        return (
            denoiser(latents, 300, text, cross_attention_kwargs={"context": AttentionContext(bank=bank)})
            .sample.square()
            .mean()
        )

    loss().backward()
    weight = reference_net.conv_in.weight
    assert weight.grad is not None
    step, epsilon = noise(*weight.shape, seed=9), 1e-4
    with torch.no_grad():
        weight += epsilon * step
        high = loss()
        weight -= 2 * epsilon * step
        low = loss()
    slope = float((high - low) / (2 * epsilon))
    assert slope == pytest.approx(float((weight.grad * step).sum()), rel=1e-4)


def test_projection_starts_at_identity_and_learns(unet: UNet2DConditionModel) -> None:
    bank = bank_of(unet, 2).detach()
    projection = BankProjection(reference_layers(unet))
    projected = projection(bank)
    assert all(torch.equal(projected.tokens[name], value) for name, value in bank.tokens.items())
    assert projection(bank.drop([True, False])).flags == (False, True)
    run(unet, noise(2, 4, 8, 8), bank=projected).square().sum().backward()
    outer = [p for name, p in projection.named_parameters() if name.endswith("2.weight")]
    assert len(outer) == 7
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in outer)


@torch.no_grad()
def test_bad_banks(unet: UNet2DConditionModel) -> None:
    bank = bank_of(unet, 2)
    with pytest.raises(ValueError, match="the bank has 2 objects, but the batch has 3 rows at num_views=1"):
        run(unet, noise(3, 4, 8, 8), bank=bank)
    with pytest.raises(ValueError, match=f"no tokens for layer '{NAME}'"):
        run(unet, noise(2, 4, 8, 8), bank=KVBank({"elsewhere": noise(2, 1, 4, 32)}))
    wide = KVBank({name: noise(2, 1, 4, 48) for name in bank.tokens})
    with pytest.raises(ValueError, match="have 48 channels, the layer has 32"):
        run(unet, noise(2, 4, 8, 8), bank=wide)
    with pytest.raises(ValueError, match=r"tokens must be \[B, R, N, C\]"):
        KVBank({"a": noise(2, 1, 4, 8), "b": noise(3, 1, 4, 8)})
    with pytest.raises(ValueError, match="keep must have one flag for each of 2 objects, got 1"):
        KVBank(bank.tokens, keep=(True,))
    with pytest.raises(ValueError, match="rows must have 2 flags, got 3"):
        bank.drop([True] * 3)
    with pytest.raises(ValueError, match=r"latents must be \[B, R, C, h, w\], got \[2, 4, 8, 8\]"):
        fill(unet, noise(2, 4, 8, 8), noise(2, 5, 32))
