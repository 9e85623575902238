"""Videos with sound: what a player hears, and when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from video.config import EncodeConfig
from video.decode import decode, decode_audio, probe, read_frames
from video.encode import encode
from video.sound import SoundTrack

NTSC = Fraction(30000, 1001)
RATES, SPEEDS = (16000, 44100, 48000), (25, 30, NTSC)


def grey(count: int, size: tuple[int, int] = (32, 32)) -> Iterator[Tensor]:
    for index in range(count):
        yield torch.full((3, *size), 0.1 + 0.8 * (index % 7) / 7)


def clicks(rate: int, seconds: float, *times: float) -> Tensor:
    sound = torch.zeros(round(rate * seconds))
    for time in times:
        sound[round(rate * time)] = 0.9
    return sound


def noise(rate: int, seconds: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.2 * torch.rand(round(rate * seconds), generator=generator) - 0.1


@pytest.mark.parametrize("fps", SPEEDS, ids=str)
@pytest.mark.parametrize("rate", RATES)
def test_a_click_is_heard_when_it_was_and_both_end_together(
    tmp_path: Path, rate: int, fps: Fraction | int
) -> None:
    path, count = tmp_path / "a.mp4", 41
    seconds = count / Fraction(fps)
    track = SoundTrack(rate, clicks(rate, 2.0, 0.5).split(777))
    assert encode(grey(count), path, fps=fps, audio=track) == count
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.average_rate, video.frames, video.start_time, audio.start_time) == (fps, count, 0, 0)
        assert Fraction(video.duration) * video.time_base == seconds
        assert abs(Fraction(audio.duration) * audio.time_base - seconds) <= Fraction(1, audio.rate)
        heard = list(container.decode(audio))
    with av.open(str(path)) as container:
        shown = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert shown == [index / Fraction(fps) for index in range(count)]  # exact times
    # A plain player: every sample that the decoder gives, at the time that it gives.
    assert heard[0].pts == 0
    plain = np.concatenate([frame.to_ndarray()[0] for frame in heard])
    assert np.abs(plain).argmax() / heard[0].sample_rate == pytest.approx(0.5, abs=0.001)
    assert abs(len(plain) / heard[0].sample_rate - seconds) < 1 / fps
    # Our own reader, which also leaves out what pads the last packet.
    samples, found_rate = decode_audio(path)
    assert samples.shape == (1, round(seconds * found_rate))
    assert int(samples.abs().argmax()) / found_rate == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("rate", RATES)
def test_the_sound_itself_comes_back(tmp_path: Path, rate: int) -> None:
    sound = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)
    encode(grey(25), tmp_path / "a.mp4", fps=25, audio=SoundTrack(rate, [sound]))
    back, found_rate = decode_audio(tmp_path / "a.mp4")
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(found_rate) / found_rate)
    middle = slice(found_rate // 10, -found_rate // 10)
    assert (back[0] - expected)[middle].square().mean().sqrt() < 0.01


@pytest.mark.parametrize("rate", RATES)
def test_stereo_stays_stereo(tmp_path: Path, rate: int) -> None:
    time = torch.arange(rate) / rate
    both = 0.5 * torch.sin(2 * torch.pi * torch.tensor([[440.0], [660.0]]) * time)
    for name in ("a.mp4", "b.mp4"):
        track = SoundTrack(rate, both.split(999, dim=1), channels=2)
        encode(grey(25), tmp_path / name, fps=25, audio=track)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].layout.name == "stereo"
    back, found_rate = decode_audio(tmp_path / "a.mp4")
    time = torch.arange(found_rate) / found_rate
    expected = 0.5 * torch.sin(2 * torch.pi * torch.tensor([[440.0], [660.0]]) * time)
    middle = slice(found_rate // 10, -found_rate // 10)
    assert (back - expected)[:, middle].square().mean(1).sqrt().max() < 0.02


@pytest.mark.parametrize("rate", RATES)
def test_a_short_sound_is_followed_by_silence(tmp_path: Path, rate: int) -> None:
    encode(grey(50), tmp_path / "a.mp4", fps=25, audio=SoundTrack(rate, [noise(rate, 1.0)]))
    samples, found_rate = decode_audio(tmp_path / "a.mp4")
    assert samples.shape[1] == 2 * found_rate
    assert samples[0, : found_rate * 9 // 10].std() > 0.03
    assert samples[0, found_rate * 11 // 10 :].abs().max() < 1e-3


def test_a_long_sound_is_cut_where_the_frames_end(tmp_path: Path) -> None:
    taken = 0

    def forever() -> Iterator[Tensor]:
        nonlocal taken
        for block in repeat(noise(48000, 0.1)):
            taken += len(block)
            yield block

    encode(grey(30), tmp_path / "a.mp4", fps=30, audio=SoundTrack(48000, forever()))
    samples, _ = decode_audio(tmp_path / "a.mp4")
    assert samples.shape == (1, 48000)
    assert taken == 48000


def test_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    tags = {"comment": "made by a test"}
    encode(grey(20), path, fps=25, metadata=tags, audio=SoundTrack(16000, [noise(16000, 0.8)]))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        video, audio = (stream.codec_context for stream in container.streams)
        assert (video.name, video.pix_fmt) == ("h264", "yuv420p")
        assert (audio.name, audio.layout.name) == ("aac", "mono")
    info = probe(path)
    assert (info.fps, info.height, info.width, info.has_sound) == (25, 32, 32, True)
    assert info.metadata["comment"] == tags["comment"]


def test_sound_lies_beside_its_pictures(tmp_path: Path) -> None:
    seconds = 12
    track = SoundTrack(16000, [noise(16000, seconds)])
    encode(grey(25 * seconds), tmp_path / "a.mp4", fps=25, audio=track)
    with av.open(str(tmp_path / "a.mp4")) as container:
        places = [
            (packet.pos, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in container.demux()
            if packet.dts is not None and packet.pos is not None
        ]
    latest, apart = {"video": 0.0, "audio": 0.0}, 0.0
    for _, kind, time in sorted(places):
        latest[kind] = time
        apart = max(apart, abs(latest["video"] - latest["audio"]))
    assert latest["video"] > seconds - 1
    assert apart < 1.0


@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_equal_inputs_give_equal_bytes(tmp_path: Path, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    frames, sound = torch.rand(30, 3, *size, generator=generator), noise(16000, 1.0)
    contents = set()
    for index, blocks in enumerate(([sound], sound.split(100), list(sound.split(5000)), iter([sound]))):
        path = tmp_path / f"{index}.mp4"
        encode(iter(frames), path, fps=NTSC, audio=SoundTrack(16000, blocks))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_silent_video_takes_the_rate_either_way(tmp_path: Path) -> None:
    encode(grey(5), tmp_path / "a.mp4", config=EncodeConfig(fps=25))
    encode(grey(5), tmp_path / "b.mp4", fps=Fraction(25))
    encode(grey(5), tmp_path / "c.mp4", config=EncodeConfig(fps=50), fps=NTSC)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert decode(tmp_path / "c.mp4").fps == NTSC
    assert not probe(tmp_path / "a.mp4").has_sound


@pytest.mark.parametrize("fps", [0, -25, Fraction(-1, 2), 29.97, "25", Fraction(0.1), 10**7])
def test_wrong_frame_rates(tmp_path: Path, fps: Fraction | int) -> None:
    with pytest.raises(ValueError, match="fps must be"):
        encode(grey(2), tmp_path / "a.mp4", fps=fps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [Fraction(1, 2), Fraction(25, 2), Fraction(24000, 1001), 60, 240])
def test_unusual_frame_rates_are_kept(tmp_path: Path, fps: Fraction) -> None:
    encode(grey(8), tmp_path / "a.mp4", fps=fps, audio=SoundTrack(16000, [noise(16000, 0.1)]))
    assert probe(tmp_path / "a.mp4").fps == fps
    samples, rate = decode_audio(tmp_path / "a.mp4")
    assert samples.shape == (1, round(8 / Fraction(fps) * rate))


@pytest.mark.parametrize("bad", ["nan", "late", "odd"])
def test_an_error_leaves_what_was_there(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")
    broken = noise(16000, 2.0)
    broken[{"nan": 0, "late": 31000, "odd": 0}[bad]] = float("nan")
    with pytest.raises(ValueError, match="even width" if bad == "odd" else "NaN or Inf"):
        encode(
            grey(50, (31, 32) if bad == "odd" else (32, 32)),
            path,
            fps=25,
            audio=SoundTrack(16000, broken.split(1000)),
        )
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == b"before"


def test_frames_one_at_a_time_are_the_frames_at_once(tmp_path: Path) -> None:
    encode(grey(12), tmp_path / "a.mp4", fps=25)
    frames = read_frames(tmp_path / "a.mp4")
    first = next(frames)
    assert (first.shape, first.dtype) == ((3, 32, 32), torch.float32)
    assert torch.equal(torch.stack([first, *frames]), decode(tmp_path / "a.mp4").frames)
    with pytest.raises(FileNotFoundError):
        next(read_frames(tmp_path / "absent.mp4"))
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    for read in (lambda path: next(read_frames(path)), decode_audio, probe):
        with pytest.raises(ValueError, match=r"b\.mp4"):
            read(tmp_path / "b.mp4")


def test_a_video_without_sound_has_none(tmp_path: Path) -> None:
    encode(grey(5), tmp_path / "a.mp4", fps=25)
    with pytest.raises(ValueError, match=r"a\.mp4 has no sound"):
        decode_audio(tmp_path / "a.mp4")


def write_foreign(path: Path, rate: int, codec: str, layout: str, sound: np.ndarray, start: int) -> None:
    """A file of one second made without our encoder; the sound's first sample is at `start` of its rate."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream(codec, rate=rate)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio.codec_context.layout = layout
        audio.time_base = audio.codec_context.time_base = Fraction(1, rate)
        for index in range(25):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(video.encode(picture))
        frame = av.AudioFrame.from_ndarray(sound, "fltp" if codec == "aac" else "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(audio.encode(frame))
        container.mux(video.encode())
        container.mux(audio.encode())


@pytest.mark.parametrize("late", [0.0, 0.2])
def test_stereo_and_sound_that_begins_later(tmp_path: Path, late: float) -> None:
    rate = 44100
    sound = np.stack([clicks(rate, 0.8, 0.3).numpy(), clicks(rate, 0.8, 0.5).numpy()])
    write_foreign(tmp_path / "a.mp4", rate, "aac", "stereo", sound, round(late * rate))
    samples, found_rate = decode_audio(tmp_path / "a.mp4")
    assert (len(samples), found_rate) == (2, rate)
    # Some writers of a sound that begins later do not note how much of the last packet counts.
    assert -0.001 < samples.shape[1] / rate - (0.8 + late) < 1024 / rate
    times = samples.abs().argmax(1) / rate
    assert times.tolist() == pytest.approx([0.3 + late, 0.5 + late], abs=0.001)


def test_times_in_thousandths_make_no_holes(tmp_path: Path) -> None:
    rate = 44100
    sound = noise(rate, 1.0)
    write_foreign(tmp_path / "a.mkv", rate, "pcm_f32le", "mono", sound[None].numpy(), 0)
    samples, _ = decode_audio(tmp_path / "a.mkv")
    assert torch.equal(samples[0], sound)


MEASURE = """
import resource, sys
from pathlib import Path
import torch
from video.encode import encode
from video.sound import SoundTrack

torch.set_num_threads(1)
pictures = [torch.full((3, 32, 32), level / 4) for level in range(4)]
block = 0.2 * torch.rand(16000, generator=torch.Generator().manual_seed(0)) - 0.1

def peak(seconds):
    frames = (pictures[index // 5 % 4] for index in range(25 * seconds))
    track = SoundTrack(16000, (block.clone() for _ in range(seconds)))
    encode(frames, Path(sys.argv[1]) / "a.mp4", fps=25, audio=track)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

short = peak(10)
print(short, peak(600))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units")
def test_ten_minutes_need_no_more_memory_than_ten_seconds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    short, long = map(float, done.stdout.split())
    # All frames would be 180 MB, the sound 110; the index of 43 000 packets is what grows.
    assert long - short < 16, f"{short:.0f} MB for 10 s, {long:.0f} MB for 10 min"
    assert decode_audio(tmp_path / "a.mp4")[0].shape == (1, 600 * 48000)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].frames == 15000
