"""Shards of talking clips: what is read is what was made, and what is missing is made again."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from experiments.errors import RunFailed
from experiments.world.config import TalkingConfig
from experiments.world.shard_files import make_shards, write_shard
from experiments.world.talking import Clip, make_clip
from experiments.world.talking_shards import TalkingClips, make_talking

TINY = TalkingConfig(num_clips=3, clips_per_shard=2, num_frames=2, size=16, speech="formants")


def test_shards_hold_the_clips_and_come_back_when_lost(tmp_path: Path) -> None:
    paths = list(make_talking(tmp_path, TINY, workers=1))
    assert len(paths) == TINY.num_shards == 2
    clips = TalkingClips(paths)
    assert len(clips) == 3
    made = make_clip(TINY, 2)
    for field in dataclasses.fields(Clip):
        read, wanted = getattr(clips[2], field.name), getattr(made, field.name)
        assert torch.equal(read, wanted) if isinstance(wanted, torch.Tensor) else read == wanted, field.name
    content, stamp = paths[1].read_bytes(), paths[0].stat().st_mtime_ns
    paths[1].unlink()
    assert list(make_talking(tmp_path, TINY, workers=1)) == paths
    assert paths[1].read_bytes() == content
    assert paths[0].stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="other settings"):
        list(make_talking(tmp_path, dataclasses.replace(TINY, seed=1), workers=1))


def _first_quickly(shard: int, path: Path) -> None:
    if shard:
        threading.Event().wait(60)  # at work until it is stopped
    write_shard(path, {"x": torch.zeros(1)}, {})


def test_leaving_early_stops_the_processes(tmp_path: Path) -> None:
    shards = make_shards(tmp_path, {}, _first_quickly, num_shards=9, num_bytes=0, workers=2)
    began = time.monotonic()
    assert next(shards).is_file()
    with pytest.raises(KeyboardInterrupt):
        shards.throw(KeyboardInterrupt)
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "shard_00000.safetensors"]


def _first_then_killed(shard: int, path: Path) -> None:
    if shard:
        os.kill(os.getpid(), signal.SIGKILL)
    _first_quickly(shard, path)


def test_a_killed_process_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    shards = make_shards(tmp_path, {}, _first_then_killed, num_shards=3, num_bytes=0, workers=1)
    assert next(shards).is_file()
    with pytest.raises(RunFailed, match=r"was killed \(out of memory, perhaps\); what is finished is kept"):
        next(shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "shard_00000.safetensors"]


def test_no_shards() -> None:
    with pytest.raises(ValueError, match="no shards"):
        TalkingClips([])
