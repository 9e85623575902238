from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2EncoderLayer

import avatar.audio_encoders as encoders
from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig, SpeechFeatures
from avatar.audio_frames import num_frames, read_windows

NTSC = Fraction(30000, 1001)


def _noise(seconds: float, seed: int = 0) -> AudioClip:
    generator = torch.Generator().manual_seed(seed)
    count = round(16000 * seconds)
    swell = torch.linspace(0, 9, count).sin().abs()
    return AudioClip((0.3 * swell * torch.randn(count, generator=generator)).clamp(-1, 1))


def _reference(samples: np.ndarray, floor: float) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, hop_length=160, win_length=400, n_mels=80, pad_mode="constant"
    )
    return np.log10(np.maximum(power, floor)).T


def test_log_mel_is_librosas() -> None:
    audio, config = _noise(2.3), LogMelConfig()
    expected = _reference(audio.samples.numpy(), config.floor)
    track = config.build().track(audio, 0, len(expected)).numpy()
    assert np.abs(track - expected).max() <= 1e-5
    frames = config.build().of(audio, Fraction(25))
    assert frames.num_frames == 58
    assert frames.shape == (4, 80)
    values = frames.read(0, 57) * frames.deviation + frames.mean
    assert np.abs(values.reshape(-1, 80).numpy() - expected[:228]).max() <= 1e-5


def test_log_mel_by_the_formula() -> None:
    """One hop worked out with a direct Fourier sum."""
    audio, k = _noise(0.5), 20
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    piece = window * audio.read(160 * k - 256, 160 * k + 256).double().numpy()
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512)
    power = librosa.filters.mel(sr=16000, n_fft=512, n_mels=80) @ np.abs(waves @ piece) ** 2
    track = LogMelConfig().build().track(audio, k, k + 1)
    assert np.abs(track[0].numpy() - np.log10(power)).max() <= 1e-5


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 70), max_size=5), fps=st.sampled_from([Fraction(25), Fraction(30), NTSC]))
@pytest.mark.parametrize("normalize", ["fixed", "utterance"])
def test_log_mel_in_pieces_has_the_same_bits(normalize: str, cuts: list[int], fps: Fraction) -> None:
    audio = _noise(2.4)
    features = LogMelConfig(normalize=normalize).build()  # type: ignore[arg-type]
    frames = features.of(audio, fps)
    whole = frames.read(0, frames.num_frames)
    ends = sorted({0, frames.num_frames, *(cut for cut in cuts if cut < frames.num_frames)})
    pieces = [features.of(audio, fps).read(a, b) for a, b in pairwise(ends)]
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), NTSC])
def test_log_mel_finds_a_click_where_it_is(fps: Fraction) -> None:
    samples = torch.zeros(16000 * 61)
    samples[16000 * 60 : 16000 * 60 + 20] = 0.9  # a minute in
    frames = LogMelConfig().build().of(AudioClip(samples), fps)
    first = int(59 * fps)
    energy = frames.read(first, frames.num_frames).mean(dim=-1)  # [F, P]
    loudest = int(energy.flatten().argmax()) / 4 + first
    assert abs(loudest / float(fps) - 60) <= 0.0125


def test_utterance_normalisation_removes_level_and_colour() -> None:
    audio = _noise(3)
    quiet = AudioClip(0.1 * audio.samples)
    features = LogMelConfig(normalize="utterance", floor=1e-12).build()
    loud_values, quiet_values = (features.of(a, Fraction(25)).read(0, 75) for a in (audio, quiet))
    assert torch.allclose(loud_values, quiet_values, atol=1e-3)
    assert loud_values.mean().abs() < 0.1
    fixed = LogMelConfig(floor=1e-12).build()
    difference = fixed.of(audio, Fraction(25)).read(0, 75) - fixed.of(quiet, Fraction(25)).read(0, 75)
    assert torch.allclose(difference, torch.full_like(difference, 1.0), atol=1e-3)  # 20 dB are 2, deviation 2


def test_silence_has_finite_features() -> None:
    silence = AudioClip(torch.zeros(8000))
    for normalize in ("fixed", "utterance"):
        values = LogMelConfig(normalize=normalize).build().of(silence, Fraction(25)).read(0, 13)  # type: ignore[arg-type]
        assert torch.isfinite(values).all()
        assert float(values.std()) < 1e-6


def test_bad_settings_and_ranges() -> None:
    for bad in ({"num_bins": 0}, {"window": 600}, {"floor": 0.0}, {"normalize": "none"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            LogMelConfig(**bad)  # type: ignore[arg-type]
    frames = LogMelConfig().build().of(_noise(1), Fraction(25))
    for start, stop in ((0, 26), (-1, 3), (3, 3)):
        with pytest.raises(ValueError, match=r"0 \.\.\. 25"):
            frames.read(start, stop)


def _wav2vec2(stable: bool = False) -> Wav2Vec2Model:
    torch.manual_seed(0)
    return Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
            conv_dim=(16,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
            do_stable_layer_norm=stable, feat_extract_norm="layer" if stable else "group", vocab_size=8,
        )
    ).eval()  # fmt: skip


def _hallo(model: Wav2Vec2Model, samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Written out layer by layer from what Hallo's encoder does (post-norm models). [frames, layers, width]"""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    heard = model.feature_extractor(values.to(model.dtype))
    length = heard.shape[-1]
    columns = []
    for i in range(frames):  # linear interpolation that keeps both ends
        place = i * (length - 1) / max(frames - 1, 1)
        low = min(int(place), length - 1)
        high = min(low + 1, length - 1)
        columns.append(heard[..., low] + (place - low) * (heard[..., high] - heard[..., low]))
    x, _ = model.feature_projection(torch.stack(columns, dim=1))
    encoder = model.encoder
    x = encoder.layer_norm(x + encoder.pos_conv_embed(x))
    states = []
    for layer in encoder.layers:
        assert isinstance(layer, Wav2Vec2EncoderLayer)
        attention = layer.attention
        q, k, v = (
            projection(x).view(1, frames, 2, 12).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = F.softmax(q @ k.transpose(-1, -2) * 12**-0.5, dim=-1) @ v
        x = layer.layer_norm(x + attention.out_proj(mixed.transpose(1, 2).reshape(1, frames, 24)))
        x = layer.final_layer_norm(x + layer.feed_forward(x))
        states.append(x[0])
    return torch.stack(states, dim=1)


@torch.no_grad()
def test_wav2vec2_is_hallos() -> None:
    model, audio = _wav2vec2().double(), _noise(1.37)
    features = encoders.Wav2Vec2Features(model)
    assert features.shape == (3, 24)
    for fps in (Fraction(25), NTSC):
        frames = features.of(audio, fps)
        values = frames.read(0, frames.num_frames)
        expected = _hallo(model, audio.samples, num_frames(audio.duration, fps))
        assert values.shape == expected.shape
        assert (values - expected).abs().max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("stable", [False, True])
def test_wav2vec2_without_stretching_is_transformers(stable: bool) -> None:
    model, audio = _wav2vec2(stable), _noise(0.9)
    length = int(model._get_feat_extract_output_lengths(audio.num_samples))
    values = encoders.Wav2Vec2Features(model).encode(audio.samples, length)
    scaled = (audio.samples - audio.samples.mean()) / torch.sqrt(audio.samples.var(correction=0) + 1e-7)
    expected = model(scaled[None], output_hidden_states=True)
    assert (values[:, -1] - expected.last_hidden_state[0]).abs().max() <= 1e-5
    inner = torch.stack(expected.hidden_states[1:-1], dim=2)[0]
    assert (values[:, :-1] - inner).abs().max() <= 1e-5


def test_wav2vec2_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_SEGMENT_SECONDS", 1)
    audio = _noise(3.01)
    features = encoders.Wav2Vec2Features(_wav2vec2())
    frames = features.of(audio, Fraction(25))
    assert frames.num_frames == 76
    whole = frames.read(0, 76)
    assert torch.equal(torch.cat([frames.read(0, 10), frames.read(10, 60), frames.read(60, 76)]), whole)
    assert torch.equal(whole[25:50], features.encode(audio.read(16000, 32000), 25))


def _whisper() -> encoders.WhisperFeatures:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=24, vocab_size=32, max_source_positions=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    return encoders.WhisperFeatures(WhisperModel(config).encoder, WhisperFeatureExtractor(chunk_length=2))


@torch.no_grad()
def test_whisper_is_transformers() -> None:
    features, audio = _whisper(), _noise(3.1)
    frames = features.of(audio, Fraction(25))
    assert frames.shape == features.shape == (6, 16)
    whole = frames.read(0, frames.num_frames)
    assert whole.shape == (78, 6, 16)
    segments = []
    for start in (0, 32000):
        mel = features.extractor(
            audio.read(start, start + 32000).numpy(), sampling_rate=16000, return_tensors="pt"
        ).input_features
        states = features.encoder(mel, output_hidden_states=True).hidden_states
        assert len(states) == 3
        segments.append(torch.stack(states, dim=2)[0])
    steps = torch.cat(segments)  # [200, 3, 16], 50 a second
    assert (whole - steps[:156].reshape(78, 6, 16)).abs().max() <= 1e-5
    window = read_windows(frames.read, 40, 41, frames.num_frames, radius=2)
    # MuseTalk's ten steps around a frame.
    assert (window.reshape(30, 16) - steps[76:86].reshape(30, 16)).abs().max() <= 1e-5


def test_whisper_in_pieces() -> None:
    features, audio = _whisper(), _noise(5)
    frames = features.of(audio, NTSC)
    whole = frames.read(0, frames.num_frames)
    pieces = [frames.read(a, min(a + 16, frames.num_frames)) for a in range(0, frames.num_frames, 16)]
    assert torch.equal(torch.cat(pieces), whole)


def test_encoders_load_from_a_folder(tmp_path: Path) -> None:
    model = _wav2vec2()
    model.save_pretrained(tmp_path / "w")
    loaded = encoders.Wav2Vec2Config(folder=str(tmp_path / "w")).build()
    audio = _noise(0.5)
    assert torch.equal(
        loaded.encode(audio.samples, 13), encoders.Wav2Vec2Features(model).encode(audio.samples, 13)
    )
    whisper = _whisper()
    parent = WhisperModel(whisper.encoder.config)
    parent.encoder.load_state_dict(whisper.encoder.state_dict())
    parent.save_pretrained(tmp_path / "h")
    whisper.extractor.save_pretrained(tmp_path / "h")
    again = encoders.WhisperConfig(folder=str(tmp_path / "h")).build()
    assert torch.equal(again.encode(audio.samples), whisper.encode(audio.samples))
    with pytest.raises(ValueError, match="per_frame"):
        encoders.WhisperConfig(folder="x", per_frame=0)


def test_all_speak_the_protocol() -> None:
    audio = _noise(1)
    kinds: list[SpeechFeatures] = [LogMelConfig().build(), encoders.Wav2Vec2Features(_wav2vec2()), _whisper()]
    for features in kinds:
        frames = features.of(audio, Fraction(25))
        windows = read_windows(frames.read, 20, 25, frames.num_frames, radius=2)
        assert windows.shape == (5, 5, *features.shape)
