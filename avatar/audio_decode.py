"""Sound files to blocks of samples, one block at a time: libsndfile first, FFmpeg for what it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
from av.container import InputContainer
from av.error import FFmpegError

BLOCK = 1 << 16

# Containers that hold sound themselves. Playlists (HLS, concat) name other files and addresses, and a foreign file
# must not make us open those.
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,wv"
)


class AudioError(ValueError):
    """A sound file that cannot be used; the message is one line that says what was found and what is needed."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sound file that opened: its path, samples a second, channels, and which library reads it."""

    path: Path
    rate: int
    channels: int
    library: str

    def blocks(self) -> Iterator[np.ndarray]:
        """All samples in order, in blocks [n, channels] float32, full scale at 1.

        Raises:
            AudioError: the file is damaged; the message says after how many seconds.
        """
        done = 0
        try:
            for block in _soundfile_blocks(self) if self.library == "soundfile" else _av_blocks(self):
                done += len(block)
                yield block
        except (soundfile.LibsndfileError, FFmpegError) as error:
            raise AudioError(
                f"{self.path} is damaged: its sound cannot be read beyond {done / self.rate:.2f} s"
            ) from error


def open_encoded(path: str | Path) -> Encoded:
    """Find out how a sound file is to be read.

    Raises:
        OSError: it is missing, a folder, or may not be read.
        AudioError: it is empty, or holds no sound that either library understands.
    """
    path = Path(path)
    with path.open("rb") as file:
        if not file.read(1):
            raise AudioError(f"{path} is an empty file")
    try:
        info = soundfile.info(str(path))
        return Encoded(path, int(info.samplerate), int(info.channels), "soundfile")
    except (soundfile.LibsndfileError, TypeError):  # TypeError: '.raw', whose format nothing tells
        pass
    try:
        with path.open("rb") as file, _av_open(file) as container:
            if not container.streams.audio:
                raise AudioError(f"{path} has no sound: it holds only other streams")
            stream = container.streams.audio[0]
            rate, channels = int(stream.rate or 0), int(stream.channels or 0)
    except FFmpegError as error:
        raise AudioError(_unreadable(path)) from error
    if rate < 1 or channels < 1:
        raise AudioError(_unreadable(path))
    return Encoded(path, rate, channels, "av")


def _unreadable(path: Path) -> str:
    return (
        f"{path} is no sound file that can be read; WAV, FLAC, MP3, OGG and M4A can, whatever their name says"
    )


def _soundfile_blocks(encoded: Encoded) -> Iterator[np.ndarray]:
    with soundfile.SoundFile(str(encoded.path)) as file:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            yield block


def _av_open(file: BinaryIO) -> InputContainer:
    # An open file rather than a name: FFmpeg would take 'http:...' for an address.
    return av.open(file, mode="r", options={"format_whitelist": _CONTAINERS})


def _av_blocks(encoded: Encoded) -> Iterator[np.ndarray]:
    with encoded.path.open("rb") as file, _av_open(file) as container:
        stream = container.streams.audio[0]
        # Interleaved: PyAV's arrays of planes end at eight.
        packed = av.AudioResampler(format="flt", layout=stream.layout, rate=encoded.rate)
        for frame in chain(container.decode(stream), [None]):
            for part in packed.resample(frame):
                yield part.to_ndarray().reshape(-1, encoded.channels)
