"""The loss of each lesson: what it depends on, what it trains, and how conditions are dropped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avatar.lessons.base import Lesson
from avatar.lessons.config import Image, Motion, Video
from avatar.model import TalkingModel
from avatar.trainable import set_trainable
from avatar.training import TalkingBatch, conditions_of, lesson_loss, offset_noise
from diffusion.schedule import Schedule
from experiments.training.models import build_scheduler
from tests.avatar.talking import FRAMES, HEIGHT, WIDTH, clips, make_model, noise

SCHEDULE = Schedule.from_scheduler(build_scheduler())
NOTHING_LOST = Motion(drop_motion=0.0)


def make_batch(count: int = 2) -> TalkingBatch:
    uniform = torch.Generator().manual_seed(1)
    return TalkingBatch(
        latents=clips(count),
        past=noise(count, 2, 4, HEIGHT, WIDTH, seed=2),
        reference=noise(count, 1, 4, HEIGHT, WIDTH, seed=3),
        identity=noise(count, 24, seed=4),
        windows=noise(count, FRAMES, 5, 2, 3, seed=5),
        location=torch.rand(count, 1, 1, 2 * HEIGHT, 2 * WIDTH, generator=uniform),
        regions=torch.rand(count, 3, 64, 64, generator=uniform),
        speed=torch.full((count, FRAMES), 12.0),
        blink=torch.rand(count, FRAMES, generator=uniform),
    )


def loss_of(model: TalkingModel, batch: TalkingBatch, lesson: Lesson = NOTHING_LOST) -> torch.Tensor:
    return lesson_loss(model, SCHEDULE, batch, lesson, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("lesson", [Image(), Video(drop_motion=0.0), NOTHING_LOST])
def test_each_lesson_trains_its_own_and_nothing_else(lesson: Image | Video | Motion) -> None:
    model = make_model(reference_expansion=1.0)
    chosen = set_trainable(model, lesson.groups())
    loss = loss_of(model, make_batch(), lesson)
    assert loss.shape == (2,)
    loss.sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched <= chosen.keys()
    # Some biases before a norm get no gradient; every kind of layer gets one.
    assert len(touched) > 0.8 * len(chosen)
    groups = {name.split(".")[0] for name in touched}
    wanted = {
        "image": {"reference_projection", "identity", "locator"},
        "video": {"audio", "audio_projection", "motion"},
        "motion": {"motion", "speed", "blink"},
    }
    assert groups == wanted[lesson.name]


def test_pictures_know_nothing_of_sound_and_frames_before() -> None:
    model, batch = make_model(), make_batch()
    other = replace(batch, windows=batch.windows + 1, past=batch.past + 1, blink=1 - batch.blink)
    video = Video(drop_motion=0.0)
    with torch.no_grad():
        assert torch.equal(loss_of(model, batch, Image()), loss_of(model, other, Image()))
        for name in ("windows", "past"):
            changed = replace(batch, **{name: getattr(other, name)})
            assert not torch.equal(loss_of(model, batch, video), loss_of(model, changed, video))
        changed = replace(batch, blink=other.blink)
        assert torch.equal(loss_of(model, batch, video), loss_of(model, changed, video))
        assert not torch.equal(loss_of(model, batch), loss_of(model, changed))


def test_min_snr_weights_each_clip_by_its_own_timestep() -> None:
    model, batch = make_model(), make_batch(2)
    with torch.no_grad():
        plain = loss_of(model, batch, replace(NOTHING_LOST, min_snr_gamma=None))
        weighted = loss_of(model, batch, replace(NOTHING_LOST, min_snr_gamma=5.0))
    t = SCHEDULE.sample_timesteps(2, generator=torch.Generator().manual_seed(7))
    assert t[0] != t[1]
    assert torch.allclose(weighted, plain * SCHEDULE.min_snr_weight(t, 5.0))


def test_lips_count_more_where_they_are() -> None:
    model, batch = make_model(), make_batch()
    batch.regions[:, 2] = 0.0
    batch.regions[:, 2, 32:48, 16:48] = 1.0  # rows 4 and 5, columns 2 to 5 of the latents
    with torch.no_grad():
        plain = loss_of(model, batch, replace(NOTHING_LOST, min_snr_gamma=None))
        same = loss_of(
            model,
            replace(batch, regions=torch.zeros_like(batch.regions)),
            replace(NOTHING_LOST, lip_weight=9.0),
        )
        weighted = loss_of(model, batch, replace(NOTHING_LOST, min_snr_gamma=None, lip_weight=9.0))
    assert not torch.allclose(weighted, plain)
    assert same.shape == (2,)
    from avatar.training import _importance

    weight = _importance(model, batch, Video(lip_weight=9.0))[:, 0, 0]
    assert weight.shape == (2, HEIGHT, WIDTH)
    assert torch.allclose(weight.mean((1, 2)), torch.ones(2))
    assert torch.allclose(weight[:, 4, 3] / weight[:, 0, 0], torch.full((2,), 10.0))


def test_dropped_conditions_are_those_of_nobody() -> None:
    model, batch = make_model(), make_batch()
    config = Motion(drop_reference=1.0, drop_audio=1.0, drop_motion=1.0)
    dropped = conditions_of(model, batch, config, generator=torch.Generator().manual_seed(0))
    assert dropped.reference is not None
    assert dropped.motion is not None
    assert not any(dropped.reference.flags)
    assert not any(bool(tokens.any()) for tokens in dropped.motion.tokens.values())
    with torch.no_grad():
        # Frames before that are all zero are what a first clip sees.
        first = replace(dropped, motion=None)
        assert torch.equal(model(batch.latents, 500, dropped), model(batch.latents, 500, first))


@torch.no_grad()
def test_channels_share_the_loss_by_their_weights() -> None:
    model, batch, config = make_model(), make_batch(), Image()
    losses = [
        lesson_loss(
            model, SCHEDULE, batch, config,
            channel_weights=weights, generator=torch.Generator().manual_seed(7),
        )
        for weights in (None, *4 * torch.eye(4))
    ]  # fmt: skip
    assert torch.allclose(losses[0], torch.stack(losses[1:]).mean(0))
    assert not torch.allclose(losses[0], losses[1])


def test_offset_noise() -> None:
    shape = torch.Size((64, 6, 4, 8, 8))
    noisy = offset_noise(shape, 0.5, generator=torch.Generator().manual_seed(0))
    means = noisy.mean((1, 3, 4))  # of a clip and channel
    assert float(means.std()) == pytest.approx((0.25 + 1 / (6 * 64)) ** 0.5, rel=0.1)
    plain = offset_noise(shape, 0.0, generator=torch.Generator().manual_seed(0))
    assert float(plain.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_snr_gamma", 0.0),
        ("noise_offset", -0.1),
        ("lip_weight", -1.0),
        ("drop_audio", 1.5),
        ("num_frames", 0),
    ],
)
def test_settings_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Video(**{name: value})  # type: ignore[arg-type]


def test_a_measurement_loses_nothing_and_keeps_what_counts() -> None:
    lesson = Video(lip_weight=2.0, freeze_sound=True, num_frames=5, drop_audio=0.5).undisturbed()
    assert lesson.dropped() == (0.0, 0.0, 0.0)
    assert (lesson.min_snr_gamma, lesson.noise_offset) == (None, 0.0)
    assert (lesson.lip_weight, lesson.frames(), lesson.freeze_sound) == (2.0, 5, True)
