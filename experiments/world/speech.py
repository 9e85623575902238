"""Speech and the face that speaks it: everything about an utterance that the world knows.

Video frame i stands for the time from i / fps to (i + 1) / fps, and the rig is that of its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor

from experiments.world.behaviour import BEHAVIOUR_CHANNELS, BehaviourConfig, behave, head_speed
from experiments.world.coarticulation import Articulation, lip_movement
from experiments.world.espeak import espeak, sample_request
from experiments.world.formants import babble, random_voice, synthesize
from experiments.world.head_shape import Rig, head_shape, mouth
from experiments.world.head_spec import HeadSpec, fill
from experiments.world.sentences import sample_sentence
from experiments.world.speech_sound import SAMPLE_RATE, Speech
from experiments.world.visemes import CHANNELS, Segment, segments_of

__all__ = [
    "RIG_CHANNELS",
    "Speech",
    "Utterance",
    "aperture_of",
    "perform",
    "rig_of",
    "speak",
    "speak_without_words",
]

RIG_CHANNELS = tuple(field.name for field in fields(Rig))
FPS = Fraction(25)


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A recording and the face that goes with it.

    rigs: [F, 15] in the order of RIG_CHANNELS; F frames cover the sound. segments: mouth shapes in order of time,
    without gaps.
    """

    speech: Speech
    segments: tuple[Segment, ...]
    rigs: Tensor
    fps: Fraction

    @property
    def audio(self) -> Tensor:
        """[N] float32 at 16 kHz in [-1, 1]."""
        return self.speech.audio

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.rigs)

    @property
    def times(self) -> Tensor:
        """The frames' middles in seconds, [F] float64."""
        return frame_middles(self.num_frames, self.fps)

    @property
    def aperture(self) -> Tensor:
        """Mouth opening, [F], in head coordinates: 0 shut, about 0.15 wide open."""
        return aperture_of(self.rigs)

    @property
    def head_speed(self) -> Tensor:
        """Turning speed of the head, [F], degrees a second."""
        first = RIG_CHANNELS.index("yaw_deg")
        return head_speed(self.rigs[:, first : first + 3], float(self.fps))

    def rig(self, frame: int) -> Rig:
        """The pose of one frame."""
        return rig_of(self.rigs[frame])

    def visemes(self) -> list[str]:
        """The viseme at each frame's middle."""
        ends = torch.tensor([segment.stop for segment in self.segments], dtype=torch.float64)
        places = torch.searchsorted(ends, self.times, right=True).clamp(max=len(self.segments) - 1)
        return [self.segments[int(i)].viseme for i in places]

    def closures(self) -> list[tuple[int, int]]:
        """First frame and end of each bilabial (p, b, m): frames whose time it touches."""
        spans = []
        for segment in self.segments:
            if segment.viseme == "PP":
                first = int(segment.start * self.fps)
                spans.append((first, min(max(ceil(segment.stop * self.fps), first + 1), self.num_frames)))
        return spans


def frame_middles(count: int, fps: Fraction) -> Tensor:
    """(i + 1/2) / fps in seconds, [count] float64."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (fps.denominator / fps.numerator)


def rig_of(values: Tensor) -> Rig:
    """[15] in the order of RIG_CHANNELS -> Rig."""
    return Rig(**dict(zip(RIG_CHANNELS, values.tolist(), strict=True)))


# The opening depends on the rig alone; any head will do.
_ANYBODY = head_shape(fill(HeadSpec(), None), None)


def aperture_of(rigs: Tensor) -> Tensor:
    """Mouth opening of rigs [F, 15] in head coordinates, [F]: 0 shut, about 0.15 wide open. The same on every head."""
    return torch.tensor([mouth(_ANYBODY, rig_of(values)).opening for values in rigs])


def perform(
    speech: Speech,
    *,
    generator: torch.Generator,
    fps: Fraction = FPS,
    articulation: Articulation | None = None,
    behaviour: BehaviourConfig | None = None,
) -> Utterance:
    """Find a face for a recording: lips from its phonemes, the rest drawn from `generator`."""
    segments = tuple(segments_of(speech.phones, speech.duration))
    count = ceil(Fraction(len(speech.audio), SAMPLE_RATE) * fps)
    times = frame_middles(count, fps)
    lips = lip_movement(segments, times, articulation)
    stresses = [0.5 * (s.start + s.stop) for s in segments if s.stress == 2]
    rest = behave(speech.duration, stresses, behaviour, generator=generator).at(times)
    columns: dict[str, Tensor] = dict(zip(CHANNELS, lips.unbind(1), strict=True))
    columns |= dict(zip(BEHAVIOUR_CHANNELS, rest.unbind(1), strict=True))
    return Utterance(
        speech=speech,
        segments=segments,
        rigs=torch.stack([columns[name] for name in RIG_CHANNELS], dim=1),
        fps=fps,
    )


def speak(*, held_out: bool, generator: torch.Generator, text: str | None = None) -> Speech:
    """A random person says a random sentence (or `text`) through espeak, between two silences.

    held_out: a person, and unless `text` is given a sentence, that training never hears.
    """
    said = text if text is not None else sample_sentence(held_out=held_out, generator=generator)
    speech = espeak(sample_request(said, held_out=held_out, generator=generator))
    return speech.padded(*_silences(generator))


def speak_without_words(syllables: int = 12, *, generator: torch.Generator) -> Speech:
    """Syllables without meaning by the formant synthesiser, which needs nothing installed, between two silences."""
    voice = random_voice(generator)
    speech = synthesize(babble(syllables, generator=generator), voice, generator=generator)
    return speech.padded(*_silences(generator))


def _silences(generator: torch.Generator) -> Sequence[float]:
    return (0.1 + 0.5 * torch.rand(2, generator=generator)).tolist()
