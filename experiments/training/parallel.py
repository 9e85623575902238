"""Data parallelism over processes of one machine: each takes a share of a batch, all take the mean of the gradients.

Two processes of one thread each train a small model faster than one process of two threads: its operations are too
short to be worth dividing.

The further processes are started here, or were by `accelerate launch` or `torchrun`. Either way the first alone knows
of the command, the run folder and the data, and hands the others their work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from experiments.errors import RunFailed

_HOST = "127.0.0.1"
_PATIENCE = timedelta(minutes=60)  # the others wait while the first one measures and saves
_PREPARATION = timedelta(days=7)  # a launcher's wait from the start, while the first one makes data


class Group:
    """The processes that train together; `rank` 0 is the one that was started by the user."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def average(self, weights: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Put the mean gradient over the processes into each weight's `grad`; returns the mean loss.

        A weight that no process used keeps no gradient, so that the optimiser leaves it alone.
        """
        if self.size == 1:
            return loss
        weights = list(weights)
        # What a process drops by chance leaves its weights without a gradient there: the others' counts, over all.
        used = torch.tensor([float(p.grad is not None) for p in weights])
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        flat = torch.cat([*(g.flatten() for g in grads), used, loss.reshape(1)])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise PeerLost from error
        *means, used, loss = flat.split([*(g.numel() for g in grads), len(weights), 1])
        for p, mean, count in zip(weights, means, used.tolist(), strict=True):
            p.grad = (mean / self.size).view_as(p) if count else None
        return loss[0] / self.size


class PeerLost(RunFailed):
    """A training process ended before its time."""

    def __init__(self) -> None:
        super().__init__(
            "a training process ended before its time (out of memory, perhaps); the same command continues the run"
        )


@contextlib.contextmanager
def group(size: int, work: Callable[..., None], *args: object) -> Iterator[Group]:
    """Run `work(group, *args)` in `size - 1` further processes while the block lasts.

    `args` are pickled; tensors among them are shared, not copied, unless a launcher started the processes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // size))
    try:
        if size == 1:
            yield Group(0, 1)
        elif size == launched():
            _join_launched()
            dist.broadcast_object_list([(torch.get_num_threads(), work, args)], src=0)
            yield Group(0, size)
        else:
            with _spawned(size, work, args) as first:
                yield first
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _spawned(size: int, work: Callable[..., None], args: tuple[object, ...]) -> Iterator[Group]:
    # Gloo would look the host's name up, which fails on machines without a network.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        _HOST, 0, is_master=True, timeout=_PATIENCE, wait_for_workers=False
    )
    context = mp.get_context("spawn")
    workers = [
        context.Process(
            target=_run,
            args=(rank, size, store.port, torch.get_num_threads(), work, args),
            daemon=True,  # pyright: ignore[reportAttributeAccessIssue]
        )
        for rank in range(1, size)
    ]
    try:
        for worker in workers:
            worker.start()
        dist.init_process_group("gloo", store=store, rank=0, world_size=size, timeout=_PATIENCE)
        yield Group(0, size)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        if dist.is_initialized():
            dist.destroy_process_group()


def launched() -> int:
    """How many processes `accelerate launch` or `torchrun` started for this command; 1 when neither did."""
    known = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return int(os.environ["WORLD_SIZE"]) if known else 1


def is_further_process() -> bool:
    """Whether this is one of a launcher's processes that waits for the first one's word."""
    return launched() > 1 and int(os.environ["RANK"]) > 0


def serve() -> None:
    """What a launcher's further processes do in place of the command: the work that the first one hands out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _join_launched()
    while (handed := _receive()) is not None:
        threads, work, args = handed
        _prepare(threads)
        with contextlib.suppress(PeerLost):
            work(Group(dist.get_rank(), dist.get_world_size()), *args)
    dist.destroy_process_group()


def dismiss() -> None:
    """The first one's word that there is nothing more to do."""
    if launched() > 1:
        _join_launched()
        dist.broadcast_object_list([None], src=0)
        dist.destroy_process_group()


def _receive() -> Any:
    """What the first one hands out: (threads, work, args), or None when there is nothing more to do or it is gone."""
    handed: list[Any] = [None]
    with contextlib.suppress(RuntimeError):  # gone, having said why
        dist.broadcast_object_list(handed, src=0)
    return handed[0]


def _join_launched() -> None:
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_PREPARATION)


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def _run(
    rank: int,
    size: int,
    port: int,
    threads: int,
    work: Callable[..., None],
    args: tuple[object, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told, and ends the others
    _prepare(threads)
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        _HOST, port, is_master=False, timeout=_PATIENCE
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    with contextlib.suppress(PeerLost):  # the first process has ended: so does this one
        work(Group(rank, size), *args)
