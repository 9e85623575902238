from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.world.formants import SOUNDS, FormantVoice, babble, random_voice, synthesize
from experiments.world.speech_sound import SAMPLE_RATE, Speech


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _piece(speech: Speech, index: int, margin: float = 0.02) -> np.ndarray:
    phone = speech.phones[index]
    return speech.audio[
        int((phone.start + margin) * SAMPLE_RATE) : int((phone.stop - margin) * SAMPLE_RATE)
    ].numpy()


def _spectrum(piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4096)) ** 2
    return np.fft.rfftfreq(4096, 1 / SAMPLE_RATE), power


def test_times_fill_the_sound_and_seeds_repeat() -> None:
    names = babble(20, generator=_generator())
    speech = synthesize(names, generator=_generator(1))
    assert [p.name for p in speech.phones] == names
    assert speech.phones[0].start == 0
    assert speech.phones[-1].stop == pytest.approx(speech.duration)
    for one, following in zip(speech.phones, speech.phones[1:], strict=False):
        assert one.stop == following.start
        assert one.stop > one.start
    assert float(speech.audio.abs().max()) == pytest.approx(0.5)
    assert torch.equal(synthesize(names, generator=_generator(1)).audio, speech.audio)
    assert not torch.equal(synthesize(names, generator=_generator(2)).audio, speech.audio)


@pytest.mark.parametrize(
    ("name", "f1", "f2"), [("ɑː", 730, 1090), ("iː", 270, 2290), ("uː", 300, 870), ("ɛ", 530, 1840)]
)
def test_vowels_have_their_formants(name: str, f1: float, f2: float) -> None:
    speech = synthesize(
        ["", name, name, ""], FormantVoice(pitch_hz=90, melody=0, rate=0.5), generator=_generator()
    )
    frequency, power = _spectrum(np.concatenate([_piece(speech, 1), _piece(speech, 2)]))
    smooth = np.convolve(power, np.ones(31) / 31, "same")

    def peak(low: float, high: float) -> float:
        band = (frequency > low) & (frequency < high)
        return float(frequency[band][smooth[band].argmax()])

    assert peak(f1 - 200, f1 + 200) == pytest.approx(f1, abs=75)
    assert peak(f2 - 250, f2 + 250) == pytest.approx(f2, abs=120)


def test_pitch_is_the_voices() -> None:
    for pitch in (100.0, 200.0):
        speech = synthesize(
            ["ɑː"] * 3, FormantVoice(pitch_hz=pitch, melody=0, breath=0.0), generator=_generator()
        )
        piece = _piece(speech, 1)
        echo = np.correlate(piece, piece, "full")[len(piece) :]
        low = int(SAMPLE_RATE / 320)
        period = low + int(echo[low : SAMPLE_RATE // 70].argmax()) + 1
        assert SAMPLE_RATE / period == pytest.approx(pitch, rel=0.03)


def test_manners_of_articulation() -> None:
    speech = synthesize(["", "ɑː", "p", "ɑː", "s", "ɑː", "m", "ɑː", "ʃ", ""], generator=_generator())

    def level(index: int) -> float:
        return float(np.sqrt(np.mean(_piece(speech, index, 0.015) ** 2)))

    assert level(0) < 1e-3 * level(1)
    closure = speech.phones[2]
    silence = speech.audio[
        int((closure.start + 0.02) * SAMPLE_RATE) : int((closure.start + 0.05) * SAMPLE_RATE)
    ]
    assert float(silence.square().mean().sqrt()) < 0.02 * level(1)
    assert 0.02 * level(1) < level(6) < 0.8 * level(1)

    def centroid(index: int) -> float:
        frequency, power = _spectrum(_piece(speech, index))
        return float((frequency * power).sum() / power.sum())

    assert centroid(4) > centroid(8) > 2 * centroid(1)


def test_voices_and_rates() -> None:
    for seed in range(20):
        random_voice(_generator(seed))
    names = ["ɑː", "m", "iː"]
    slow, fast = (
        synthesize(names, FormantVoice(rate=rate), generator=_generator()).duration for rate in (0.7, 1.4)
    )
    assert slow == pytest.approx(2 * fast, rel=0.05)
    with pytest.raises(ValueError, match="pitch_hz"):
        FormantVoice(pitch_hz=5)
    with pytest.raises(ValueError, match="qq"):
        synthesize(["qq"], generator=_generator())
    with pytest.raises(ValueError, match="none"):
        synthesize([], generator=_generator())


def test_babble_is_pronounceable() -> None:
    names = babble(200, generator=_generator())
    assert names[0] == names[-1] == ""
    assert {name.lstrip("ˈ") for name in names} == set(SOUNDS)
    assert sum(SOUNDS[n.lstrip("ˈ")].voice >= 0.8 for n in names) == 200


def test_silence_around() -> None:
    speech = synthesize(["ɑː", "p"], generator=_generator())
    padded = speech.padded(0.25, 0.5)
    assert padded.duration == pytest.approx(speech.duration + 0.75)
    assert padded.phones[0].start == pytest.approx(0.25)
    assert not padded.audio[: SAMPLE_RATE // 4].any()
    assert torch.equal(padded.audio[4000 : 4000 + len(speech.audio)], speech.audio)
    with pytest.raises(ValueError, match="silence"):
        speech.padded(-1, 0)
