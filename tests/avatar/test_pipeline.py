"""Portrait and sound to frames: any length, from any clip, with controls that reach the frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest
import torch

from avatar.audio import AudioClip
from avatar.audio_features import FrameFeatures, LogMelConfig
from avatar.config import TINY
from avatar.model import TalkingModel
from avatar.pipeline import Face, TalkingClip, animate
from avatar.settings import AnimateConfig
from diffusion.backbone import Backbone, load
from tests.avatar.talking import randomise

FPS = Fraction(25)
QUICK = AnimateConfig(num_steps=1, clip_frames=3, guidance_scale_audio=1.0)


@cache
def _parts() -> tuple[TalkingModel, Backbone]:
    backbone = load("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TalkingModel(backbone.unet, TINY)
    randomise(model)
    return model.eval().requires_grad_(False), backbone


def _face() -> Face:
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), size=128)[0]
    return Face(image=image, location=torch.ones(1, 128, 128), regions=torch.ones(3, 128, 128))


def _features(seconds: float = 0.3, fps: Fraction = FPS) -> FrameFeatures:
    generator = torch.Generator().manual_seed(1)
    samples = 0.2 * torch.randn(round(16_000 * seconds), generator=generator).clamp(-4, 4)
    return LogMelConfig().build().of(AudioClip(samples), fps)


def _generators(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))


def _animate(
    config: AnimateConfig = QUICK, features: FrameFeatures | None = None, **more: object
) -> list[TalkingClip]:
    model, backbone = _parts()
    return list(
        animate(
            model, backbone, _face(), features or _features(), fps=FPS, generators=_generators, config=config,
            **more,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_frames_cover_the_sound_and_the_last_clip_is_cut() -> None:
    clips = _animate()
    assert [clip.start for clip in clips] == [0, 3, 6]
    assert [len(clip.images) for clip in clips] == [3, 3, 2]
    assert all(clip.images.shape[1:] == (3, 128, 128) for clip in clips)
    assert all(float(clip.images.min()) >= 0 and float(clip.images.max()) <= 1 for clip in clips)
    assert all(len(clip.past) == 2 for clip in clips)


def test_a_clip_is_the_same_whether_others_were_made_before_or_earlier() -> None:
    whole = _animate()
    rest = _animate(first_clip=2, past=whole[1].past)
    assert len(rest) == 1
    assert torch.equal(rest[0].images, whole[2].images)
    other = _animate(first_clip=2, past=whole[0].past)
    assert not torch.equal(other[0].images, whole[2].images)
    with pytest.raises(ValueError, match="past"):
        _animate(first_clip=2)


@pytest.mark.parametrize(
    "change",
    [
        {"lip_weight": 0.0},
        {"face_weight": 2.0},
        {"pose_weight": 0.0},
        {"head_speed": 40.0},
        {"head_speed": None},
        {"guidance_scale_audio": 3.0},
        {"guidance_scale_reference": 2.0},
        {"num_steps": 2},
    ],
)
def test_every_control_reaches_the_frames(change: dict[str, float]) -> None:
    features = _features(0.12)
    before = _animate(QUICK, features)[0].images
    after = _animate(replace(QUICK, **change), features)[0].images
    assert not torch.equal(before, after)


def test_blinks_are_as_strong_as_asked() -> None:
    features = _features(1.0)
    often = replace(QUICK, blinks_per_minute=60.0, clip_frames=25)
    strong, none = _animate(often, features), _animate(replace(often, blink_strength=0.0), features)
    never = _animate(replace(often, blinks_per_minute=0.0), features)
    assert torch.equal(none[0].images, never[0].images)
    assert not torch.equal(strong[0].images, never[0].images)


def test_a_face_of_another_size_is_refused() -> None:
    model, backbone = _parts()
    face = replace(_face(), image=torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match=r"face.image must be \[3, 128, 128\]"):
        next(animate(model, backbone, face, _features(), fps=FPS, generators=_generators, config=QUICK))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0), ("clip_frames", 0), ("guidance_scale_audio", -1.0), ("lip_weight", 6.0),
        ("head_speed", 100.0), ("blinks_per_minute", -1.0), ("blink_strength", 1.5),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        AnimateConfig(**{name: value})  # type: ignore[arg-type]
