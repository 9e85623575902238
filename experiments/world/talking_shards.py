"""Clips of talking heads in shards: made by many processes, read back one clip at a time.

Pictures stay on disk until a clip is asked for (1.2 MB each at 128 pixels and 24 frames); what is small is in memory.
Sound is stored in 16 bits, which changes nothing: a clip's sound lies on that grid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from experiments.world.config import TalkingConfig
from experiments.world.shard_files import make_shards, write_shard
from experiments.world.talking import Clip, make_clip
from experiments.world.visemes import VISEMES

_STACKED = (
    "images", "portrait", "rigs", "portrait_rig", "landmarks", "portrait_landmarks", "aperture", "aperture_px",
    "head_speed",
)  # fmt: skip
_WORDS = ("caption", "text", "voice", "closures")


def make_talking(folder: Path, config: TalkingConfig, *, workers: int) -> Iterator[Path]:
    """Make every shard that `folder` lacks; yields each shard's path, in order, once it is there.

    Raises:
        ValueError: `folder` holds a set made with other settings, or the disk is too full.
        EspeakError: `config.speech` is 'espeak' and the extra 'world' is not installed.
    """
    pixels = config.num_clips * (config.num_frames + 1) * config.size**2
    return make_shards(
        folder,
        asdict(config),
        partial(_make_shard, config),
        num_shards=config.num_shards,
        num_bytes=4 * pixels + 500_000 * config.num_clips,
        workers=workers,
    )


def _make_shard(config: TalkingConfig, shard: int, path: Path) -> None:
    first = shard * config.clips_per_shard
    clips = [
        make_clip(config, i) for i in range(first, min(first + config.clips_per_shard, config.num_clips))
    ]
    tensors = {name: torch.stack([getattr(clip, name) for clip in clips]) for name in _STACKED}
    tensors |= {
        "visemes": torch.tensor([[VISEMES.index(name) for name in clip.visemes] for clip in clips]).byte(),
        "first_frame": torch.tensor([clip.first_frame for clip in clips]),
        "samples": torch.tensor([len(clip.audio) for clip in clips]),
        "audio": torch.cat([(clip.audio * 32768).round().to(torch.int16) for clip in clips]),
    }
    # One entry of the header: several come in any order, and equal shards are to be equal files.
    words = {name: [getattr(clip, name) for clip in clips] for name in _WORDS}
    write_shard(path, tensors, {"clips": {**words, "fps": str(Fraction(config.fps))}})


class TalkingClips:
    """The clips of some shards, by number; reading one reads that one only."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises `ValueError` when there are no shards."""
        if not paths:
            raise ValueError("no shards to read: make the data set first")
        self._places: list[tuple[Path, int]] = []
        self._words: list[dict[str, object]] = []
        self._spans: list[tuple[int, int]] = []
        for path in paths:
            with safe_open(str(path), framework="pt") as file:
                words = json.loads(file.metadata()["clips"])
                stops = file.get_tensor("samples").cumsum(0).tolist()
            for i, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
                self._places.append((path, i))
                self._spans.append((start, stop))
                self._words.append({**{name: words[name][i] for name in _WORDS}, "fps": words["fps"]})

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Clip]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Clip:
        """The clip as `make_clip` made it, bit for bit. Raises `IndexError` beyond the last."""
        path, place = self._places[index]
        words = self._words[index]
        with safe_open(str(path), framework="pt") as file:

            def read(name: str) -> Tensor:
                return file.get_slice(name)[place : place + 1][0]

            visemes = tuple(VISEMES[i] for i in read("visemes").tolist())
            start, stop = self._spans[index]
            return Clip(
                **{name: read(name) for name in _STACKED},
                visemes=visemes,
                closures=tuple((first, end) for first, end in words["closures"]),  # pyright: ignore
                audio=file.get_slice("audio")[start:stop].float() / 32768,
                first_frame=int(read("first_frame")),
                fps=Fraction(str(words["fps"])),
                caption=str(words["caption"]),
                text=str(words["text"]),
                voice=str(words["voice"]),
            )
