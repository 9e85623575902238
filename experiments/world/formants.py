"""A small formant synthesiser with known phoneme times: speech-like sound from numbers alone.

Its voice is plain, its articulation honest: a stop is silent and then bursts, a fricative hisses in its own band, a
vowel has its own formants. It serves tests, and wherever espeak is not installed. After the cascade synthesiser of
Klatt (1980), much reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import lfilter

from diffusion.limits import check_range
from experiments.world.speech_sound import SAMPLE_RATE, Speech
from experiments.world.visemes import Phone

_BLOCK = 80  # samples between changes of a filter: 5 ms
_BANDWIDTHS = (70.0, 90.0, 130.0, 200.0)
_FOURTH = 3500.0


@dataclass(frozen=True, slots=True)
class _Sound:
    """Formants in Hz, seconds at normal rate, loudness of voice and of hiss, the hiss's centre in Hz, closure."""

    formants: tuple[float, float, float]
    seconds: float
    voice: float = 0.0
    hiss: float = 0.0
    centre: float = 4000.0
    stop: bool = False


SOUNDS: dict[str, _Sound] = {
    "": _Sound((500, 1500, 2500), 0.25),
    "ɑː": _Sound((730, 1090, 2440), 0.18, 1.0),
    "æ": _Sound((660, 1720, 2410), 0.15, 1.0),
    "ʌ": _Sound((640, 1190, 2390), 0.11, 1.0),
    "ɛ": _Sound((530, 1840, 2480), 0.12, 1.0),
    "ə": _Sound((500, 1500, 2500), 0.07, 0.8),
    "ɪ": _Sound((390, 1990, 2550), 0.09, 0.9),
    "iː": _Sound((270, 2290, 3010), 0.15, 0.8),
    "ɔː": _Sound((570, 840, 2410), 0.17, 1.0),
    "ʊ": _Sound((440, 1020, 2240), 0.09, 0.9),
    "uː": _Sound((300, 870, 2240), 0.15, 0.8),
    "p": _Sound((350, 800, 2200), 0.10, 0.0, 0.35, 900, True),
    "b": _Sound((300, 800, 2200), 0.08, 0.12, 0.2, 800, True),
    "m": _Sound((250, 1000, 2200), 0.08, 0.32),
    "f": _Sound((350, 1100, 2300), 0.10, 0.0, 0.16, 6500),
    "v": _Sound((300, 1100, 2300), 0.07, 0.35, 0.08, 6500),
    "θ": _Sound((350, 1400, 2600), 0.09, 0.0, 0.12, 7000),
    "ð": _Sound((300, 1400, 2600), 0.05, 0.4, 0.05, 7000),
    "t": _Sound((350, 1750, 2700), 0.09, 0.0, 0.5, 4500, True),
    "d": _Sound((300, 1750, 2700), 0.07, 0.12, 0.3, 4200, True),
    "n": _Sound((280, 1700, 2600), 0.07, 0.35),
    "l": _Sound((340, 1150, 2700), 0.07, 0.6),
    "s": _Sound((350, 1750, 2600), 0.11, 0.0, 0.40, 6200),
    "z": _Sound((300, 1750, 2600), 0.08, 0.3, 0.25, 6200),
    "ʃ": _Sound((350, 1900, 2500), 0.11, 0.0, 0.50, 3200),
    "ɹ": _Sound((330, 1150, 1600), 0.07, 0.6),
    "k": _Sound((350, 2000, 2300), 0.10, 0.0, 0.45, 2200, True),
    "ɡ": _Sound((300, 2000, 2300), 0.08, 0.12, 0.25, 2000, True),
    "w": _Sound((290, 650, 2200), 0.07, 0.5),
    "j": _Sound((270, 2250, 3000), 0.06, 0.6),
}
_VOWELS = tuple(name for name, sound in SOUNDS.items() if sound.voice >= 0.8)
_CONSONANTS = tuple(name for name in SOUNDS if name and name not in _VOWELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class FormantVoice:
    """pitch_hz: mean pitch. melody: how far it wanders, in semitones. tract: formants' scale, below 1 a longer vocal
    tract. breath: noise mixed with the voice, 0 to 1. rate: 1 is normal, 2 twice as quick."""

    pitch_hz: float = 120.0
    melody: float = 2.5
    tract: float = 1.0
    breath: float = 0.05
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 50, 450, "pitch_hz")
        check_range(self, 0, 12, "melody")
        check_range(self, 0.7, 1.5, "tract")
        check_range(self, 0, 1, "breath")
        check_range(self, 0.4, 3, "rate")


def random_voice(generator: torch.Generator) -> FormantVoice:
    """A voice between a deep and a child's."""
    pitch, melody, wander, breath, rate = torch.rand(5, generator=generator).tolist()
    return FormantVoice(
        pitch_hz=85 * (260 / 85) ** pitch,
        melody=1 + 4 * melody,
        tract=0.88 + 0.28 * pitch + 0.08 * (wander - 0.5),
        breath=0.02 + 0.2 * breath**2,
        rate=0.8 + 0.55 * rate,
    )


def babble(syllables: int, *, generator: torch.Generator) -> list[str]:
    """Names of SOUNDS for some syllables without meaning, in words with pauses between some of them."""

    def draw(names: Sequence[str]) -> str:
        return names[int(torch.randint(len(names), (), generator=generator))]

    def chance(p: float) -> bool:
        return float(torch.rand((), generator=generator)) < p

    names = [""]
    for _ in range(syllables):
        if chance(0.85):
            names.append(draw(_CONSONANTS))
        stressed = chance(0.4)
        names.append(("ˈ" if stressed else "") + draw(_VOWELS))
        if chance(0.35):
            names.append(draw(_CONSONANTS))
        if chance(0.18):
            names.append("")
    return [*names, ""] if names[-1] else names


def synthesize(
    names: Sequence[str], voice: FormantVoice | None = None, *, generator: torch.Generator
) -> Speech:
    """Speak the sounds one after another. names: keys of SOUNDS, with 'ˈ' before a stressed vowel; '' is a pause.

    Raises:
        ValueError: a sound is unknown, or there is none.
    """
    voice = voice or FormantVoice()
    unknown = [name for name in names if name.lstrip("ˈ") not in SOUNDS]
    if unknown or not names:
        raise ValueError(
            f"sounds must be at least one of {' '.join(filter(None, SOUNDS))} or '', got {unknown or 'none'}"
        )
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    sounds = [SOUNDS[name.lstrip("ˈ")] for name in names]
    stress = np.array([1.25 if name.startswith("ˈ") else 1.0 for name in names])
    lengths = stress * [sound.seconds for sound in sounds] / voice.rate * rng.uniform(0.85, 1.15, len(sounds))
    blocks = np.maximum(np.round(lengths * SAMPLE_RATE / _BLOCK), 4).astype(int)
    ends = np.cumsum(blocks)
    formants, loud, hiss, centre = _tracks(sounds, stress, blocks, voice)
    excitation, noise = _sources(loud, hiss, centre, voice, rng)
    samples = _cascade(excitation, formants) + noise
    samples *= 0.5 / max(float(np.abs(samples).max()), 1e-6)
    starts = np.concatenate([[0], ends[:-1]])
    step = _BLOCK / SAMPLE_RATE
    phones = tuple(
        Phone(n, float(a * step), float(b * step)) for n, a, b in zip(names, starts, ends, strict=True)
    )
    return Speech(audio=torch.from_numpy(samples.astype(np.float32)), phones=phones, voice="formants")


def _tracks(
    sounds: list[_Sound], stress: np.ndarray, blocks: np.ndarray, voice: FormantVoice
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per block: formants [B, 3], voicing [B], hiss [B], and the hiss's centre [B]."""
    formants = np.repeat([s.formants for s in sounds], blocks, axis=0) * voice.tract
    loud, hiss = np.zeros(len(formants)), np.zeros(len(formants))
    at = 0
    for sound, accent, count in zip(sounds, stress, blocks, strict=True):
        stop = at + count
        loud[at:stop] = sound.voice * accent
        if sound.stop:  # closed for two thirds, then a burst that dies away
            burst = at + (2 * count) // 3
            hiss[burst:stop] = sound.hiss * np.exp(-np.arange(stop - burst) / 1.5)
        else:
            hiss[at:stop] = sound.hiss
        at = stop
    centre = np.repeat([s.centre for s in sounds], blocks)
    # Formants glide over about 50 ms, loudness over 10.
    return _smooth(formants, 10), _smooth(loud[:, None], 2)[:, 0], hiss, centre


def _smooth(tracks: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(tracks, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, i], window / window.sum(), "valid") for i in range(tracks.shape[1])]
    return np.stack(columns, axis=1)


def _sources(
    loud: np.ndarray, hiss: np.ndarray, centre: np.ndarray, voice: FormantVoice, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The glottis with breath, and the hiss already in its band; [samples] each."""
    count = len(loud) * _BLOCK
    seconds = np.arange(count) / SAMPLE_RATE
    wander = sum(
        np.sin(2 * np.pi * f * seconds + rng.uniform(0, 2 * np.pi)) * a
        for f, a in ((0.4, 0.6), (1.1, 0.4), (2.7, 0.2))
    )
    fall = 0.5 - seconds / max(seconds[-1], 1e-6)  # pitch sinks towards the end
    pitch = voice.pitch_hz * 2 ** (voice.melody * (wander + fall) / 12)
    phase = np.cumsum(pitch / SAMPLE_RATE) % 1.0
    # The flow's derivative in the manner of Rosenberg: a slow opening, a sharp closing.
    opening, closing = phase < 0.42, (phase >= 0.42) & (phase < 0.6)
    pulse = np.where(opening, np.sin(np.pi * phase / 0.42) * 0.35, 0.0)
    pulse = np.where(closing, -(np.sin(np.pi * (phase - 0.42) / 0.36) ** 2), pulse)
    white = rng.standard_normal(count)
    glottis = (pulse + voice.breath * white * (phase < 0.6)) * np.repeat(loud, _BLOCK)
    noise = np.zeros(count)
    for name in np.unique(centre[hiss > 0]):
        band = np.repeat(np.where(centre == name, hiss, 0.0), _BLOCK)
        noise += _resonate(white * band, min(float(name), 7200.0), 1800.0)
    return glottis, 2.0 * noise


def _resonate(samples: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    b, a = _resonator(frequency, bandwidth)
    # Zero at the mean: a hiss has nothing below its band.
    return np.asarray(lfilter([b[0], -b[0]], a, samples))


def _resonator(frequency: float, bandwidth: float) -> tuple[list[float], list[float]]:
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    a = [1.0, float(-2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE)), float(radius**2)]
    return [1 + a[1] + a[2]], a


def _cascade(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Four resonators in a row, their frequencies following `formants` [B, 3] block by block."""
    signal = source
    for i, bandwidth in enumerate(_BANDWIDTHS):
        track = formants[:, i] if i < 3 else np.full(len(formants), _FOURTH)
        state, out = np.zeros(2), np.empty_like(signal)
        for j, frequency in enumerate(track):
            b, a = _resonator(min(float(frequency), 7500.0), bandwidth)
            span = slice(j * _BLOCK, (j + 1) * _BLOCK)
            out[span], state = lfilter([*b, 0.0, 0.0], a, signal[span], zi=state)
        signal = out
    return np.diff(signal, prepend=0.0)  # radiation at the lips
