"""Audio attention against its formula written out, and what masks and weights do to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion.adapters.audio import (
    AudioConfig,
    AudioModule,
    AudioProjection,
    AudioProjectionConfig,
    audio_modules,
    mask_pyramid,
)
from tests.diffusion.models import make_unet

BATCH, FRAMES, SIZE = 2, 3, 4
LIP = 2


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(config: AudioConfig, inner: int = 16, *, trained: bool = True) -> AudioModule:
    """A module as if trained: what starts at zero is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AudioModule(16, inner, 12, 4, config)
    if trained:
        randomise(module)
    return module.eval()


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        if not parameter.detach().any():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    masks = torch.rand(BATCH, 1, 3, SIZE * SIZE, generator=torch.Generator().manual_seed(2))
    return noise(BATCH * FRAMES, 16, SIZE, SIZE), noise(BATCH, FRAMES, 5, 12, seed=1), masks


@torch.no_grad()
@pytest.mark.parametrize("transformer", [False, True])
def test_untrained_it_changes_nothing(transformer: bool) -> None:
    hidden, tokens, masks = inputs()
    module = make(AudioConfig(transformer=transformer), trained=False)
    assert torch.equal(module(hidden, tokens, masks), hidden)


@torch.no_grad()
@pytest.mark.parametrize("transformer", [False, True])
def test_the_formula_written_out(transformer: bool) -> None:
    """With diffusers' own attention and convolutions, frame by frame."""
    hidden, tokens, masks = inputs()
    inner = 8 if transformer else 16
    module = make(AudioConfig(transformer=transformer, width="layer"), inner)
    weights = (0.5, 2.0, -1.0)
    got = module(hidden, tokens, masks, weights)
    for row in range(BATCH * FRAMES):
        x = hidden[row : row + 1]
        if transformer:
            x = module.proj_in(module.norm(x))
        flat = x.flatten(2).transpose(1, 2)
        if transformer:
            flat = flat + module.attn1(module.norm1(flat))
        normed, sound = module.norm2(flat), tokens.flatten(0, 1)[row : row + 1]
        total = torch.zeros_like(flat)
        for index, name in enumerate(module.names):
            heard = module.attn2[name](normed, encoder_hidden_states=sound)
            heard = heard * masks[row // FRAMES, 0, index][:, None]
            grid = heard.transpose(1, 2).reshape(1, inner, SIZE, SIZE)
            total += weights[index] * module.zero_conv[name](grid).flatten(2).transpose(1, 2)
        if transformer:
            flat = flat + total
            flat = flat + module.ff(module.norm3(flat))
            expected = module.proj_out(flat.transpose(1, 2).reshape(1, inner, SIZE, SIZE))
        else:
            expected = total.transpose(1, 2).reshape(1, inner, SIZE, SIZE)
        torch.testing.assert_close(got[row : row + 1], hidden[row : row + 1] + expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_frame_hears_its_own_moment_only() -> None:
    hidden, tokens, masks = inputs()
    module = make(AudioConfig())
    louder = tokens.clone()
    louder[1, 2] += 1.0
    moved = (module(hidden, louder, masks) - module(hidden, tokens, masks)).abs().amax((1, 2, 3))
    assert (moved[:5] == 0).all()
    assert moved[5] > 1e-3


@torch.no_grad()
def test_a_branch_acts_inside_its_mask_only() -> None:
    hidden, tokens, _ = inputs()
    module = make(AudioConfig())
    masks = torch.zeros(BATCH, 1, 3, SIZE * SIZE)
    assert torch.equal(module(hidden, tokens, masks), hidden)
    masks[:, :, LIP, 5] = 1.0
    moved = (module(hidden, tokens, masks) - hidden).abs().amax((0, 1)).flatten()
    assert moved[5] > 1e-3
    assert moved.count_nonzero() == 1


@torch.no_grad()
@pytest.mark.parametrize("transformer", [False, True])
def test_an_empty_lip_mask_makes_the_lip_branch_deaf(transformer: bool) -> None:
    """Whatever the lip branch would make of the sound, nothing of it arrives; the other branches hear."""
    hidden, tokens, masks = inputs()
    masks[:, :, LIP] = 0.0
    module = make(AudioConfig(transformer=transformer))
    before = module(hidden, tokens, masks)
    attention = module.attn2["lip"]
    assert isinstance(attention, nn.Module)
    for parameter in attention.parameters():
        parameter.mul_(3.0)
    assert torch.equal(module(hidden, tokens, masks), before)
    assert not torch.allclose(module(hidden, tokens + 1.0, masks), before)
    masks[:, :, LIP] = 1.0
    assert not torch.allclose(module(hidden, tokens, masks), before)


@torch.no_grad()
def test_weights_scale_the_branches() -> None:
    hidden, tokens, masks = inputs()
    module = make(AudioConfig())
    alone = [
        module(hidden, tokens, masks, tuple(float(k == branch) for k in range(3))) - hidden
        for branch in range(3)
    ]
    mixed = module(hidden, tokens, masks, (0.5, -1.0, 2.0)) - hidden
    torch.testing.assert_close(mixed, 0.5 * alone[0] - alone[1] + 2.0 * alone[2], rtol=1e-4, atol=1e-5)
    assert torch.equal(module(hidden, tokens, masks, (0.0, 0.0, 0.0)), hidden)
    whole = torch.ones(BATCH, FRAMES, 3, SIZE * SIZE)
    torch.testing.assert_close(module(hidden, tokens, None), module(hidden, tokens, whole))


@torch.no_grad()
def test_one_branch_is_plain_cross_attention() -> None:
    hidden, tokens, _ = inputs()
    module = make(AudioConfig(branches=("all",)))
    flat = hidden.flatten(2).transpose(1, 2)
    heard = module.attn2["all"](module.norm2(flat), encoder_hidden_states=tokens.flatten(0, 1))
    expected = hidden + module.zero_conv["all"](heard.transpose(1, 2).reshape(hidden.shape))
    torch.testing.assert_close(module(hidden, tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transformer", [False, True])
def test_every_weight_learns(transformer: bool) -> None:
    module = make(AudioConfig(transformer=transformer)).train()
    module(*inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_wrong_shapes() -> None:
    hidden, tokens, masks = inputs()
    module = make(AudioConfig())
    with pytest.raises(ValueError, match=r"must be \[B, F, T, A\] with B F = 6 rows, got \[2, 2, 5, 12\]"):
        module(hidden, tokens[:, :2], masks)
    with pytest.raises(ValueError, match=r"masks must be \[2, 3 or 1, 3, 16\] here"):
        module(hidden, tokens, masks[..., :9])
    with pytest.raises(ValueError, match="weights must be one for each of"):
        module(hidden, tokens, masks, (1.0, 1.0))
    with pytest.raises(ValueError, match="heads must divide the inner width 16, got 3"):
        make(AudioConfig(heads=3))
    for config in ({"branches": ()}, {"branches": ("lip", "lip")}, {"branches": ("a.b",)}, {"heads": 0}):
        with pytest.raises(ValueError, match="must be"):
            AudioConfig(**config)
    with pytest.raises(ValueError, match="width='input' needs transformer=True"):
        AudioConfig(width="input")


def test_modules_fit_the_layers_of_a_unet() -> None:
    unet = make_unet(camera=False)
    modules = audio_modules(unet, 12, AudioConfig(heads=4, transformer=True, width="input"))
    widths = {name: tuple(module.proj_in.weight.shape[:2]) for name, module in modules.items()}
    assert widths["down_blocks.0.attentions.0"] == (32, 32)
    assert widths["down_blocks.1.attentions.0"] == (32, 64)  # 64 channels, narrowed to what came in
    assert widths["mid_block.attentions.0"] == (64, 64)
    assert widths["up_blocks.0.attentions.0"] == (32, 64)
    assert widths["up_blocks.1.attentions.1"] == (32, 32)


@torch.no_grad()
def test_projection_of_windows() -> None:
    config = AudioProjectionConfig(window=5, features=8, hidden=16, tokens=3, width=12)
    projection = AudioProjection(config)
    windows = noise(2, 4, 5, 2, 4)
    tokens = projection(windows)
    assert tokens.shape == (2, 4, 3, 12)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 4, 3), rtol=0, atol=1e-5)  # LayerNorm
    changed = windows.clone()
    changed[0, 1, 4] += 1.0
    moved = (projection(changed) - tokens).abs().amax((2, 3))
    assert moved.count_nonzero() == 1
    assert moved[0, 1] > 1e-3
    for bad in (windows[:, :, :4], windows[..., :3], windows[0]):
        with pytest.raises(
            ValueError, match=r"windows must be \[B, F, 5, \.\.\.\] with 8 features per frame"
        ):
            projection(bad)
    with pytest.raises(ValueError, match="window must be odd"):
        AudioProjectionConfig(window=4)
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        AudioProjectionConfig(tokens=0)


def test_mask_pyramid() -> None:
    masks = torch.zeros(1, 2, 64, 48)
    masks[:, 0] = 1.0
    masks[:, 1, :32] = 1.0  # the upper half
    pyramid = mask_pyramid(masks, 8, 6, 3)
    assert {size: tuple(value.shape) for size, value in pyramid.items()} == {
        (8, 6): (1, 1, 2, 48),
        (4, 3): (1, 1, 2, 12),
        (2, 2): (1, 1, 2, 4),
    }
    for (height, width), value in pyramid.items():
        torch.testing.assert_close(value[0, 0, 0], torch.ones(height * width))
        rows = value[0, 0, 1].reshape(height, width).mean(1)
        assert rows.tolist() == [1.0] * (height // 2) + [0.0] * (height // 2)
    per_frame = mask_pyramid(masks.expand(3, -1, -1, -1)[None], 8, 6, 1)
    assert per_frame[8, 6].shape == (1, 3, 2, 48)
    assert torch.equal(per_frame[8, 6][:, 1:2], pyramid[8, 6])
    with pytest.raises(
        ValueError, match=r"masks must be \[B, K, H, W\] or \[B, F, K, H, W\], got \[2, 64, 48\]"
    ):
        mask_pyramid(masks[0], 8, 6, 1)
