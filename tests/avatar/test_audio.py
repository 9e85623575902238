from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avatar.audio import MIN_DURATION, SAMPLE_RATE, AudioClip, AudioError, AudioFile, load_audio
from tests.avatar.sounds import amplitude, write_av

# Where a click lies after each codec's own smearing and resampling.
_SECONDS = 1.5


def _chirp(rate: int, seconds: float = _SECONDS) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


def _click(rate: int) -> np.ndarray:
    """A short burst at 0.500 s; a burst, because codecs spread a single sample."""
    samples = np.zeros(round(rate * _SECONDS), np.float32)
    t = np.arange(round(0.004 * rate)) / rate
    samples[rate // 2 : rate // 2 + len(t)] = 0.8 * np.sin(2 * np.pi * 1500 * t)
    return samples


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_mono_or_not(tmp_path: Path, rate: int, channels: int) -> None:
    t = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype="PCM_24")
    audio = load_audio(path)
    assert audio.num_samples == SAMPLE_RATE
    assert audio.samples.dtype == torch.float32
    middle = audio.samples.numpy()[1600:-1600]
    assert amplitude(middle, SAMPLE_RATE, 440) == pytest.approx(0.5, abs=2e-3)
    reference = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(audio.samples.numpy() - reference)[200:-200].max() < 2e-3


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.wav", "PCM_U8"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS"),
     ("a.mp3", "MPEG_LAYER_III"), ("a.aiff", "PCM_16")],
)  # fmt: skip
def test_formats_of_libsndfile(tmp_path: Path, name: str, subtype: str) -> None:
    soundfile.write(tmp_path / name, _click(44100), 44100, subtype=subtype)
    _check_click(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 44100), ("a.mp4", "aac", 48000), ("a.aac", "aac", 44100), ("a.mkv", "libopus", 48000),
     ("a.ogg", "libopus", 48000), ("a.webm", "libopus", 48000), ("a.mov", "pcm_s16le", 22050)],
)  # fmt: skip
def test_formats_of_ffmpeg(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    write_av(tmp_path / name, _click(rate), rate, codec)
    # A bare AAC stream has nowhere to write down the encoder's delay.
    _check_click(tmp_path / name, late=0.05 if name == "a.aac" else 0.0)


def _check_click(path: Path, late: float = 0.0) -> None:
    samples = load_audio(path).samples.numpy()
    assert len(samples) / SAMPLE_RATE == pytest.approx(_SECONDS, abs=0.06)
    energy = np.convolve(samples**2, np.ones(32), "same")
    loudest = np.flatnonzero(energy > 0.25 * energy.max())
    assert 0.5 - 0.005 <= loudest[0] / SAMPLE_RATE <= 0.505 + late
    assert np.abs(samples).max() > 0.4


def test_the_name_says_nothing_about_the_format(tmp_path: Path) -> None:
    path = write_av(tmp_path / "a.m4a", _chirp(44100), 44100, "aac").rename(tmp_path / "a.wav")
    assert load_audio(path).num_samples == pytest.approx(SAMPLE_RATE * _SECONDS, abs=1000)


def test_sound_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=16000)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio.codec_context.layout = "mono"
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(video.encode(picture))
            frame = av.AudioFrame.from_ndarray(_chirp(16000)[None, 640 * i : 640 * i + 640], "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 640 * i
            container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())
    assert load_audio(path).duration == pytest.approx(1, abs=0.1)


def test_eight_channels_at_96_khz(tmp_path: Path) -> None:
    path = tmp_path / "eight.wav"
    eight = np.zeros((96000, 8), np.float32)
    eight[:, 5] = 0.8 * np.sin(2 * np.pi * 300 * np.arange(96000) / 96000)
    soundfile.write(path, eight, 96000, subtype="FLOAT")
    audio = load_audio(path)
    assert audio.num_samples == SAMPLE_RATE
    assert amplitude(audio.samples.numpy(), SAMPLE_RATE, 300) == pytest.approx(0.8, abs=1e-3)
    loud = write_av(tmp_path / "eight.mkv", np.repeat(_chirp(48000)[:, None], 8, 1), 48000, "flac", "7.1")
    assert load_audio(loud).num_samples == pytest.approx(SAMPLE_RATE * _SECONDS, abs=2)


def test_what_would_alias_is_gone(tmp_path: Path) -> None:
    t = np.arange(48000) / 48000
    soundfile.write(tmp_path / "high.wav", 0.9 * np.sin(2 * np.pi * 11_000 * t), 48000)
    assert load_audio(tmp_path / "high.wav").samples[800:-800].abs().max() < 1e-3


def test_above_full_scale_is_divided_by_the_peak(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 40 * _chirp(16000), 16000, subtype="FLOAT")
    file = AudioFile(tmp_path / "loud.wav")
    assert file.gain == pytest.approx(1 / 20, rel=1e-3)
    assert float(file.read(0, file.num_samples).abs().max()) == pytest.approx(1.0, abs=1e-5)
    soundfile.write(tmp_path / "soft.wav", 0.01 * _chirp(16000), 16000, subtype="FLOAT")
    assert AudioFile(tmp_path / "soft.wav").gain == 1.0


@pytest.fixture(scope="module")
def chirp_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "chirp.wav"
    soundfile.write(path, np.stack([_chirp(44100, 4.0), 0.2 * _chirp(44100, 4.0)], 1), 44100)
    return path


@settings(max_examples=15)
@given(spans=st.lists(st.tuples(st.integers(-3000, 70_000), st.integers(0, 20_000)), min_size=1, max_size=6))
def test_reads_do_not_depend_on_their_order(chirp_file: Path, spans: list[tuple[int, int]]) -> None:
    whole = load_audio(chirp_file)
    file = AudioFile(chirp_file)
    assert file.num_samples == whole.num_samples == 4 * SAMPLE_RATE
    for start, length in spans:
        piece = file.read(start, start + length)
        assert piece.shape == (length,)
        assert torch.equal(piece, whole.read(start, start + length))
        places = torch.arange(start, start + length)
        outside = (places < 0) | (places >= whole.num_samples)
        assert not piece[outside].any()


def test_a_long_recording_streams(tmp_path: Path) -> None:
    path, rate, minutes = tmp_path / "long.wav", 8000, 20
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_16") as out:
        for i in range(minutes):
            out.write(np.full(60 * rate, 0.01 * i, np.float32))
    tracemalloc.start()
    file = AudioFile(path)
    assert file.duration == 60 * minutes
    for start in range(0, file.num_samples, 60 * SAMPLE_RATE):
        piece = file.read(start + 8000, start + 16000)
        assert torch.allclose(piece, torch.full_like(piece, 0.01 * (start // (60 * SAMPLE_RATE))), atol=1e-4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # all of it would be 77 MB
    again = file.read(0, 1000)  # going back starts anew
    assert again.abs().max() < 1e-4


def test_silence_is_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    assert AudioFile(tmp_path / "silence.wav").silent
    assert not load_audio(tmp_path / "silence.wav").samples.any()


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    def check(name: str, *words: str) -> None:
        with pytest.raises(AudioError) as caught:
            AudioFile(tmp_path / name)
        message = str(caught.value)
        assert name in message
        assert "\n" not in message
        assert all(word in message for word in words), message

    with pytest.raises(FileNotFoundError):
        AudioFile(tmp_path / "missing.wav")
    with pytest.raises(OSError, match="directory"):
        AudioFile(tmp_path)
    (tmp_path / "text.wav").write_text("Dear reader,\nthis is no sound.\n" * 50)
    check("text.wav", "no sound file", "WAV, FLAC, MP3, OGG and M4A")
    (tmp_path / "bytes.mp3").write_bytes(bytes(range(1, 256)) * 4)
    check("bytes.mp3", "no sound file")
    (tmp_path / "nothing.wav").write_bytes(b"")
    check("nothing.wav", "empty")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    check("none.wav", "no samples")
    soundfile.write(tmp_path / "short.wav", np.zeros(160), 16000)
    check("short.wav", "0.010 s", f"{float(MIN_DURATION):g} s")
    spoilt = _chirp(16000)
    spoilt[8000] = np.nan
    soundfile.write(tmp_path / "nan.wav", spoilt, 16000, subtype="FLOAT")
    check("nan.wav", "NaN", "0.500 s")
    spoilt[8000] = np.inf
    soundfile.write(tmp_path / "inf.wav", spoilt, 16000, subtype="FLOAT")
    check("inf.wav", "infinite", "0.500 s")
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24"))
        )
        container.mux(stream.encode())
    check("mute.mp4", "no sound")


@pytest.mark.parametrize("name", ["a.m4a", "a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_truncated_files_are_read_or_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name == "a.m4a":
        write_av(path, _chirp(44100), 44100, "aac")
    else:
        soundfile.write(path, _chirp(44100), 44100)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    try:
        audio = load_audio(path)
    except AudioError:
        return
    assert 0.1 <= audio.duration <= _SECONDS + 0.06


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", _chirp(16000), 16000)
    listing = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    for name, text in (
        ("a.m3u8", listing),
        ("a.ffconcat", f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioError, match="no sound file"):
            AudioFile(tmp_path / name)


def test_clips_check_their_samples() -> None:
    clip = AudioClip(torch.linspace(-1, 1, 3200))
    assert clip.duration == Fraction(1, 5)
    assert torch.equal(clip.read(-2, 2), torch.cat([torch.zeros(2), clip.samples[:2]]))
    assert not clip.read(3200, 3300).any()
    assert clip.read(-50, -10).shape == (40,)
    for samples, words in (
        (torch.zeros(2, 16000), "float32"),
        (torch.zeros(16000, dtype=torch.float64), "float32"),
        (torch.zeros(160), "0.010 s"),
        (torch.full((16000,), torch.nan), "NaN"),
        (torch.full((16000,), 3.0), "divide"),
    ):
        with pytest.raises(AudioError, match=words):
            AudioClip(samples)
    with pytest.raises(ValueError, match="before"):
        clip.read(5, 4)
