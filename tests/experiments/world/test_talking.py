"""Talking clips: pure, truthful about what they show, and nothing held out in training."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

from experiments.portraits import portrait_camera
from experiments.world.config import TalkingConfig
from experiments.world.espeak import espeak_available, held_out_voice
from experiments.world.head_spec import HeadSpec, held_out_head, parse_head
from experiments.world.heads import make_head
from experiments.world.render import Light, render, srgb_to_linear
from experiments.world.sdf import compile_parts
from experiments.world.sentences import held_out_sentence
from experiments.world.speech import RIG_CHANNELS, aperture_of, perform, rig_of, speak_without_words
from experiments.world.talking import (
    LANDMARKS,
    Clip,
    make_clip,
    picture,
    project,
    utterance_of,
)

SMALL = TalkingConfig(num_clips=3, num_frames=2, size=16, speech="formants")


@cache
def _clip(index: int) -> Clip:
    return make_clip(SMALL, index)


def _equal(a: Clip, b: Clip) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(Clip)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def test_a_clip_depends_on_settings_and_index_alone() -> None:
    assert _equal(make_clip(SMALL, 1), _clip(1))
    assert not torch.equal(_clip(0).images, _clip(1).images)
    assert not torch.equal(_clip(0).audio[:1000], _clip(1).audio[:1000])


def test_shapes_and_ranges() -> None:
    clip = _clip(0)
    assert clip.images.shape == (2, 3, 16, 16)
    assert clip.portrait.shape == (3, 16, 16)
    assert clip.rigs.shape == (2, len(RIG_CHANNELS))
    assert clip.landmarks.shape == (2, len(LANDMARKS), 2)
    assert clip.images.dtype == clip.portrait.dtype == torch.uint8
    assert len(clip.aperture) == len(clip.aperture_px) == len(clip.head_speed) == len(clip.visemes) == 2
    assert all(0 <= first < stop <= 2 for first, stop in clip.closures)
    # The window lies within the sound, and the sound on the grid of 16 bits.
    assert clip.first_frame >= 0
    assert (clip.first_frame + clip.num_frames - 1) / clip.fps < len(clip.audio) / 16000
    assert torch.equal((clip.audio * 32768).round() / 32768, clip.audio)
    assert float(clip.audio.abs().max()) <= 1
    rest = dict(zip(RIG_CHANNELS, clip.portrait_rig.tolist(), strict=True))
    assert rest["jaw_open"] == rest["blink_left"] == 0
    whole = utterance_of(SMALL, 0).rigs[:, RIG_CHANNELS.index("yaw_deg")]
    assert abs(rest["yaw_deg"] - float(whole.mean())) <= 2


def test_a_window_longer_than_the_utterance_ends_in_silence() -> None:
    utterance = utterance_of(dataclasses.replace(SMALL, num_frames=250), 0)
    assert utterance.num_frames >= 250
    assert float(utterance.aperture[-50:].max()) < 0.01
    assert float(utterance.aperture.max()) > 0.03


def test_the_camera_sees_points_where_project_says() -> None:
    camera = portrait_camera()
    _, directions = camera.rays(32, 32)
    points = camera.positions[0] + 2.5 * directions[0]
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    torch.testing.assert_close(
        project(camera, points, 32), torch.stack([columns, rows], -1), atol=1e-3, rtol=0
    )


# Without light from anywhere but everywhere, pixels are the albedo times a number.
FLAT = Light(key=0, sky=0, fill=0, ambient=1, specular=0, occlusion=0)
WOMAN = HeadSpec(gender="woman", skin="pale", hair_style="short", hair_color="black", eye_color="blue")


def test_frames_look_as_rendered_alone() -> None:
    head, light = (
        make_head(HeadSpec(gender="girl", glasses="round"), torch.Generator().manual_seed(0)),
        Light(),
    )
    rigs = torch.zeros(2, len(RIG_CHANNELS))
    rigs[1, RIG_CHANNELS.index("jaw_open")], rigs[1, RIG_CHANNELS.index("yaw_deg")] = 0.7, 8.0
    images, _ = picture(head, rigs, 64, (0.2, 0.5, 0.8), light)
    for image, rig in zip(images, rigs, strict=True):
        field = compile_parts([head.parts(rig_of(rig))])
        alone = render(field, portrait_camera(), 64, torch.tensor([[0.2, 0.5, 0.8]]), light).images[0, 0]
        assert -10 * float((image / 255 - alone).square().mean().log10()) > 45


@cache
def _spoken() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rigs, linear pictures and landmarks of half a second of speech."""
    generator = torch.Generator().manual_seed(3)
    rigs = perform(speak_without_words(6, generator=generator), generator=generator).rigs[12:24]
    images, landmarks = picture(make_head(WOMAN), rigs, 64, (0.8, 0.8, 0.8), FLAT)
    return rigs, srgb_to_linear(images / 255), landmarks


def _at(image: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    x, y = place.floor().long().tolist()
    return image[:, y, x]


def test_the_mouth_in_the_picture_opens_as_the_rig_says() -> None:
    rigs, images, landmarks = _spoken()
    aperture = aperture_of(rigs)
    assert float(aperture.max()) > 0.05
    seen = []
    for image, points in zip(images, landmarks, strict=True):
        named = dict(zip(LANDMARKS, points, strict=True))
        middle = (named["lip_top_inner"] + named["lip_bottom_inner"]) / 2
        x, y = middle.round().long().tolist()
        column = image[:, y - 9 : y + 10, x - 1 : x + 1].mean(2)
        # Neither skin nor lip, which hold some green: the cavity and the tongue; or teeth, as blue as they are red.
        within, teeth = column[1] < 0.2, column[2] > 0.75 * column[0]
        seen.append(float((within | teeth).sum()))
    together = torch.stack([aperture, torch.tensor(seen)])
    assert float(torch.corrcoef(together)[0, 1]) > 0.9


def test_landmarks_lie_where_the_picture_shows_them() -> None:
    _, images, landmarks = _spoken()
    for image, points in zip(images, landmarks, strict=True):
        named = dict(zip(LANDMARKS, points, strict=True))
        corners = named["mouth_left"], named["mouth_right"]
        assert corners[0][0] > corners[1][0]  # the head's left is the picture's right
        # Lips are redder than skin: between the corners there is red, on the chin and above the nose there is none.
        box = image[:, int(named["nose_tip"][1]) + 2 : int(named["chin"][1]) - 2,
                    int(corners[1][0]) : int(corners[0][0]) + 1]  # fmt: skip
        redness = (box[0] - box[1]) / (box.sum(0) + 0.05)
        skin = _at(image, 0.5 * (named["eye_left"] + named["eye_right"]))
        plain = float((skin[0] - skin[1]) / (skin.sum() + 0.05))
        rows, columns = (redness > plain + 0.12).nonzero().unbind(1)
        assert len(rows) >= 6
        centre = torch.stack([columns.float().mean() + 0.5, rows.float().mean() + 0.5])
        centre = centre + torch.tensor([float(int(corners[1][0])), int(named["nose_tip"][1]) + 2.0])
        lips = (named["lip_top_inner"] + named["lip_bottom_inner"]) / 2
        assert float((centre - lips).norm()) < 3
    # Open eyes are blue or black where the landmark lies.
    still = torch.zeros(1, len(RIG_CHANNELS))
    image, points = picture(make_head(WOMAN), still, 64, (0.8, 0.8, 0.8), FLAT)
    for name in ("eye_left", "eye_right"):
        colour = _at(srgb_to_linear(image[0] / 255), points[0, LANDMARKS.index(name)])
        assert float(colour[2]) > float(colour[0]) - 0.02


def test_people_and_voices_that_are_held_out_stay_out() -> None:
    for held_out in (False, True):
        config = dataclasses.replace(SMALL, held_out=held_out, num_frames=1)
        for index in range(2):
            assert held_out_head(parse_head(make_clip(config, index).caption)) == held_out


@pytest.mark.skipif(not espeak_available(), reason="needs the extra 'world'")
def test_sentences_and_voices_that_are_held_out_stay_out() -> None:
    for held_out in (False, True):
        config = TalkingConfig(held_out=held_out, num_frames=1, size=16, wordless=0)
        clip = make_clip(config, 0)
        assert held_out_sentence(clip.text) == held_out
        assert held_out_voice(clip.voice.split("+")[1]) == held_out
        assert held_out_head(parse_head(clip.caption)) == held_out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 20}, "multiple of 8"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"speech": "song"}, "speech must be"),
        ({"still": 1.5}, r"still must lie in 0\.\.1, got 1\.5"),
    ],
)
def test_bad_settings_name_themselves(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TalkingConfig(**settings)
