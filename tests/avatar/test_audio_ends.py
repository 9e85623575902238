"""Recordings that were joined, cut, damaged or never finished: what is there is read, and what is missing is said."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avatar.audio import AudioError, AudioFile
from avatar.audio_parts import parts_of
from tests.avatar.sounds import amplitude, write_av

RATE = 44_100
SECONDS = 3.0
FIRST, SECOND = 300.0, 900.0


def tone(frequency: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """With some noise, for Ogg puts seconds of a pure tone into one page."""
    wave = 0.4 * np.sin(2 * np.pi * frequency * np.arange(round(SECONDS * rate)) / rate)
    wave += 0.05 * np.random.default_rng(0).standard_normal(len(wave))
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def write(path: Path, frequency: float = FIRST, rate: int = RATE, channels: int = 1) -> Path:
    """A file of the kind that its name says."""
    sound = tone(frequency, rate, channels)
    codec = {".m4a": "aac", ".aac": "aac", ".opus": "libopus"}.get(path.suffix)
    if codec is None:
        soundfile.write(path, sound, rate)
        return path
    rate = 48_000 if codec == "libopus" else rate
    return write_av(path, tone(frequency, rate, channels), rate, codec, "stereo" if channels == 2 else "mono")


def hears(file: AudioFile, frequency: float, start: float, stop: float) -> float:
    """Amplitude of a frequency between two times; half a second around each join is left to the codecs."""
    return amplitude(file.read(round(16_000 * start), round(16_000 * stop)).numpy(), 16_000, frequency)


@pytest.mark.parametrize(
    ("suffix", "second"),
    [(".mp3", (RATE, 1)), (".mp3", (RATE, 2)), (".ogg", (RATE, 1)), (".ogg", (22_050, 2)), (".opus", (16_000, 1)),
     (".opus", (48_000, 2)), (".flac", (RATE, 1)), (".wav", (RATE, 1)), (".wav", (16_000, 2)), (".aac", (RATE, 1))],
)  # fmt: skip
def test_joined_files_are_read_to_the_end(tmp_path: Path, suffix: str, second: tuple[int, int]) -> None:
    one = write(tmp_path / f"one{suffix}").read_bytes()
    two = write(tmp_path / f"two{suffix}", SECOND, *second).read_bytes()
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(one + two + one)
    file = AudioFile(path)
    assert float(file.duration) == pytest.approx(3 * SECONDS, abs=0.25)
    for frequency, start in ((FIRST, 0.5), (SECOND, SECONDS + 0.5), (FIRST, 2 * SECONDS + 0.5)):
        assert hears(file, frequency, start, start + 2) > 0.35, (frequency, start)
        assert hears(file, FIRST + SECOND - frequency, start, start + 2) < 0.01
    # What a join costs is said; what nothing is missing from is not.
    assert all("damaged piece" in remark for remark in file.remarks)
    assert torch.equal(AudioFile(path).read(60_000, 70_000), file.read(60_000, 70_000))


def test_an_mp3_of_changing_rate_without_a_header_is_read_to_the_end(tmp_path: Path) -> None:
    """libsndfile guesses where such a file ends, from the rate at which it begins."""
    loud = (0.3 * np.random.default_rng(0).standard_normal(10 * RATE)).clip(-1, 1).astype(np.float32)
    sound = np.concatenate([loud, np.zeros(10 * RATE, np.float32)])
    soundfile.write(tmp_path / "a.mp3", sound, RATE, bitrate_mode="VARIABLE", compression_level=0.0)
    content = (tmp_path / "a.mp3").read_bytes()
    tag = content.index(b"Xing")
    length = content.index(content[:2], 4)  # the first frame, which says how many there are
    assert tag < length
    (tmp_path / "b.mp3").write_bytes(content[length:])
    file = AudioFile(tmp_path / "b.mp3")
    assert float(file.duration) == pytest.approx(20, abs=0.1)
    assert not any("cut short" in remark for remark in file.remarks)


@pytest.mark.parametrize("stated", [0, 0xFFFF_FFFF, 0x7FFF_FFFF])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_whose_header_was_never_filled_in(tmp_path: Path, stated: int, channels: int) -> None:
    content = bytearray(write(tmp_path / "a.wav", channels=channels).read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = content[4:8] = struct.pack("<I", stated)
    (tmp_path / "b.wav").write_bytes(content)
    file = AudioFile(tmp_path / "b.wav")
    assert torch.equal(file.read(0, 48_000), AudioFile(tmp_path / "a.wav").read(0, 48_000))
    assert (file.num_samples, file.remarks) == (48_000, [])


@pytest.mark.parametrize(
    "suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".au", ".w64", ".caf", ".aac"]
)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_cut_file_is_read_as_far_as_it_goes_and_says_so(tmp_path: Path, suffix: str, share: float) -> None:
    whole = write(tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(whole[: round(share * len(whole))])
    file = AudioFile(tmp_path / f"b{suffix}")
    assert share * SECONDS - 1.2 < file.duration < share * SECONDS + 0.2
    assert hears(file, FIRST, 0.1, float(file.duration) - 0.3) > 0.35
    assert any(words in remark for words in ("cut short", "damaged") for remark in file.remarks), file.remarks


def test_an_mp4_is_read_as_far_as_it_goes_or_says_that_its_index_is_missing(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.m4a").read_bytes()
    (tmp_path / "b.m4a").write_bytes(whole[: len(whole) // 2])  # the index lies at the end
    with pytest.raises(AudioError, match="without its index") as caught:
        AudioFile(tmp_path / "b.m4a")
    assert "\n" not in str(caught.value)
    box = whole.index(b"mdat") - 4
    length = int.from_bytes(whole[box : box + 4], "big")
    (tmp_path / "c.m4a").write_bytes(
        whole[: box + length // 2] + bytes(length - length // 2) + whole[box + length :]
    )
    file = AudioFile(tmp_path / "c.m4a")  # the index is there, and half of the sound
    assert 1.0 < file.duration < 3.1
    assert hears(file, FIRST, 0.1, 1.0) > 0.35
    assert file.remarks


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".aac"])
def test_damage_in_the_middle_is_left_out_and_said(tmp_path: Path, suffix: str) -> None:
    content = bytearray(write(tmp_path / f"a{suffix}").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    (tmp_path / f"b{suffix}").write_bytes(content)
    file = AudioFile(tmp_path / f"b{suffix}")
    assert 2.0 < file.duration < 3.1
    assert hears(file, FIRST, float(file.duration) - 0.8, float(file.duration) - 0.1) > 0.3
    assert file.remarks


def test_what_lies_in_front_and_behind(tmp_path: Path) -> None:
    mp3 = write(tmp_path / "a.mp3").read_bytes()
    size = 2_000_000
    digits = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "tagged.mp3").write_bytes(b"ID3\4\0\0" + digits + bytes(size) + mp3)
    file = AudioFile(tmp_path / "tagged.mp3")
    assert torch.equal(file.read(0, 48_000), AudioFile(tmp_path / "a.mp3").read(0, 48_000))
    (tmp_path / "zeros.mp3").write_bytes(bytes(100_000) + mp3)
    file = AudioFile(tmp_path / "zeros.mp3")
    assert float(file.duration) == pytest.approx(SECONDS, abs=0.1)
    wav = write(tmp_path / "a.wav").read_bytes()
    (tmp_path / "behind.wav").write_bytes(wav + b"\1\2\3\4" * 5000)
    file = AudioFile(tmp_path / "behind.wav")
    assert file.num_samples == 48_000
    assert file.remarks == [
        "is followed by 20,000 bytes that its header does not count and that are not read"
    ]


def test_whole_files_have_no_remarks(tmp_path: Path) -> None:
    for suffix in (
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".opus",
        ".m4a",
        ".aac",
        ".aiff",
        ".au",
        ".w64",
        ".caf",
        ".rf64",
    ):
        for channels in (1, 2):
            file = AudioFile(write(tmp_path / f"a{suffix}", channels=channels))
            assert file.remarks == [], suffix
            assert float(file.duration) == pytest.approx(SECONDS, abs=0.05), suffix


def test_where_the_parts_of_joined_files_lie(tmp_path: Path) -> None:
    ogg, wav = write(tmp_path / "a.ogg").read_bytes(), write(tmp_path / "a.wav").read_bytes()
    for one in (ogg, wav):
        (tmp_path / "two").write_bytes(one + one)
        assert parts_of(tmp_path / "two").spans == ((0, len(one)), (len(one), 2 * len(one)))
    (tmp_path / "gap").write_bytes(ogg + bytes(70_000) + ogg)
    assert [start for start, _ in parts_of(tmp_path / "gap").spans] == [0, len(ogg) + 70_000]
    (tmp_path / "text").write_text("OggS and no more")
    assert parts_of(tmp_path / "text").spans == ((0, 16),)
