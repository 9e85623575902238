"""A video file back to frames and sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from torch import Tensor

from video.colour import to_rgb
from video.pixels import from_uint8

# Containers keep times in units as coarse as a thousandth of a second. What is off by less is no gap.
_JITTER = Fraction(1, 50)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """frames: [F, 3, H, W] float32 in [0, 1], sRGB. fps: frames a second. metadata: the container's tags."""

    frames: Tensor
    fps: Fraction
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return float(len(self.frames) / self.fps)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says of itself. fps: frames a second. has_sound: it has a sound track. metadata: its tags."""

    fps: Fraction
    height: int
    width: int
    has_sound: bool
    metadata: dict[str, str]


def probe(path: str | Path) -> VideoInfo:
    """Rate, size and tags of the first video stream; reads the beginning of the file only."""
    with _opened(path) as container:
        return _info(container, path)


def decode(path: str | Path) -> Clip:
    """All frames of the first video stream of a file, in memory; of long videos take `read_frames`."""
    with _opened(path) as container:
        info = _info(container, path)
        pictures = list(_pictures(container, path))
    frames = from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    return Clip(frames=frames, fps=info.fps, metadata=info.metadata)


def read_frames(path: str | Path) -> Iterator[Tensor]:
    """The frames of the first video stream in order, [3, H, W] float32 in [0, 1], sRGB, one at a time.

    The file is open from the first `next` to the last. Errors are those of `decode`, and come where the damage
    is met.
    """
    with _opened(path) as container:
        _info(container, path)
        for picture in _pictures(container, path):
            yield from_uint8(torch.from_numpy(picture).permute(2, 0, 1))


def decode_audio(path: str | Path) -> tuple[Tensor, int]:
    """The first sound track: samples [C, N] float32, full scale at 1, and how many there are in a second.

    Sample 0 sounds when the first frame of the video appears, as in a player: the encoder's delay and whatever is
    earlier is left out, and where the sound begins later or pauses, there are zeros. In a file without video, time
    is the sound's own.
    """
    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path} has no sound")
        pieces = list(_sound(container))
    if not pieces:
        raise ValueError(f"{path} has a sound track without samples")
    return torch.cat([torch.from_numpy(samples) for samples, _ in pieces], dim=1), pieces[0][1]


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    try:
        with av.open(str(path)) as container:
            yield container
    except FileNotFoundError:
        raise
    except FFmpegError as error:
        raise ValueError(f"{path} is no video that can be read: {error.strerror}") from error


def _info(container: InputContainer, path: str | Path) -> VideoInfo:
    if not container.streams.video:
        raise ValueError(f"{path} has no video stream")
    stream = container.streams.video[0]
    if stream.average_rate is None:
        raise ValueError(f"{path} has no frames")
    return VideoInfo(
        fps=Fraction(stream.average_rate),
        height=stream.height,
        width=stream.width,
        has_sound=bool(container.streams.audio),
        metadata=dict(container.metadata),
    )


def _pictures(container: InputContainer, path: str | Path) -> Iterator[np.ndarray]:
    """All frames, [H, W, 3] uint8; at least one."""
    empty = True
    for frame in container.decode(container.streams.video[0]):
        empty = False
        yield to_rgb(frame)
    if empty:
        raise ValueError(f"{path} has no frames")


def _sound(container: InputContainer) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces [C, n] float32 that follow one another without gaps from the video's time 0, and their rate."""
    origin = _start(container.streams.video[0]) if container.streams.video else None
    position = 0
    for samples, rate, time in _sound_frames(container):
        if origin is None:
            origin = time or Fraction(0)
        start = position if time is None else round((time - origin) * rate)
        if position and abs(start - position) <= _JITTER * rate:
            start = position
        if start > position:
            yield np.zeros((len(samples), start - position), np.float32), rate
            position = start
        rest = samples[:, position - start :]
        if rest.shape[1]:
            yield rest, rate
            position += rest.shape[1]


def _start(stream: VideoStream) -> Fraction:
    return Fraction(stream.start_time or 0) * (stream.time_base or 0)


def _sound_frames(container: InputContainer) -> Iterator[tuple[np.ndarray, int, Fraction | None]]:
    """What the decoder gives: samples [C, n] float32, their rate, and the time of the first in seconds."""
    packed: av.AudioResampler | None = None
    before: av.AudioFrame | None = None
    end: Fraction | None = None
    for packet in container.demux(container.streams.audio[0]):
        if packet.pts is not None and packet.duration and packet.time_base:
            end = (packet.pts + packet.duration) * packet.time_base
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            # Interleaved: PyAV's arrays of planes end at eight.
            packed = packed or av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            if before is not None:
                yield _samples(before, packed), before.sample_rate, _time(before)
            before = frame
    if before is not None and packed is not None:
        samples, rate, time = _samples(before, packed), before.sample_rate, _time(before)
        # The last frame is as long as all of this codec; its packet says how much of it counts.
        if end is not None and time is not None and time < end:
            samples = samples[:, : ceil((end - time) * rate)]
        yield samples, rate, time


def _samples(frame: av.AudioFrame, packed: av.AudioResampler) -> np.ndarray:
    channels = frame.layout.nb_channels
    return np.concatenate([part.to_ndarray().reshape(-1, channels) for part in packed.resample(frame)]).T


def _time(frame: av.AudioFrame) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base
