"""Clips of talking heads of which everything is known: pictures, sound, rig, mouth opening, landmarks.

A clip is a window of consecutive frames of an utterance, and beside it a portrait: the same person in the same light
at another moment, mouth shut, eyes open, the head about where it is on average. Frame i of the window is frame
``first_frame + i`` of the whole sound, which comes with it, so that speech features have their context.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from experiments.portraits import portrait_camera
from experiments.world.behaviour import BehaviourConfig
from experiments.world.config import TalkingConfig
from experiments.world.dataset import random_background
from experiments.world.guests import random_light
from experiments.world.heads import Head, Rig, head_caption, held_out_head, make_head, sample_head
from experiments.world.render import Light, render
from experiments.world.sdf import Color, compile_parts
from experiments.world.speech import (
    RIG_CHANNELS,
    Utterance,
    aperture_of,
    perform,
    rig_of,
    speak,
    speak_without_words,
)  # fmt: skip
from experiments.world.speech_augment import augment
from experiments.world.speech_sound import SAMPLE_RATE
from gen3d.cameras import Cameras
from video.pixels import to_uint8

LANDMARKS = (
    "eye_left", "eye_right", "mouth_left", "mouth_right", "lip_top_inner", "lip_bottom_inner", "nose_tip", "chin"
)  # fmt: skip
_BATCH = 32  # frames rendered at once
_LIP_TOP, _LIP_BOTTOM = LANDMARKS.index("lip_top_inner"), LANDMARKS.index("lip_bottom_inner")

# So that what is drawn for the voice does not depend on how much was drawn for the face, and so on.
_Stream = Literal["person", "speech", "sound", "behaviour", "window", "portrait", "camera"]
_STREAMS: tuple[_Stream, ...] = ("person", "speech", "sound", "behaviour", "window", "portrait", "camera")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """F frames of a talking head; L landmarks in the order of LANDMARKS, left and right the head's own.

    images: [F, 3, S, S] uint8 sRGB. portrait: [3, S, S] uint8. rigs: [F, 15] and portrait_rig: [15] in the order of
    RIG_CHANNELS. landmarks: [F, L, 2] and portrait_landmarks: [L, 2], x to the right and y down in pixels; the middle
    of the first pixel lies at (0.5, 0.5). aperture: [F] in head units, 0 shut, about 0.15 wide open. aperture_px: [F],
    distance of the inner lips' landmarks in pixels. head_speed: [F] degrees a second. visemes: F names. closures:
    first frame and end, within the window, of each p, b and m whose time touches it.
    audio: [N] float32 at 16 kHz in [-1, 1), the whole utterance, on the grid of 16-bit sound.
    first_frame: of the window, counted from the beginning of the sound. text: '' where there are no words.
    """

    images: Tensor
    portrait: Tensor
    rigs: Tensor
    portrait_rig: Tensor
    landmarks: Tensor
    portrait_landmarks: Tensor
    aperture: Tensor
    aperture_px: Tensor
    head_speed: Tensor
    visemes: tuple[str, ...]
    closures: tuple[tuple[int, int], ...]
    audio: Tensor
    first_frame: int
    fps: Fraction
    caption: str
    text: str
    voice: str

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.images)


def project(cameras: Cameras, points: Tensor, size: int) -> Tensor:
    """Pixels [..., 2] (x right, y down) at which the one camera of ``cameras`` sees world points [..., 3]."""
    positions, _ = cameras.project(points.reshape(-1, 3))
    return (0.5 * size * (1.0 + positions[0])).view(*points.shape[:-1], 2)


def make_clip(config: TalkingConfig, index: int) -> Clip:
    """Clip ``index`` of the set: a pure function of its arguments.

    Raises:
        EspeakError: ``config.speech`` is 'espeak' and the extra 'world' is not installed.
    """
    person = _generator(config, index, "person")
    spec = sample_head(person)
    while held_out_head(spec) != config.held_out:
        spec = sample_head(person)
    head, caption = make_head(spec, person), head_caption(spec, person)
    rng = np.random.default_rng([config.seed, index, int(config.held_out)])
    (_, background), light = random_background(rng), random_light(rng)

    utterance = utterance_of(config, index)
    window = _generator(config, index, "window")
    first = int(torch.randint(utterance.num_frames - config.num_frames + 1, (), generator=window))
    frames = slice(first, first + config.num_frames)
    portrait_rig = _portrait_rig(utterance, _generator(config, index, "portrait"))
    rigs = torch.cat([utterance.rigs[frames], portrait_rig[None]])
    camera = _camera(config, _generator(config, index, "camera"))
    images, landmarks = picture(head, rigs, config.size, background, light, camera)
    return Clip(
        images=images[:-1],
        portrait=images[-1],
        rigs=rigs[:-1],
        portrait_rig=rigs[-1],
        landmarks=landmarks[:-1],
        portrait_landmarks=landmarks[-1],
        aperture=aperture_of(rigs[:-1]),
        aperture_px=(landmarks[:-1, _LIP_TOP] - landmarks[:-1, _LIP_BOTTOM]).norm(dim=-1),
        head_speed=utterance.head_speed[frames],
        visemes=tuple(utterance.visemes()[frames]),
        closures=_within(utterance.closures(), first, config.num_frames),
        audio=sound_of(config, index, utterance),
        first_frame=first,
        fps=utterance.fps,
        caption=caption,
        text=utterance.speech.text,
        voice=utterance.speech.voice,
    )


def picture(
    head: Head, rigs: Tensor, size: int, background: Color, light: Light, camera: Cameras | None = None
) -> tuple[Tensor, Tensor]:
    """A head in poses [F, 15] before the portrait camera, or another one: images [F, 3, size, size] uint8, landmarks
    [F, L, 2] in pixels. ``size`` is a multiple of 8."""
    camera, poses = camera or portrait_camera(), [rig_of(values) for values in rigs]
    batches = []
    for start in range(0, len(poses), _BATCH):
        # Frames march together as scenes of one field: a call costs as much for one of them as for all.
        scenes = compile_parts([head.parts(pose) for pose in poses[start : start + _BATCH]])
        count = scenes.num_scenes
        cameras = Cameras(c2w=camera.c2w.repeat(count, 1, 1), fovy_deg=camera.fovy_deg.repeat(count))
        over = torch.tensor(background, dtype=torch.float32).repeat(count, 1)
        images = render(scenes, cameras, size, over, light).images[:, 0]
        batches.append(to_uint8(images))
    placed = [head.landmarks(pose) for pose in poses]
    points = torch.stack([torch.stack([points[name] for name in LANDMARKS]) for points in placed])
    return torch.cat(batches), project(camera, points, size)


def on_grid(audio: Tensor) -> Tensor:
    """Sound rounded to 16 bits, float32 in [-1, 1): saving it as such changes nothing. The rounding's noise lies about
    24 dB below the floor of the log-mel features."""
    return (audio * 32768).round().clamp(-32768, 32767) / 32768


def _generator(config: TalkingConfig, index: int, stream: _Stream) -> torch.Generator:
    key = [config.seed, index, int(config.held_out), 1 + _STREAMS.index(stream)]
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    )


def utterance_of(config: TalkingConfig, index: int) -> Utterance:
    """Somebody speaks for at least as long as the window, which may begin or end in silence."""
    generator = _generator(config, index, "speech")
    babbles = config.speech == "formants" or _uniform(generator) < config.wordless
    speech = (
        speak_without_words(generator=generator)
        if babbles
        else speak(held_out=config.held_out, generator=generator)
    )
    before, after = (
        1.2 * _uniform(generator) if _uniform(generator) < config.pause else 0.0 for _ in range(2)
    )
    speech = speech.padded(before, after)
    short = config.num_frames / config.fps - speech.duration
    if short > 0:
        speech = speech.padded(0.0, short + 1 / SAMPLE_RATE)
    behaviour = _generator(config, index, "behaviour")
    return perform(
        speech, generator=behaviour, fps=Fraction(config.fps), behaviour=_behaviour(config, behaviour)
    )


def sound_of(config: TalkingConfig, index: int, utterance: Utterance) -> Tensor:
    """The utterance as it was recorded, with the noise and the room of clip ``index``, on the grid of 16 bits."""
    return on_grid(augment(utterance.audio, config.augment, generator=_generator(config, index, "sound")))


def _behaviour(config: TalkingConfig, generator: torch.Generator) -> BehaviourConfig:
    """How lively this person is; still heads still blink and glance."""
    still = _uniform(generator) < config.still
    motion = 0.06 * _uniform(generator) if still else 0.1 + 0.9 * _uniform(generator)
    yaw, pitch, roll = (2 * torch.rand(3, generator=generator) - 1).tolist()
    return BehaviourConfig(
        blinks_per_minute=8 + 22 * _uniform(generator),
        glances=_uniform(generator),
        brows=_uniform(generator),
        head_motion=motion,
        rest_deg=(9 * yaw, 4 * pitch, 3 * roll),
    )


def _camera(config: TalkingConfig, generator: torch.Generator) -> Cameras:
    """The portrait camera, framed a little differently in each clip."""
    zoom, x, y = (config.framing * (2 * torch.rand(3, generator=generator) - 1)).tolist()
    return portrait_camera(1 + zoom, (0.5 * x, 0.5 * y))


def _portrait_rig(utterance: Utterance, generator: torch.Generator) -> Tensor:
    """A resting face, [15]: lips shut, eyes open and on the viewer, the head within 2 degrees of its average place.

    Who makes a portrait speak wants the head to stay about where it is.
    """
    turn, nod, lean, x, y = (2 * torch.rand(5, generator=generator) - 1).tolist()
    yaw, pitch, roll = (
        float(utterance.rigs[:, RIG_CHANNELS.index(name)].mean())
        for name in ("yaw_deg", "pitch_deg", "roll_deg")
    )
    rest = Rig(
        yaw_deg=yaw + 2 * turn,
        pitch_deg=pitch + 2 * nod,
        roll_deg=roll + lean,
        gaze_x=0.1 * x,
        gaze_y=0.1 * y,
    )
    return torch.tensor([getattr(rest, name) for name in RIG_CHANNELS])


def _within(spans: list[tuple[int, int]], first: int, count: int) -> tuple[tuple[int, int], ...]:
    """Spans of frames as seen from a window of ``count`` frames at ``first``; those outside it go."""
    seen = ((max(start - first, 0), min(stop - first, count)) for start, stop in spans)
    return tuple((start, stop) for start, stop in seen if start < stop)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
