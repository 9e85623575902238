"""Sound files to blocks of samples, one block at a time: libsndfile first, FFmpeg for what it cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import av
import numpy as np
import soundfile
from av.container import InputContainer
from av.error import FFmpegError

from avatar.audio_parts import Parts, Span, lacks_index, mp3_states_length, parts_of

BLOCK = 1 << 16

# Containers that hold sound themselves. Playlists (HLS, concat) name other files and addresses, and a foreign file
# must not make us open those.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,wv"
)
# Those of them whose header says how long the sound is; of the others FFmpeg tells what it guesses.
_STATING = {"aiff", "au", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "wv"}
# libsndfile may stop early in these: at a join, at damage, or where it guessed the end.
_COUNTED = {"MP3", "OGG", "FLAC"}
_PLACES = {1: ("FC",), 2: ("FL", "FR")}


class AudioError(ValueError):
    """A sound file that cannot be used; the message is one line that says what was found and what is needed."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One way of reading a sound file.

    rate: samples a second. places: where each channel belongs, by FFmpeg's names such as FL, FC, LFE; "NONE" where
    nothing tells. library: "soundfile" or "av". spans: bytes of the recordings in it, which follow one another.
    stated: seconds of sound that its header promises, 0 where it does not. held: seconds that FFmpeg counts in it, 0
    where it did not count. remark: what the recording is or has, as the rest of a sentence.
    """

    path: Path
    rate: int
    places: tuple[str, ...]
    library: str
    spans: tuple[tuple[int, int], ...]
    stated: float = 0.0
    held: float = 0.0
    remark: str = ""

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.places)

    def blocks(self, lost: list[float] | None = None) -> Iterator[np.ndarray]:
        """All samples that can be read, in order, in blocks [n, channels] float32, full scale at 1.

        lost: gets the seconds of every piece that is damaged and left out; 0 where nothing tells how long it was.
        """
        lost = [] if lost is None else lost
        return _soundfile_blocks(self, lost) if self.library == "soundfile" else _av_blocks(self, lost)


def open_encoded(path: str | Path) -> list[Encoded]:
    """The ways in which a sound file can be read, one or two, the better one first: FFmpeg reads on behind damage and
    joins, and knows the places of more than two channels; libsndfile is exact.

    Raises:
        OSError: it is missing, a folder, or may not be read.
        AudioError: it is empty, or holds no sound that either library understands.
    """
    path = Path(path)
    with path.open("rb") as file:
        if not file.read(1):
            raise AudioError(f"{path} is an empty file")
    parts = parts_of(path)
    info = None
    if len(parts.spans) == 1:
        try:
            info = soundfile.info(str(path))
        except soundfile.LibsndfileError as error:
            if "malformed" in error.error_string:
                parts = replace(
                    parts, remark=parts.remark or "has a damaged header: it may have been cut short"
                )
        except TypeError:  # '.raw', whose format nothing tells
            pass
    # Of samples that are not compressed, the header counts all there are.
    probed = _av_way(path, parts, alone=info is None, count=info is not None and info.format in _COUNTED)
    ways = [] if probed is None else [probed]
    if info is not None:
        channels, rate = int(info.channels), int(info.samplerate)
        places = _PLACES.get(channels, ("NONE",) * channels)
        stated = max(_stated(path, info), probed.stated if probed else 0.0)
        held = probed.held if probed else 0.0
        way = Encoded(path, rate, places, "soundfile", parts.spans, stated, held, parts.remark)
        ways = [replace(each, stated=stated) for each in ways]
        ways.insert(0 if channels <= 2 else len(ways), way)
    if not ways:
        if lacks_index(path):
            raise AudioError(
                f"{path} is an MP4 or M4A file without its index (no 'moov' box), so that its sound cannot be found: "
                "the recording was never finished or was cut off; copy it again, or mend it with a repair tool"
            )
        raise AudioError(
            f"{path} is no sound file that can be read; WAV, FLAC, MP3, OGG and M4A can, whatever their name says"
        )
    return ways


def _stated(path: Path, info: soundfile._SoundFileInfo) -> float:
    """Seconds that the header promises; libsndfile itself cuts them to the size of the file."""
    if info.format == "MP3" and not mp3_states_length(path):
        return 0.0  # libsndfile guesses
    seconds = info.frames / info.samplerate if info.frames < 1 << 60 else 0.0
    for promised, there in re.findall(r": (\d+) \(should be (\d+)\)", info.extra_info):
        if 0 < int(there) < int(promised) < 0x7FFF_F000:
            return seconds * int(promised) / int(there)
    return seconds


def _soundfile_blocks(encoded: Encoded, lost: list[float]) -> Iterator[np.ndarray]:
    try:
        with soundfile.SoundFile(str(encoded.path)) as file:
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                yield block
    except soundfile.LibsndfileError:
        lost.append(0.0)


def _av_way(path: Path, parts: Parts, *, alone: bool, count: bool) -> Encoded | None:
    """How FFmpeg reads it; None if it does not. alone: libsndfile does not. count: go through the file for `held`."""
    spans = parts.spans
    try:
        with _av_open(path, spans[0]) as container:
            if not container.streams.audio:
                if not alone:
                    return None
                raise AudioError(f"{path} has no sound: it holds only other streams")
            stream = container.streams.audio[0]
            stated = 0.0
            if container.format.name in _STATING and len(spans) == 1:
                if stream.duration and stream.time_base:
                    stated = float(stream.duration * stream.time_base)
                elif container.duration and len(container.streams) == 1:
                    stated = container.duration / av.time_base
            # Of some codecs only the frames tell the true rate.
            first = next(_frames(container, []), None)
        if first is None:
            return None
        places = tuple(channel.name for channel in first.layout.channels)
        held = _held(path, spans[0]) if count else 0.0
    except FFmpegError:
        return None
    return Encoded(path, first.sample_rate, places, "av", spans, stated, held, parts.remark)


@contextmanager
def _av_open(path: Path, span: tuple[int, int]) -> Iterator[InputContainer]:
    # An open file rather than a name: FFmpeg would take 'http:...' for an address.
    with (
        Span(path.open("rb"), *span) as file,
        av.open(file, mode="r", options={"format_whitelist": _CONTAINERS}) as container,
    ):
        yield container


def _held(path: Path, span: tuple[int, int]) -> float:
    """Seconds of sound in a file, by the packets in it."""
    seconds = 0.0
    with suppress(FFmpegError), _av_open(path, span) as container:
        for packet in container.demux(container.streams.audio[0]):
            if packet.size and packet.duration and packet.time_base:
                seconds += float(packet.duration * packet.time_base)
    return seconds


def _frames(container: InputContainer, lost: list[float]) -> Iterator[av.AudioFrame]:
    """All frames that can be decoded; the seconds of each packet that cannot go into `lost`."""
    stream = container.streams.audio[0]
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            lost.append(0.0)
            with suppress(FFmpegError, EOFError):
                yield from stream.codec_context.decode(None)  # type: ignore[misc]
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            lost.append(float((packet.duration or 0) * (packet.time_base or 0)))
            continue
        yield from frames  # type: ignore[misc]


def _av_blocks(encoded: Encoded, lost: list[float]) -> Iterator[np.ndarray]:
    for span in encoded.spans:
        try:
            with _av_open(encoded.path, span) as container:
                yield from _packed(_frames(container, lost), encoded)
        except FFmpegError:
            lost.append(0.0)


def _packed(frames: Iterator[av.AudioFrame], encoded: Encoded) -> Iterator[np.ndarray]:
    """Frames, whose rate and channels may change on the way, to blocks of the file's first rate and channels."""
    packed, kind, channels = None, None, 0
    for frame in chain(frames, [None]):
        now = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        parts = packed.resample(None) if packed and now != kind else []
        yield from (_of_channels(part, channels, encoded.channels) for part in parts)
        if frame is None:
            return
        if packed is None or now != kind:
            # Interleaved: PyAV's arrays of planes end at eight.
            packed = av.AudioResampler(format="flt", layout=frame.layout, rate=encoded.rate)
            kind, channels = now, frame.layout.nb_channels
        for part in packed.resample(frame):
            yield _of_channels(part, channels, encoded.channels)


def _of_channels(part: av.AudioFrame, channels: int, wanted: int) -> np.ndarray:
    """[n, channels] -> [n, wanted]: where the numbers differ, the mean in each."""
    block = part.to_ndarray().reshape(-1, channels)
    return block if channels == wanted else np.repeat(block.mean(1, keepdims=True), wanted, axis=1)
