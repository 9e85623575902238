"""The talking model: what it leaves alone, what each condition moves, and that it can learn."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avatar.conditions import Conditions
from avatar.config import TINY
from avatar.lessons.base import Lesson
from avatar.lessons.config import Image, Video
from avatar.model import TalkingModel
from avatar.trainable import set_trainable
from diffusion.adapters.bank import KVBank
from diffusion.attention import add_context_attention
from diffusion.backbone import Backbone, load
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser
from tests.avatar.talking import (
    FRAMES,
    clips,
    make_conditions,
    make_flat_unet,
    make_model,
    noise,
    small_config,
)
from tests.diffusion.models import make_unet, orbit


@pytest.fixture(scope="module")
def model() -> TalkingModel:
    return make_model()


@torch.no_grad()
def test_untrained_without_a_reference_it_is_the_bare_unet() -> None:
    model = make_model(trained=False)
    plain = make_unet(camera=False).eval()
    add_context_attention(plain)
    conditions = replace(make_conditions(model), reference=None)
    assert conditions.identity is not None
    expected = plain(clips().flatten(0, 1), 300, model.identity(conditions.identity)).sample
    assert torch.equal(model(clips(), 300, conditions).flatten(0, 1), expected)


@torch.no_grad()
def test_untrained_the_reference_is_all_it_adds() -> None:
    model = make_model(trained=False)
    conditions = make_conditions(model)
    assert torch.equal(model(clips(), 300, conditions), model(clips(), 300, conditions, still=True))
    without = replace(conditions, reference=None)
    assert not torch.allclose(model(clips(), 300, conditions), model(clips(), 300, without), atol=1e-4)


@torch.no_grad()
def test_the_backbone_goes_on_as_before(tiny_weights: Path) -> None:
    """3D and talking share one UNet in memory: predictions of views stay the same to the bit."""
    backbone = load(str(tiny_weights))
    channels = backbone.latent_channels
    views, camera = noise(1, 4, channels, 16, 16), orbit(1, 4)
    text = backbone.encode_prompt(["a red mushroom"])
    before = backbone.predict(views, 300, text, camera=camera)
    names = list(backbone.unet.state_dict())
    model = TalkingModel(backbone.unet, TINY)
    assert model.denoiser.unet is model.unet is backbone.unet
    assert list(backbone.unet.state_dict()) == names
    assert torch.equal(backbone.predict(views, 300, text, camera=camera), before)
    out = model(noise(1, 2, channels, 16, 16), 300, Conditions())
    assert out.shape == (1, 2, channels, 16, 16)
    assert Backbone.predict(backbone, views, 300, text, camera=camera).equal(before)


@torch.no_grad()
def test_words_and_talking_share_one_denoiser() -> None:
    """The model's own denoiser draws from words what the backbone's draws, and frames from the same UNet's weights."""
    model = make_model()
    plain = UNetDenoiser(make_unet(camera=False).eval())
    words = Inputs(conditioning=Conditioning(embeds=noise(1, 5, 32)))
    expected = plain(clips(), 300, words)
    assert torch.equal(model.denoiser(clips(), 300, words), expected)
    frames = model(clips(), 300, make_conditions(model))
    assert torch.equal(model.denoiser(clips(), 300, words), expected)  # a talking call leaves nothing behind
    assert not torch.allclose(frames, expected, atol=1e-4)
    assert model.reference_denoiser is model.denoiser
    for parameter in model.denoiser.unet.conv_out.parameters():
        parameter.zero_()
    assert not model(clips(), 300, make_conditions(model)).any()
    own = make_model(reference_net="copy")
    assert own.denoiser.unet is own.unet
    assert own.reference_denoiser.unet is own.reference_net


@torch.no_grad()
def test_every_condition_counts(model: TalkingModel) -> None:
    conditions = make_conditions(model)
    other = make_conditions(model, seed=50)
    before = model(clips(), 300, conditions)
    for name in ("reference", "identity", "location", "audio", "masks", "motion"):
        after = model(clips(), 300, replace(conditions, **{name: getattr(other, name)}))
        assert not torch.allclose(after, before, atol=1e-4), name
    faster = replace(conditions, speed=torch.full((2, FRAMES), 40.0))
    assert not torch.allclose(model(clips(), 300, faster), before, atol=1e-4)
    quiet = replace(conditions, weights=(1.0, 1.0, 0.0))
    assert not torch.allclose(model(clips(), 300, quiet), before, atol=1e-4)


@torch.no_grad()
def test_absent_conditions_are_zeros(model: TalkingModel) -> None:
    conditions = make_conditions(model)
    assert conditions.audio is not None
    assert conditions.identity is not None
    assert conditions.location is not None
    nothing = Conditions(
        identity=torch.zeros_like(conditions.identity),
        location=torch.zeros_like(conditions.location),
        audio=torch.zeros_like(conditions.audio),
        masks=model.encode_masks(torch.ones(2, 3, 64, 64), 8, 8),
        weights=(1.0, 1.0, 1.0),
    )
    torch.testing.assert_close(
        model(clips(), 300, Conditions()), model(clips(), 300, nothing), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_clips_are_strangers_and_frames_are_not(model: TalkingModel) -> None:
    conditions, latents = make_conditions(model), clips()
    changed = latents.clone()
    changed[1, 0] += 1.0
    moved = (model(changed, 300, conditions) - model(latents, 300, conditions)).abs().amax((2, 3, 4))
    assert (moved[0] == 0).all()
    assert (moved[1] > 1e-5).all()
    apart = model(changed, 300, conditions, still=True) - model(latents, 300, conditions, still=True)
    assert (apart.abs().amax((2, 3, 4)) > 0).tolist() == [[False] * FRAMES, [True] + [False] * (FRAMES - 1)]


@torch.no_grad()
def test_a_batch_is_its_clips_one_by_one(model: TalkingModel) -> None:
    first, second = make_conditions(model, 1), make_conditions(model, 1, seed=9)
    latents = clips()
    both = model(latents, torch.tensor([300, 20]), Conditions.cat([first, second]))
    apart = torch.cat([model(latents[:1], 300, first), model(latents[1:], 20, second)])
    torch.testing.assert_close(both, apart, rtol=0, atol=1e-5)
    per_frame = model(latents, torch.tensor([[300] * FRAMES, [20] * FRAMES]), Conditions.cat([first, second]))
    assert torch.equal(per_frame, both)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 12), (6, 10), (7, 9)])
def test_pictures_need_not_be_square(model: TalkingModel, height: int, width: int) -> None:
    conditions = make_conditions(model, 1, height=height, width=width)
    out = model(clips(1, height=height, width=width), 300, conditions)
    assert out.shape == (1, FRAMES, 4, height, width)
    assert out.isfinite().all()


@torch.no_grad()
def test_motion_frames_come_from_the_layer_of_the_same_name(model: TalkingModel) -> None:
    """Only the ReferenceNet's view of the last frames counts; their order does too."""
    conditions = make_conditions(model)
    bank = conditions.motion
    assert bank is not None
    assert bank.num_images == 2
    turned = KVBank({name: value.flip(1) for name, value in bank.tokens.items()})
    before = model(clips(), 300, conditions)
    assert not torch.allclose(model(clips(), 300, replace(conditions, motion=turned)), before, atol=1e-5)
    unread = {name: value + 1.0 if "attn1" not in name else value for name, value in bank.tokens.items()}
    assert torch.equal(model(clips(), 300, replace(conditions, motion=KVBank(unread))), before)


@torch.no_grad()
def test_cameras(model: TalkingModel) -> None:
    posed = make_model(unet=make_unet(camera=True))
    conditions = make_conditions(posed, 1)
    front = orbit(1, FRAMES)[:, :1].expand(-1, FRAMES, -1, -1)
    around = replace(conditions, camera=orbit(1, FRAMES))
    latents = clips(1)
    torch.testing.assert_close(
        posed(latents, 300, replace(conditions, camera=front)), posed(latents, 300, conditions)
    )
    assert not torch.allclose(posed(latents, 300, around), posed(latents, 300, conditions), atol=1e-5)
    with pytest.raises(ValueError, match="this backbone has no camera embedding"):
        model(latents, 300, replace(make_conditions(model, 1), camera=front))
    with pytest.raises(
        ValueError, match=r"camera must be \[1, 3, 4, 4\] for these latents, got \[1, 2, 4, 4\]"
    ):
        posed(latents, 300, replace(conditions, camera=front[:, :2]))


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_changes_neither_results_nor_gradients(training: bool) -> None:
    results = []
    for checkpointing in (False, True):
        model = make_model(reference_net="copy", tune_unet="all").train(training)
        model.enable_gradient_checkpointing(checkpointing)
        out = model(clips(1), 300, make_conditions(model, 1))
        out.square().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((out.detach(), grads))
    (plain, grads), (checkpointed, others) = results
    torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-6)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, rtol=1e-3, atol=1e-6, msg=name)


def test_half_precision() -> None:
    """Mixed, as in training, and whole, as on a GPU: close to single precision, gradients everywhere."""
    model = make_model()
    chosen = set_trainable(model, Video().groups())
    with torch.no_grad():
        expected = model(clips(), 300, make_conditions(model))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(clips(), 300, make_conditions(model).drop(reference=[True, False]))
    mixed.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in chosen.values())
    torch.testing.assert_close(mixed[1].detach(), expected[1], rtol=0.1, atol=0.1)
    with torch.no_grad():
        model.to(torch.bfloat16)
        whole = model(clips(), 300, make_conditions(model))
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole, expected, rtol=0.2, atol=0.2)


@torch.no_grad()
def test_a_deep_copy_is_independent(model: TalkingModel) -> None:
    """As an averaged copy of the weights is kept during training."""
    twin = copy.deepcopy(model)
    conditions = make_conditions(model)
    before = model(clips(), 300, conditions)
    assert torch.equal(twin(clips(), 300, conditions), before)
    for parameter in twin.parameters():
        parameter.zero_()
    assert torch.equal(model(clips(), 300, conditions), before)
    assert not twin(clips(), 300, conditions).any()
    assert twin.denoiser.unet is twin.unet


def test_two_models_on_one_unet() -> None:
    unet = make_unet(camera=False).eval()
    quiet = TalkingModel(unet, small_config()).eval()
    with torch.no_grad():
        before = quiet(clips(), 300, Conditions())
        loud = TalkingModel(unet, small_config()).eval()
        for parameter in loud.audio.parameters():
            parameter.fill_(0.1)
        assert not torch.allclose(loud(clips(), 300, Conditions()), before, atol=1e-4)
        assert torch.equal(quiet(clips(), 300, Conditions()), before)


def test_wrong_shapes(model: TalkingModel) -> None:
    conditions = make_conditions(model)
    assert conditions.audio is not None
    assert conditions.location is not None
    cases = [
        (clips()[:, 0], {}, r"latents must be \[B, F, 4, h, w\], got \[2, 4, 8, 8\]"),
        (clips(), {"identity": noise(1, 24)}, "identity must have 2 rows, one per clip, got 1"),
        (clips(), {"audio": conditions.audio[:, :2]}, r"audio must be \[2, 3, 'T', 20\]"),
        (clips(), {"speed": torch.zeros(2)}, r"speed must be \[2, 3\], a number a frame, got \[2\]"),
        (clips(), {"weights": (1.0,)}, "weights must be one for each of"),
        (clips(), {"location": conditions.location[:1]}, r"location must be \[2, 3 or 1, ...\]"),
        (clips(), {"location": conditions.location[..., :4]}, "location is for latents of"),
        (clips(), {"masks": model.encode_masks(torch.ones(2, 3, 8, 8), 16, 16)}, "masks are for sizes"),
        (clips(), {"motion": make_conditions(model, 1).motion}, "motion must have 2 clips, got 1"),
    ]
    for latents, changes, message in cases:
        with pytest.raises(ValueError, match=message):
            model(latents, 300, replace(conditions, **changes))
    with pytest.raises(ValueError, match=r"timestep must be \[\] or \[2\] or \[2, 3\], got \[3\]"):
        model(clips(), torch.tensor([1, 2, 3]), conditions)
    with pytest.raises(ValueError, match=r"latents must be \[B, R, 4, h, w\]"):
        model.encode_reference(clips()[0])
    with pytest.raises(ValueError, match=r"identity must be \[B, 24\]"):
        model.encode_reference(clips(), noise(2, 7))
    with pytest.raises(ValueError, match=r"with one of \('pose', 'face', 'lip'\) each, got \[2, 2, 8, 8\]"):
        model.encode_masks(torch.ones(2, 2, 8, 8), 8, 8)
    with pytest.raises(ValueError, match=r"masks must be \[B, F, 1, H, W\] with H and W multiples of 2"):
        model.encode_location(torch.ones(2, 1, 1, 15, 16))
    with pytest.raises(ValueError, match="built without it"):
        make_model(use_speed=False)(clips(), 300, conditions)


@pytest.mark.parametrize("lesson", [Image(), Video()])
def test_it_learns_two_clips_by_heart(lesson: Lesson) -> None:
    """60 steps with fixed noise; the targets differ between clips, so conditions have to be used."""
    model = make_model(trained=False, unet=make_flat_unet(), tune_unet="all" if lesson.still else "none")
    optimiser = torch.optim.Adam(set_trainable(model, lesson.groups()).values(), lr=1e-2)
    latents, target = clips(2, 2, height=4, width=4), noise(2, 2, 4, 4, 4, seed=8)
    with torch.no_grad():
        fixed = make_conditions(model, 2, 2, height=4, width=4)
    losses = []
    for _ in range(60):
        if lesson.still:
            reference = model.encode_reference(noise(2, 1, 4, 4, 4, seed=3), fixed.identity)
            conditions = replace(fixed, reference=reference)
        else:
            conditions = replace(fixed, audio=model.encode_audio(noise(2, 2, 5, 2, 3, seed=4)))
        loss = (model(latents, 300, conditions, still=lesson.still) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
