"""Which mix is heard of recordings of many channels, and which channels a video gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avatar.audio import AudioFile
from avatar.audio_mix import for_video, mixes
from tests.avatar.sounds import amplitude, write_av

RATE = 16_000
SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")


def speech(level: float = 0.3, frequency: float = 440.0) -> np.ndarray:
    t = np.arange(2 * RATE) / RATE
    return (level * np.sin(2 * np.pi * frequency * t) * np.abs(np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def opened(path: Path, *channels: np.ndarray, layout: str | None = None) -> AudioFile:
    """layout: FFmpeg's name of the channels' places; None writes a WAV that does not tell them."""
    sound = np.stack(channels, axis=1)
    if layout is None:
        soundfile.write(path.with_suffix(".wav"), sound, RATE, subtype="FLOAT")
        return AudioFile(path.with_suffix(".wav"))
    return AudioFile(write_av(path.with_suffix(".wav"), sound, RATE, "pcm_f32le", layout))


def heard(file: AudioFile) -> np.ndarray:
    return file.read(0, file.num_samples).numpy()


def level(file: AudioFile, against: np.ndarray) -> float:
    """How loud the mix is against a sound, in dB."""
    return float(10 * np.log10(np.square(heard(file)).mean() / np.square(against).mean()))


def test_mono_and_ordinary_stereo_are_what_they_were(tmp_path: Path) -> None:
    left, right = speech(), speech(0.2, 500)
    assert np.array_equal(heard(opened(tmp_path / "a", left)), left)
    for other in (left, 0.8 * left, right, 0.5 * left + right):
        file = opened(tmp_path / "b", left, other)
        assert np.allclose(heard(file), (left + other) / 2, atol=1e-7)
        assert file.remarks == []


@pytest.mark.parametrize("swapped", [False, True])
def test_speech_on_one_side_is_as_loud_as_it_was(tmp_path: Path, swapped: bool) -> None:
    sides = [speech(), np.zeros_like(speech())]
    file = opened(tmp_path / "a", *(sides[::-1] if swapped else sides))
    assert level(file, speech()) == pytest.approx(0, abs=0.1)
    assert file.remarks == []


def test_of_two_speakers_on_two_sides_both_are_heard(tmp_path: Path) -> None:
    first, second = speech(0.3), speech(0.1, 900)
    first[RATE:], second[:RATE] = 0, 0
    file = opened(tmp_path / "a", first, second)
    assert np.allclose(heard(file), first + second, atol=1e-6)


@pytest.mark.parametrize("factor", [-1.0, -0.9, -0.5])
def test_channels_that_cancel_leave_the_loudest(tmp_path: Path, factor: float) -> None:
    file = opened(tmp_path / "a", speech(), factor * speech())
    assert not file.silent
    assert np.allclose(heard(file), speech(), atol=1e-6)
    assert "cancel" in file.remarks[0]
    swapped = heard(opened(tmp_path / "b", factor * speech(), speech()))
    assert np.allclose(np.abs(swapped), np.abs(speech()), atol=1e-6)


@pytest.mark.parametrize("channel", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("layout", ["5.1", "5.1(side)", None])
def test_speech_in_any_channel_of_surround_sound_is_as_loud_as_it_was(
    tmp_path: Path, channel: int, layout: str | None
) -> None:
    channels = [np.zeros_like(speech()) for _ in SURROUND]
    channels[channel] = speech()
    assert level(opened(tmp_path / "a", *channels, layout=layout), speech()) == pytest.approx(0, abs=0.1)


def test_speech_in_the_centre_stands_out_of_music_and_rumble_is_left_out(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    music = [(0.05 * noise.standard_normal(2 * RATE)).astype(np.float32) for _ in range(4)]
    rumble = 0.9 * np.sin(2 * np.pi * 40 * np.arange(2 * RATE) / RATE).astype(np.float32)
    file = opened(tmp_path / "a", music[0], music[1], speech(), rumble, music[2], music[3], layout="5.1")
    assert amplitude(heard(file), RATE, 40) < 0.005
    assert np.corrcoef(heard(file), speech())[0, 1] > 0.95
    assert level(file, speech()) == pytest.approx(0, abs=1)
    silent = [np.zeros_like(rumble)] * 3
    assert not opened(tmp_path / "b", *silent, rumble, *silent[:2], layout="5.1").silent


def test_reads_agree_and_stay_within_full_scale(tmp_path: Path) -> None:
    channels = [speech(0.9) for _ in range(6)]
    file = opened(tmp_path / "a", *channels, layout="5.1")
    whole = file.read(0, file.num_samples)
    assert float(whole.abs().max()) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(file.read(3000, 9000), whole[3000:9000])
    assert torch.equal(AudioFile(file.path).read(3000, 9000), whole[3000:9000])
    assert file.remarks == []  # the recording itself is within full scale


def test_a_video_gets_the_recordings_own_channels(tmp_path: Path) -> None:
    left, right = speech(), speech(0.2, 700)
    for channels in ([left], [left, right], [left, -left]):
        track = opened(tmp_path / "a", *channels).track()
        assert (track.rate, track.channels) == (RATE, len(channels))
        assert np.array_equal(torch.cat(list(track.blocks), dim=1).numpy(), np.stack(channels))
    channels = [speech(0.1, 200.0 + 100 * index) for index in range(6)]
    track = opened(tmp_path / "b", *channels, layout="5.1").track()
    found = torch.cat(list(track.blocks), dim=1).numpy()
    front_left, front_right, centre, _, back_left, back_right = channels
    assert np.allclose(found[0], front_left + 0.5**0.5 * (centre + back_left), atol=1e-6)
    assert np.allclose(found[1], front_right + 0.5**0.5 * (centre + back_right), atol=1e-6)
    eight = opened(tmp_path / "c", *[speech(0.1)] * 8)
    assert eight.track().channels == 1
    assert np.array_equal(torch.cat(list(eight.track().blocks), dim=1)[0].numpy(), heard(eight))


def test_too_loud_channels_are_divided_by_their_own_peak(tmp_path: Path) -> None:
    file = opened(tmp_path / "a", 4 * speech(), -4 * speech())
    track = torch.cat(list(file.track().blocks), dim=1)
    assert float(track.abs().max()) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(track[0], -track[1])
    assert any("beyond full scale" in remark for remark in file.remarks)


def test_weights_by_place() -> None:
    assert mixes(SURROUND)[0].weights.tolist() == pytest.approx([0.5, 0.5, 1, 0, 0.3536, 0.3536], abs=1e-4)
    assert mixes(("FL", "FR", "LFE"))[0].weights.tolist() == [0.5, 0.5, 0]
    assert mixes(("NONE",) * 4)[0].weights.tolist() == [0.25] * 4
    assert for_video(("NONE",) * 3) is None
    seven = for_video(("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"))
    assert seven is not None
    assert seven[:, 0].tolist() == pytest.approx([1, 0, 0.7071, 0, 0.7071, 0, 0.7071, 0], abs=1e-4)
