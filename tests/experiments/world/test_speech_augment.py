from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from experiments.world.config import AugmentConfig
from experiments.world.speech_augment import augment

OFF = {"noise": 0.0, "reverb": 0.0, "telephone": 0.0, "equalizer": 0.0, "peak_db": (-6.0, -6.0)}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _click() -> torch.Tensor:
    audio = torch.zeros(16000)
    audio[8000:8020] = 0.5
    return audio


def _config(**settings) -> AugmentConfig:
    return AugmentConfig(**{**OFF, **settings})


def _power(audio: torch.Tensor, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(audio.double().numpy())) ** 2
    frequency = np.fft.rfftfreq(len(audio), 1 / 16000)
    return float(spectrum[(frequency >= low) & (frequency < high)].sum())


@pytest.mark.parametrize("seed", range(12))
def test_augmented_sound_keeps_length_range_and_time(seed: int) -> None:
    out = augment(_click(), AugmentConfig(noise_db=(30.0, 45.0)), generator=_generator(seed))
    assert out.shape == (16000,)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert float(out.abs().max()) <= 10 ** (-0.5 / 20) + 1e-6
    assert 8000 <= int(out.abs().argmax()) <= 8032
    assert torch.equal(
        out, augment(_click(), AugmentConfig(noise_db=(30.0, 45.0)), generator=_generator(seed))
    )


def test_level_alone() -> None:
    out = augment(_click(), _config(), generator=_generator())
    assert torch.allclose(out, _click() * 10 ** (-6 / 20) / 0.5)
    assert not augment(torch.zeros(1000), _config(reverb=1.0), generator=_generator()).any()


def test_noise_has_its_level() -> None:
    tone = 0.5 * torch.sin(torch.arange(16000) * 0.3)
    out = augment(tone, _config(noise=1.0, noise_db=(20.0, 20.0)), generator=_generator())
    scale = float(out @ tone / (tone @ tone))
    noise = out - scale * tone
    measured = 10 * np.log10(float((scale * tone).square().mean() / noise.square().mean()))
    assert measured == pytest.approx(20, abs=0.5)


def test_rooms_echo_afterwards_and_die_away() -> None:
    out = augment(_click(), _config(reverb=1.0, reverb_seconds=(0.3, 0.3)), generator=_generator())
    assert out[:8000].abs().max() < 1e-6
    early, late = out[8100:9600].square().sum(), out[11200:12700].square().sum()
    assert 20 < 10 * np.log10(float(early / late)) < 60  # 40 dB in 0.2 s
    assert early > 0


def test_telephones_lose_lows_and_highs() -> None:
    white = 0.1 * torch.randn(32000, generator=_generator())
    out = augment(white, _config(telephone=1.0), generator=_generator())
    middle = _power(out, 800, 2800) / 2000
    assert _power(out, 0, 100) / 100 < 0.05 * middle
    assert _power(out, 6000, 8000) / 2000 < 0.05 * middle


def test_equalizers_move_bands_by_a_few_decibels() -> None:
    white = 0.1 * torch.randn(32000, generator=_generator())
    out = augment(white, _config(equalizer=1.0), generator=_generator(5))
    edges = np.geomspace(100, 7000, 12)
    gains = [10 * np.log10(_power(out, a, b) / _power(white, a, b)) for a, b in itertools.pairwise(edges)]
    assert 2 < max(gains) - min(gains) < 54


def test_bad_settings() -> None:
    for bad in ({"noise": 1.5}, {"noise_db": (9.0, 3.0)}, {"peak_db": (0.0, 6.0)}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            AugmentConfig(**bad)  # type: ignore[arg-type]
