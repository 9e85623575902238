"""Recordings are never clean: level, noise, rooms, telephones and tone controls, without moving anything in time."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.signal import butter, fftconvolve, sosfilt
from torch import Tensor

from experiments.world.config import AugmentConfig
from experiments.world.speech_sound import SAMPLE_RATE


def augment(audio: Tensor, config: AugmentConfig | None = None, *, generator: torch.Generator) -> Tensor:
    """A recording of `audio` ([N] float32 at 16 kHz), as long as it; within [-1, 1].

    The sound stays where it is: echoes follow it, and the filters' own delay is below 2 ms.
    """
    config = config or AugmentConfig()

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    x = audio.double().numpy()
    if uniform() < config.equalizer:
        for _ in range(3):
            frequency, gain = 120 * (6000 / 120) ** uniform(), uniform(-9, 9)
            x = _peak_filter(x, frequency, gain, uniform(0.5, 1.5))
    if uniform() < config.reverb:
        x = _room(x, uniform(*config.reverb_seconds), uniform(0.1, 0.7), generator)
    if uniform() < config.noise:
        x = x + _noise(x, uniform(*config.noise_db), uniform(-1.0, 1.0), generator)
    if uniform() < config.telephone:
        band = [uniform(200, 350), uniform(3100, 3700)]
        x = np.asarray(sosfilt(butter(2, band, "bandpass", fs=SAMPLE_RATE, output="sos"), x))
    peak = 10 ** (uniform(*config.peak_db) / 20)
    return torch.from_numpy((x * (peak / max(float(np.abs(x).max(initial=0.0)), 1e-9))).astype(np.float32))


def _peak_filter(x: np.ndarray, frequency: float, gain_db: float, width: float) -> np.ndarray:
    """Raise or lower a band of `width` (1 / Q) about a frequency."""
    a, w = 10 ** (gain_db / 40), 2 * math.pi * frequency / SAMPLE_RATE
    slope, cosine = 0.5 * width * math.sin(w), -2 * math.cos(w)
    sos = np.array([[1 + slope * a, cosine, 1 - slope * a, 1 + slope / a, cosine, 1 - slope / a]])
    return np.asarray(sosfilt(sos / sos[0, 3], x))


def _gaussian(count: int, generator: torch.Generator) -> np.ndarray:
    return torch.randn(count, generator=generator, dtype=torch.float64).numpy()


def _room(x: np.ndarray, seconds: float, share: float, generator: torch.Generator) -> np.ndarray:
    """The direct sound and noise that dies away: 60 dB in `seconds`. share: energy of the echo against the sound."""
    count = int(seconds * SAMPLE_RATE)
    tail = _gaussian(count, generator) * 10 ** (-3 * np.arange(count) / count)
    tail[: int(0.003 * SAMPLE_RATE)] = 0.0  # the nearest wall is half a metre away
    tail *= share / math.sqrt(float(np.sum(tail**2)) + 1e-12)
    tail[0] = 1.0
    return np.asarray(fftconvolve(x, tail))[: len(x)]


def _noise(x: np.ndarray, above_db: float, colour: float, generator: torch.Generator) -> np.ndarray:
    """Noise `above_db` below the speech. colour: its power goes with f ** colour; -1 is pink, 0 white."""
    spectrum = np.fft.rfft(_gaussian(len(x), generator))
    ramp = np.maximum(np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE), 50.0) ** (0.5 * colour)
    noise = np.fft.irfft(spectrum * ramp, len(x))
    power = float(np.mean(noise**2)) + 1e-20
    return noise * math.sqrt((float(np.mean(x**2)) + 1e-12) / power) * 10 ** (-above_db / 20)
