"""Temporal attention: parity with diffusers' module, frames normalised one by one, motion frames, speed."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from diffusion.adapters.motion import MotionConfig, MotionModule, motion_modules, sinusoids
from tests.diffusion.models import make_unet

CHANNELS, SIZE, FRAMES = 16, 4, 5
PLACES = SIZE * SIZE


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(
    speed: int = 0, *, trained: bool = True, motion_frames: int = 2, attentions: int = 1
) -> MotionModule:
    config = MotionConfig(
        heads=2, attentions=attentions, ff_mult=4, motion_frames=motion_frames, max_frames=12
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MotionModule(CHANNELS, 4, config, speed)
    if trained:
        randomise(module)
    return module.eval()


def randomise(module: nn.Module) -> None:
    """As if trained: what starts at zero or one does not stay there."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def test_untrained_it_changes_nothing() -> None:
    hidden = noise(2 * FRAMES, CHANNELS, SIZE, SIZE)
    module = make(8, trained=False)
    assert torch.equal(module(hidden, FRAMES, noise(2, 2, PLACES, CHANNELS), noise(2, FRAMES, 8)), hidden)


@torch.no_grad()
def test_parity_with_diffusers_where_frames_share_their_statistics() -> None:
    """diffusers normalises over all frames at once; frames that are shuffles of one another have equal statistics."""
    module = make(motion_frames=0, attentions=2)
    theirs = AnimateDiffTransformer3D(
        num_attention_heads=2,
        attention_head_dim=CHANNELS // 2,
        in_channels=CHANNELS,
        norm_num_groups=4,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=12,
    ).eval()
    renamed = {}
    for name, value in module.state_dict().items():
        name = name.replace("attentions.", "transformer_blocks.0.attn").replace(
            "norms.", "transformer_blocks.0.norm"
        )
        for place in (1, 0):
            name = name.replace(f".attn{place}.", f".attn{place + 1}.").replace(
                f".norm{place}.", f".norm{place + 1}."
            )
        name = "transformer_blocks.0." + name if name.startswith("ff.") else name
        renamed[name.replace("ff_norm", "transformer_blocks.0.norm3")] = value
    missing, unexpected = theirs.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert all("pos_embed" in name for name in missing)
    frame = noise(CHANNELS, PLACES)
    order = torch.Generator().manual_seed(3)
    hidden = torch.stack([frame[:, torch.randperm(PLACES, generator=order)] for _ in range(FRAMES)])
    hidden = hidden.reshape(FRAMES, CHANNELS, SIZE, SIZE)
    torch.testing.assert_close(
        module(hidden, FRAMES), theirs(hidden, num_frames=FRAMES), rtol=1e-4, atol=1e-5
    )
    scaled = hidden * torch.linspace(0.5, 3.0, FRAMES).view(-1, 1, 1, 1)
    assert not torch.allclose(module(scaled, FRAMES), theirs(scaled, num_frames=FRAMES), atol=1e-2)


@torch.no_grad()
def test_a_frame_is_normalised_by_its_own_statistics() -> None:
    """With the attention's output cut, a frame must not notice how bright another one is."""
    module = make()
    for attention in module.attentions:
        for parameter in attention.to_out.parameters():
            parameter.zero_()
    hidden = noise(FRAMES, CHANNELS, SIZE, SIZE)
    changed = hidden.clone()
    changed[2] = 50.0 * changed[2] + 3.0
    before, after = module(hidden, FRAMES), module(changed, FRAMES)
    others = [0, 1, 3, 4]
    assert torch.equal(after[others], before[others])
    assert not torch.allclose(after[2] - changed[2], before[2] - hidden[2])


@torch.no_grad()
def test_places_see_themselves_in_all_frames_of_their_clip() -> None:
    module = make()
    hidden = noise(2 * FRAMES, CHANNELS, SIZE, SIZE)
    # Swapping values within a group keeps the frame's statistics, so only attention can carry the change.
    group = CHANNELS // 4
    changed = hidden.clone()
    changed[1, :group, 0, 0] = hidden[1, :group, 0, 0].flip(0)
    moved = (module(changed, FRAMES) - module(hidden, FRAMES)).abs().amax(1)
    assert (moved[:FRAMES, 0, 0] > 1e-4).all()
    moved[:FRAMES, 0, 0] = 0.0
    assert float(moved.max()) < 1e-5


@torch.no_grad()
def test_order_matters() -> None:
    module = make()
    hidden = noise(FRAMES, CHANNELS, SIZE, SIZE)
    backwards = module(hidden.flip(0), FRAMES).flip(0)
    assert not torch.allclose(backwards, module(hidden, FRAMES), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("attentions", [1, 2])
def test_motion_frames_are_frames_in_front_that_are_left_out(attentions: int) -> None:
    """The same as a longer clip whose first frames are those features."""
    module = make(attentions=attentions)
    hidden, motion = noise(2 * FRAMES, CHANNELS, SIZE, SIZE), noise(2, 2, PLACES, CHANNELS, seed=1)
    before = motion.transpose(2, 3).reshape(2, 2, CHANNELS, SIZE, SIZE)
    longer = torch.cat([before, hidden.unflatten(0, (2, FRAMES))], dim=1).flatten(0, 1)
    module.motion_frames = 0
    expected = module(longer, FRAMES + 2).unflatten(0, (2, FRAMES + 2))[:, 2:].flatten(0, 1)
    module.motion_frames = 2
    got = module(hidden, FRAMES, motion)
    assert got.shape == hidden.shape
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(
        module(hidden, FRAMES, motion + noise(2, 2, PLACES, CHANNELS, seed=2)), got, atol=1e-3
    )
    zeros = module(hidden, FRAMES, torch.zeros_like(motion))
    assert torch.equal(module(hidden, FRAMES), zeros)


@torch.no_grad()
def test_speed_is_added_and_starts_at_nothing() -> None:
    hidden, speed = noise(FRAMES, CHANNELS, SIZE, SIZE), noise(1, FRAMES, 8, seed=1)
    module = make(8)
    assert module.speed is not None
    free = module(hidden, FRAMES)
    assert not torch.allclose(module(hidden, FRAMES, None, speed), free)
    module.speed.weight.zero_()
    assert torch.equal(module(hidden, FRAMES, None, speed), free)
    with pytest.raises(ValueError, match=r"speed must be \[1, 5, 8\], got \[1, 4, 8\]"):
        module(hidden, FRAMES, None, speed[:, :4])
    with pytest.raises(ValueError, match="built without it"):
        make()(hidden, FRAMES, None, speed)


@pytest.mark.parametrize("attentions", [1, 2])
def test_every_weight_learns(attentions: int) -> None:
    module = make(8, attentions=attentions).train()
    hidden, motion = noise(FRAMES, CHANNELS, SIZE, SIZE), noise(1, 2, PLACES, CHANNELS, seed=1)
    module(hidden, FRAMES, motion, noise(1, FRAMES, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_wrong_shapes() -> None:
    module = make()
    hidden = noise(2 * FRAMES, CHANNELS, SIZE, SIZE)
    with pytest.raises(ValueError, match="num_frames is 3, but the batch has 10 rows"):
        module(hidden, 3)
    with pytest.raises(ValueError, match=r"motion must be \[2, 'M', 16, 16\] here, got \[2, 2, 9, 16\]"):
        module(hidden, FRAMES, noise(2, 2, 9, CHANNELS))
    with pytest.raises(ValueError, match="2 motion frames and 11 frames are more than max_frames=12"):
        module(noise(11, CHANNELS, SIZE, SIZE), 11)
    with pytest.raises(ValueError, match="heads must divide the layer's 16 channels, got 3"):
        MotionModule(CHANNELS, 4, MotionConfig(heads=3))
    for config in (
        {"heads": 0},
        {"attentions": 0},
        {"ff_mult": 0},
        {"motion_frames": 32},
        {"motion_frames": -1},
    ):
        with pytest.raises(ValueError, match="must be at least"):
            MotionConfig(**config)


def test_positions() -> None:
    table = sinusoids(4, 6)
    assert table[0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    rate = 10000.0 ** (-2 / 6)
    assert table[3, 2:4].tolist() == pytest.approx([math.sin(3 * rate), math.cos(3 * rate)], abs=1e-6)
    assert "positions" not in make().state_dict()
    with pytest.raises(ValueError, match="channels must be even"):
        sinusoids(4, 5)


def test_modules_fit_the_layers_of_a_unet() -> None:
    modules = motion_modules(make_unet(camera=False), MotionConfig(), speed_width=8)
    assert len(modules) == 7
    assert modules["mid_block.attentions.0"].proj_in.in_features == 64
