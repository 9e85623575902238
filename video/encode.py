"""Frames and sound to an MP4 that plays everywhere: H.264 (BT.709, 4:2:0), AAC, the index in front, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from files.atomic import atomic_path
from video.colour import BT709, LIMITED, to_yuv420p
from video.config import EncodeConfig
from video.sound import Samples, SoundTrack

# Numerator and denominator of a frame rate end up in 32-bit fields of the file, some of them multiplied.
_LARGEST_TERM = 1_000_000
_LAYOUTS = {1: "mono", 2: "stereo"}
_AUDIO_BITS_PER_SECOND = 128_000  # of each channel


def encode(
    frames: torch.Tensor | Iterable[torch.Tensor],
    path: str | Path,
    *,
    config: EncodeConfig | None = None,
    fps: Fraction | int | None = None,
    metadata: Mapping[str, str] | None = None,
    audio: SoundTrack | None = None,
) -> int:
    """Write frames, and sound if there is some, as MP4; return the number of frames. Equal inputs give equal bytes.

    frames: [F, 3, H, W], or an iterable of [3, H, W]; float in [0, 1], sRGB. H and W must be even, and one size
        throughout: H.264 with 4:2:0 colour stores one colour for each 2 x 2 block.
    fps: frames a second where `config.fps` will not do, exactly: 25, Fraction(30000, 1001).
    metadata: container tags such as `comment` and `title`.
    audio: sound that begins with the first frame. The frames decide the length: what goes on after the last frame is
        cut off (and not read), and where the sound ends first, silence follows.

    Frames and sound are read and written in step: of a generator, nothing is kept but what the encoders look ahead (a
    few seconds), and the file's index. The file appears under `path` when it is whole; an error leaves what was there
    before. Where the disk is full, it is an OSError that names `path`.
    """
    config, path = config or EncodeConfig(), Path(path)
    rate = _check_rate(config.fps if fps is None else fps)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("frames is empty; a video needs at least one frame")
    _check_size(first)
    with atomic_path(path) as temporary, _container(temporary, metadata or {}, audio) as container:
        return _write(container, chain([first], remaining), rate, config.crf, audio)


def _check_rate(fps: Fraction | int) -> Fraction:
    if not isinstance(fps, (Fraction, int)):
        raise ValueError(
            f"fps must be a whole number or a Fraction, got {fps!r}: write Fraction(30000, 1001)"
        )
    rate = Fraction(fps)
    if rate <= 0 or max(rate.numerator, rate.denominator) > _LARGEST_TERM:
        raise ValueError(
            f"fps must be positive, with numerator and denominator up to {_LARGEST_TERM}, got {rate}; "
            "Fraction.limit_denominator(1001) simplifies"
        )
    return rate


def _check_size(frame: torch.Tensor) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[0] != 3:
        raise ValueError(
            f"frames must be [F, 3, H, W] or an iterable of [3, H, W], got a frame of {list(frame.shape)}"
        )
    if not frame.is_floating_point():
        raise ValueError(f"frames must be float in [0, 1], got {frame.dtype}")
    height, width = int(frame.shape[1]), int(frame.shape[2])
    if height % 2 or width % 2:
        raise ValueError(
            f"frames are {width} x {height}; H.264 needs an even width and height, crop or pad by one pixel"
        )
    return height, width


def _container(path: Path, metadata: Mapping[str, str], audio: SoundTrack | None) -> OutputContainer:
    options = {"movflags": "faststart+use_metadata_tags"}
    if audio is not None:
        # The edit list, which says where the sound ends, counts in this unit; thousandths would be too coarse.
        options["movie_timescale"] = str(audio.stored_rate)
    container = av.open(str(path), mode="w", format="mp4", options=options)
    container.metadata.update(metadata)
    return container


def _write(
    container: OutputContainer,
    frames: Iterator[torch.Tensor],
    rate: Fraction,
    crf: int,
    audio: SoundTrack | None,
) -> int:
    first = next(frames)
    size, count = _check_size(first), 0
    # At some sizes the bytes vary from run to run without this; x264's fastest kernels seem to be the cause.
    options = {"crf": str(crf), "preset": "medium", "x264-params": "cpu-independent=1"}
    pictures = _picture_stream(container, size, rate, options)
    sound = _Sound(container, audio) if audio is not None else None
    for frame in chain([first], frames):
        if _check_size(frame) != size:
            raise ValueError(
                f"frame {count} has shape {list(frame.shape)}, the first was {size[1]} x {size[0]}"
            )
        picture = to_yuv420p(frame)
        picture.pts, picture.time_base = count, 1 / rate
        container.mux(pictures.encode(picture))
        count += 1
        if sound:
            sound.write_until(count / rate)
    container.mux(pictures.encode())
    if sound:
        sound.finish()
    return count


def _picture_stream(
    container: OutputContainer, size: tuple[int, int], rate: Fraction, options: Mapping[str, str]
) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    # Into the H.264 stream and into the container: players go by either.
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED
    stream.time_base = 1 / rate
    context.time_base = 1 / rate
    # One thread: x264's rate decisions, and so the bytes, depend on the number of threads.
    stream.options = {**options, "threads": "1"}
    return stream


class _Sound:
    """The AAC stream of a container that is being written."""

    def __init__(self, container: OutputContainer, track: SoundTrack) -> None:
        self._container, self._rate = container, track.stored_rate
        self._samples, self._written = Samples(track), 0
        self._layout = _LAYOUTS[track.channels]
        self._stream: AudioStream = container.add_stream("aac", rate=self._rate, layout=self._layout)
        self._stream.bit_rate = _AUDIO_BITS_PER_SECOND * track.channels
        self._stream.time_base = Fraction(1, self._rate)
        self._stream.codec_context.time_base = Fraction(1, self._rate)

    def write_until(self, seconds: Fraction) -> None:
        """Go on to this time, which is exact to half a sample however many steps lead there."""
        end = round(seconds * self._rate)
        if end == self._written:
            return
        samples = self._samples.take(end - self._written)
        part = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        # Without both, the encoder's delay of 1024 samples is not written down, and all sound comes late.
        part.sample_rate, part.pts, part.time_base = self._rate, self._written, Fraction(1, self._rate)
        self._container.mux(self._stream.encode(part))
        self._written = end

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())
