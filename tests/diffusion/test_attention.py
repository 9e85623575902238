"""Multiview attention on an unmodified UNet."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging

from diffusion.adapters.camera import camera_labels
from diffusion.attention import (
    AttentionContext,
    ContextAttention,
    add_context_attention,
    join_tokens,
    split_tokens,
)
from tests.diffusion.models import make_unet, orbit


@pytest.fixture(scope="module")
def plain() -> UNet2DConditionModel:
    return make_unet(camera=False).eval()


@pytest.fixture(scope="module")
def joined() -> UNet2DConditionModel:
    unet = make_unet(camera=False).eval()
    add_context_attention(unet)
    return unet


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(rows, 4, 8, 8, generator=generator)
    return latents, torch.full((rows,), 300), torch.randn(rows, 5, 32, generator=generator)


def run(unet: UNet2DConditionModel, *args: torch.Tensor, num_views: int | None = None) -> torch.Tensor:
    kwargs = None if num_views is None else {"context": AttentionContext(num_views=num_views)}
    return unet(*args, cross_attention_kwargs=kwargs, return_dict=False)[0]


@torch.no_grad()
def test_one_view_equals_the_ordinary_processor(
    plain: UNet2DConditionModel, joined: UNet2DConditionModel, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(plain, *inputs(3))
    diffusers_logging.enable_propagation()
    try:
        torch.testing.assert_close(run(joined, *inputs(3), num_views=1), expected, rtol=0, atol=1e-6)
        assert not caplog.records  # diffusers warns about arguments that a processor does not take ...
        run(plain, *inputs(3), num_views=1)
        assert "context" in caplog.text  # ... as the ordinary one does
    finally:
        diffusers_logging.disable_propagation()
    torch.testing.assert_close(run(joined, *inputs(3)), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_views_of_an_object_see_each_other_and_no_other_object(joined: UNet2DConditionModel) -> None:
    latents, t, text = inputs(8)
    before = run(joined, latents, t, text, num_views=4)
    changed = latents.clone()
    changed[1] += 1.0
    moved = (run(joined, changed, t, text, num_views=4) - before).abs().amax((1, 2, 3))
    assert (moved[:4] > 1e-5).all()
    assert (moved[4:] == 0).all()
    apart = (run(joined, changed, t, text, num_views=1) - run(joined, latents, t, text, num_views=1)).abs()
    assert (apart[[0, 2, 3]] == 0).all()


@torch.no_grad()
def test_views_are_treated_alike(joined: UNet2DConditionModel) -> None:
    latents, t, text = inputs(4)
    text = text[:1].expand(4, -1, -1)
    order = torch.tensor([2, 0, 3, 1])
    straight = run(joined, latents, t, text, num_views=4)
    torch.testing.assert_close(
        run(joined, latents[order], t, text, num_views=4), straight[order], atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_equal_views_act_as_one(joined: UNet2DConditionModel) -> None:
    """Attention over copies of the same tokens is attention over one copy."""
    latents, t, text = inputs(1)
    four = run(joined, latents.expand(4, -1, -1, -1), t.expand(4), text.expand(4, -1, -1), num_views=4)
    torch.testing.assert_close(four, run(joined, latents, t, text).expand(4, -1, -1, -1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_of_an_object_serves_all_its_views(joined: UNet2DConditionModel) -> None:
    latents, t, text = inputs(4)
    shared = run(joined, latents, t, text[:2], num_views=2)
    repeated = run(joined, latents, t, text[:2].repeat_interleave(2, 0), num_views=2)
    torch.testing.assert_close(shared, repeated, atol=1e-6, rtol=0)


def test_gradients_flow_to_every_weight_and_between_views_under_autocast() -> None:
    unet = make_unet(camera=True)
    add_context_attention(unet)
    unet.enable_gradient_checkpointing()
    unet.train()
    latents, t, text = inputs(4)
    latents.requires_grad_()
    labels = camera_labels(unet, orbit(1, 4))
    with torch.autocast("cpu", torch.bfloat16):
        out = unet(
            latents,
            t,
            text[:1],
            class_labels=labels,
            cross_attention_kwargs={"context": AttentionContext(num_views=4)},
        ).sample
    out[0].float().square().sum().backward()
    assert latents.grad is not None
    assert (latents.grad.abs().amax((1, 2, 3)) > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())


def test_the_adapter_adds_no_weights(plain: UNet2DConditionModel, joined: UNet2DConditionModel) -> None:
    assert plain.state_dict().keys() == joined.state_dict().keys()
    assert {type(p) for p in joined.attn_processors.values()} == {ContextAttention}


def test_join_and_split_are_inverse_and_extra_tokens_come_last() -> None:
    tokens = torch.arange(24.0).reshape(4, 3, 2)
    joined = join_tokens(tokens, 2)
    assert joined.shape == (2, 6, 2)
    assert torch.equal(joined[0, 3:], tokens[1])
    assert torch.equal(split_tokens(joined, 2), tokens)
    extra = torch.full((2, 5, 2), -1.0)
    assert torch.equal(join_tokens(tokens, 2, extra)[:, 6:], extra)
    with pytest.raises(ValueError, match="num_views is 3, but the batch has 4 rows"):
        join_tokens(tokens, 3)
