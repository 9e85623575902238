"""Utterances without pictures, in shards: a sound and the rig that speaks it, cheap enough to make by the thousand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from experiments.world.config import TalkingConfig
from experiments.world.shard_files import make_shards, write_shard
from experiments.world.talking import sound_of, utterance_of

_SETTINGS = (
    "num_clips", "clips_per_shard", "num_frames", "fps", "seed", "held_out", "speech", "wordless", "pause",
    "augment",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Spoken:
    """audio: [N] float32 at 16 kHz in [-1, 1). rigs: [F, 15] in the order of RIG_CHANNELS. aperture: [F], 0 shut."""

    audio: Tensor
    rigs: Tensor
    aperture: Tensor


def make_speech(folder: Path, config: TalkingConfig, *, workers: int) -> Iterator[Path]:
    """The whole utterances of the clips that `config` describes; yields each shard's path once it is there.

    Raises:
        ValueError: `folder` holds a set made with other settings, or the disk is too full.
        EspeakError: `config.speech` is 'espeak' and the extra 'world' is not installed.
    """
    settings = asdict(config)
    return make_shards(
        folder,
        {name: settings[name] for name in _SETTINGS},
        partial(_make_shard, config),
        num_shards=config.num_shards,
        num_bytes=500_000 * config.num_clips,
        workers=workers,
    )


def _make_shard(config: TalkingConfig, shard: int, path: Path) -> None:
    first = shard * config.clips_per_shard
    tensors = {}
    for index in range(first, min(first + config.clips_per_shard, config.num_clips)):
        utterance = utterance_of(config, index)
        audio = sound_of(config, index, utterance)
        tensors[f"{index:07d}.audio"] = (audio * 32768).round().to(torch.int16)
        tensors[f"{index:07d}.rigs"] = utterance.rigs
        tensors[f"{index:07d}.aperture"] = utterance.aperture
    write_shard(path, tensors, {"fps": config.fps})


def read_speech(paths: Sequence[Path]) -> Iterator[Spoken]:
    """The utterances of some shards, one after another."""
    for path in paths:
        with safe_open(str(path), framework="pt") as file:
            for index in sorted({name.partition(".")[0] for name in file.keys()}):  # noqa: SIM118 (no mapping)
                yield Spoken(
                    audio=file.get_tensor(f"{index}.audio").float() / 32768,
                    rigs=file.get_tensor(f"{index}.rigs"),
                    aperture=file.get_tensor(f"{index}.aperture"),
                )
