"""The anatomy of sound files, as far as libraries pass over it: recordings joined into one file, and missing ends."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Sizes that writers of streams put where they cannot know better, whatever the sign.
_UNKNOWN_SIZES = range(0x7FFF_F000, 1 << 32)
_FEW_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Parts:
    """spans: first byte, and the byte behind the last, of each recording in a file; one span in most files.
    remark: what the recording is or has, as the rest of a sentence, or nothing.
    """

    spans: tuple[tuple[int, int], ...]
    remark: str = ""


def parts_of(path: Path) -> Parts:
    """Look for what was joined: chained Ogg streams, and WAV files behind one another. Reads headers only."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start.startswith(b"OggS"):
            return _ogg(file, size)
        if start[:4] == b"RIFF" and start[8:] == b"WAVE":
            return _wav(file, size)
    return Parts(((0, size),))


def lacks_index(path: Path) -> bool:
    """True for an MP4 or M4A file in which the box is missing that says where the sound lies."""
    size = path.stat().st_size
    with path.open("rb") as file:
        kinds = [kind for kind, _ in _boxes(file, size)]
    return kinds[:1] == [b"ftyp"] and not {b"moov", b"moof"} & set(kinds)


def mp3_states_length(path: Path) -> bool:
    """True for an MP3 file whose first frame says how many there are."""
    with path.open("rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3":
            high, *low = start[6:10]
            for seven_bits in low:
                high = high << 7 | seven_bits
            file.seek(10 + high)
        else:
            file.seek(0)
        frame = file.read(_FEW_BYTES)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))


class Span(io.RawIOBase):
    """A part of an open file as a file of its own; closing it closes the file."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self._start, self._size, self._place = file, start, stop - start, 0
        self.name = file.name  # some formats are known by it alone

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._place)
        got = self._file.read(max(min(len(buffer), self._size - self._place), 0))
        buffer[: len(got)] = got
        self._place += len(got)
        return len(got)

    def close(self) -> None:
        self._file.close()
        super().close()


def _ogg(file: BinaryIO, size: int) -> Parts:
    """A page that begins a stream, behind one that does not, begins the next link of the chain."""
    starts, beginning, whole = [0], True, False
    for place, stop, flags in _ogg_pages(file, size):
        begins = bool(flags & 2)
        if begins and not beginning:
            starts.append(place)
        beginning = begins
        whole = bool(flags & 4) and stop <= size
    remark = "" if whole else "has no end mark: it may have been cut short"
    return Parts(tuple(zip(starts, [*starts[1:], size], strict=True)), remark)


def _ogg_pages(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """First byte, the byte behind the last, and the flags of every page."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(27)
        if len(head) < 27:
            return
        if head[:4] != b"OggS":
            ahead = head + file.read(1 << 16)
            found = ahead.find(b"OggS", 1)
            place += found if found > 0 else max(len(ahead) - 3, 1)
            continue
        stop = place + 27 + head[26] + sum(file.read(head[26]))
        yield place, stop, head[5]
        place = stop


def _wav(file: BinaryIO, size: int) -> Parts:
    starts, place = [0], 12
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"RIFF" and file.read(4) == b"WAVE":
            starts.append(place)
            place += 12
            continue
        if name == b"data" and (length == 0 or length in _UNKNOWN_SIZES):
            break  # the sound goes on to the end of the file
        if name != b"data" and not (name.isascii() and name.decode().isprintable() and place + length < size):
            if size - place < _FEW_BYTES:
                break
            remark = (
                f"is followed by {size - place:,} bytes that its header does not count and that are not read"
            )
            return Parts(tuple(zip(starts, [*starts[1:], size], strict=True)), remark)
        place += 8 + length
        if length % 2:
            file.seek(place)
            place += file.read(4) != b"RIFF"  # some writers leave out the byte that makes lengths even
    return Parts(tuple(zip(starts, [*starts[1:], size], strict=True)))


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Kind and first byte of every box at the top of an MP4 file."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        yield kind, place
        if length == 1:
            wide = file.read(8)
            length = int.from_bytes(wide, "big") if len(wide) == 8 else 0
        if length < 8:  # 0: to the end of the file
            return
        place += length
