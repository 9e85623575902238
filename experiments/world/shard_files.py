"""Folders of shards: made by a pool of processes, each shard from the settings and its number alone, and continued
where they were left."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from diffusion.files import save_tensors
from experiments.errors import RunFailed
from files.atomic import write_bytes


def make_shards(
    folder: Path,
    settings: Mapping[str, object],
    make: Callable[[int, Path], None],
    *,
    num_shards: int,
    num_bytes: int,
    workers: int,
) -> Iterator[Path]:
    """Make every shard that `folder` lacks; yields each shard's path, in order, once it is there.

    An interrupt stops the processes at once; shards that were not finished are made again the next time.

    settings: all that the shards depend on; kept in the folder. make: picklable, writes shard i to a path.
    num_bytes: room the whole set needs at most.

    Raises:
        ValueError: `folder` holds a set made with other settings, or the disk is too full.
        RunFailed: a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "dataset.json"
    wanted = json.dumps(settings, indent=2)
    if record.exists() and record.read_text() != wanted:
        raise ValueError(
            f"{folder} holds pictures made with other settings ({record.name} differs): choose another folder "
            "or remove this one"
        )
    paths = [folder / f"shard_{i:05d}.safetensors" for i in range(num_shards)]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if shutil.disk_usage(folder).free < num_bytes * len(missing) // max(num_shards, 1):
        raise ValueError(f"{folder} has too little room for {num_shards} shards: free some or make fewer")
    write_bytes(record, wanted.encode())
    others = multiprocessing.active_children()
    with (
        TemporaryDirectory(prefix="unfinished_", dir=folder) as unfinished,
        ProcessPoolExecutor(
            max_workers=workers, mp_context=_start_method(), initializer=_obey_the_first_process
        ) as pool,
    ):
        try:
            jobs = {i: pool.submit(_make_one, make, i, Path(unfinished), paths[i]) for i in missing}
            for i, path in enumerate(paths):
                if i in jobs:
                    jobs[i].result()
                yield path
        except BaseException as error:  # leaving the pool would wait for all that was submitted
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            pool.shutdown()
            if isinstance(error, BrokenProcessPool):
                fewer = f": workers={workers}; fewer need less" if workers > 1 else ""
                raise RunFailed(
                    f"a process that made data for {folder} was killed (out of memory, perhaps{fewer}); "
                    "what is finished is kept"
                ) from error
            raise


def _start_method() -> BaseContext:
    """A process that has used the GPU cannot be forked: its children could not use it."""
    return multiprocessing.get_context("spawn" if torch.cuda.is_initialized() else None)


def _obey_the_first_process() -> None:
    """Ctrl-C, which a terminal sends to all, is the first process's affair; its SIGTERM ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _make_one(make: Callable[[int, Path], None], index: int, unfinished: Path, path: Path) -> None:
    torch.set_num_threads(1)  # the pool's processes share the cores
    make(index, unfinished / path.name)
    os.replace(unfinished / path.name, path)


def write_shard(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, object]) -> None:
    """Write tensors and, as JSON in the header, words."""
    save_tensors(path, tensors, {name: json.dumps(value) for name, value in words.items()})
