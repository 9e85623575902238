from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from experiments.world.behaviour import BehaviourConfig
from experiments.world.formants import synthesize
from experiments.world.head_shape import Rig, mouth
from experiments.world.heads import make_head, sample_head
from experiments.world.speech import (
    RIG_CHANNELS,
    Utterance,
    aperture_of,
    frame_middles,
    perform,
    rig_of,
    speak_without_words,
)  # fmt: skip
from experiments.world.visemes import SHAPES


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _say(*names: str, fps: Fraction = Fraction(25), **settings) -> Utterance:
    speech = synthesize(names, generator=_generator()).padded(0.3, 0.3)
    return perform(speech, generator=_generator(1), fps=fps, **settings)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_a_performance_is_a_face_a_frame(fps: Fraction) -> None:
    utterance = perform(speak_without_words(generator=_generator()), generator=_generator(1), fps=fps)
    assert utterance.rigs.shape == (utterance.num_frames, len(RIG_CHANNELS))
    seconds = len(utterance.audio) / 16000
    assert utterance.num_frames - 1 < seconds * fps <= utterance.num_frames
    assert (
        len(utterance.aperture)
        == len(utterance.head_speed)
        == len(utterance.visemes())
        == utterance.num_frames
    )
    for i in range(0, utterance.num_frames, 5):
        assert isinstance(utterance.rig(i), Rig)
    again = perform(speak_without_words(generator=_generator()), generator=_generator(1), fps=fps)
    assert torch.equal(again.rigs, utterance.rigs)
    assert torch.equal(again.audio, utterance.audio)


def test_the_mouth_does_what_the_sounds_say() -> None:
    utterance = _say("ˈɑː", "p", "ˈɑː", "m", "ˈæ", "b", "ˈɑː", "f", "iː", "uː")
    aperture = utterance.aperture
    closures = utterance.closures()
    assert len(closures) == 3
    for first, stop in closures:
        assert aperture[first:stop].min() < 0.005
    by_viseme: dict[str, list[float]] = {}
    for viseme, opening in zip(utterance.visemes(), aperture.tolist(), strict=True):
        by_viseme.setdefault(viseme, []).append(opening)
    assert max(by_viseme["aa"]) > 0.09
    assert max(by_viseme["ih"]) < 0.07
    assert max(by_viseme["FF"]) < 0.05
    assert aperture[:3].max() < 0.01  # silence before
    assert aperture[-3:].max() < 0.01


def test_stops_are_shut_at_every_frame_rate_and_phase() -> None:
    for fps in (Fraction(25), Fraction(30), Fraction(24)):
        for shift in range(8):
            speech = synthesize(["ˈɑː", "p", "ˈɑː", "b", "ˈɑː"], generator=_generator(shift)).padded(
                0.3 + shift / 200, 0.2
            )
            utterance = perform(speech, generator=_generator(), fps=fps)
            for first, stop in utterance.closures():
                assert utterance.aperture[max(first - 1, 0) : stop + 1].min() < 0.01


def test_frame_rates_show_the_same_movement() -> None:
    slow, fast = _say("ɑː", "m", "uː", "s"), _say("ɑː", "m", "uː", "s", fps=Fraction(75))
    count = min(slow.num_frames, fast.num_frames // 3)
    assert torch.allclose(slow.rigs[:count], fast.rigs[1::3][:count], atol=1e-5)
    assert frame_middles(2, Fraction(25)).tolist() == pytest.approx([0.02, 0.06])


def test_aperture_is_the_opening_of_every_head() -> None:
    utterance = _say("ɑː", "p", "ɔː", "f")
    generator = _generator(9)
    for _ in range(3):
        shape = make_head(sample_head(generator), generator).shape
        openings = [mouth(shape, utterance.rig(i)).opening for i in range(utterance.num_frames)]
        assert torch.allclose(utterance.aperture, torch.tensor(openings), atol=1e-6)
    wide = rig_of(utterance.rigs[0] * 0 + torch.tensor([1.0] + [0.0] * (len(RIG_CHANNELS) - 1)))
    assert wide == Rig(jaw_open=1.0)
    rigs = torch.zeros(2, len(RIG_CHANNELS))
    rigs[1, 0] = 1
    assert aperture_of(rigs).tolist() == pytest.approx([0.0, 0.165])


def test_behaviour_settings_reach_the_rig() -> None:
    still = _say("ɑː", "m", behaviour=BehaviourConfig(head_motion=0, blinks_per_minute=0, glances=0, brows=0))
    for name in ("yaw_deg", "pitch_deg", "roll_deg", "blink_left", "gaze_x", "brow_raise"):
        assert not still.rigs[:, RIG_CHANNELS.index(name)].any(), name
    assert not still.head_speed.gt(1e-3).any()
    assert still.aperture.max() > 0.05


def test_visemes_look_different() -> None:
    """Every two visemes but the three tongue shapes differ in the lips by something one can see."""
    alike = {"DD", "nn", "kk", "TH"}
    for one, a in SHAPES.items():
        for other, b in SHAPES.items():
            if one < other and not {one, other} <= alike:
                assert max(abs(x - y) for x, y in zip(a.target, b.target, strict=True)) > 0.12, (one, other)
