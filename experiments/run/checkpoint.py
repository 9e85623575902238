"""Checkpoints that a killed process leaves whole: `checkpoints/step_00000400/state.safetensors`.

A checkpoint is written to a temporary folder, flushed, and renamed; the newest two are kept. Its SHA-256 lies
beside it, so that damage anywhere is noticed and the one before is taken instead.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from diffusion.files import save_tensors
from experiments.run.files import sha256_of_file, write_text
from files.atomic import fsync

STATE, DIGEST = "state.safetensors", "state.sha256"
_FOLDER = re.compile(r"step_(\d{8,})")


class CheckpointWarning(UserWarning):
    """A checkpoint could not be read and an older one (or none) is used."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run was after `step` completed steps. Tensors are on the CPU."""

    step: int
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


class CheckpointStore:
    """The checkpoints of one run, in `folder` (made when first saved to).

    keep: how many of the newest are kept, at least 2, so that damage to the newest loses little.
    """

    def __init__(self, folder: Path | str, *, keep: int = 2) -> None:
        if keep < 2:
            raise ValueError(
                f"keep is {keep}; at least 2 checkpoints are kept, in case the newest is damaged"
            )
        self.folder = Path(folder)
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_FOLDER.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`."""
        return self.folder / f"step_{step:08d}"

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> Path:
        """Write a checkpoint and forget the oldest. Tensors may live anywhere and share storage; none is changed."""
        if step < 0:
            raise ValueError(f"step is {step}; it must be 0 or more")
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(".tmp-*"):
            shutil.rmtree(stale)  # left by a process that was killed while writing
        temporary, final = self.folder / f".tmp-{step:08d}", self.path(step)
        # safetensors refuses tensors that share storage, so each is saved as a copy of its own.
        own = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        temporary.mkdir()
        try:
            save_tensors(temporary / STATE, own, metadata)
            write_text(temporary / DIGEST, sha256_of_file(temporary / STATE) + "\n")
            if final.exists():
                shutil.rmtree(final)  # damaged, or the run was set back to an older one
            temporary.rename(final)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(final)) from error
        finally:
            # An unfinished one is of no use, and takes room where that may be what is missing.
            shutil.rmtree(temporary, ignore_errors=True)
        fsync(self.folder)
        # Checkpoints of later steps belong to a future that the run was set back from.
        steps = self.steps()
        stay = [each for each in steps if each <= step][-self.keep :]
        for each in set(steps) - set(stay):
            shutil.rmtree(self.path(each))
        return final

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of `step`; ValueError says what is wrong with it."""
        path = self.path(step) / STATE
        try:
            expected = (self.path(step) / DIGEST).read_text(encoding="ascii").strip()
            if sha256_of_file(path) != expected:
                raise ValueError("its bytes are not those that were written")
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except Exception as error:
            raise ValueError(f"checkpoint {path} cannot be read: {error}") from error
        return Checkpoint(step=step, tensors=tensors, metadata=metadata)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are passed over with a `CheckpointWarning`."""
        steps = self.steps()
        for index, step in reversed(list(enumerate(steps))):
            try:
                return self.load(step)
            except ValueError as error:
                instead = f"step {steps[index - 1]}" if index else "the beginning"
                warnings.warn(f"{error}; going back to {instead}", CheckpointWarning, stacklevel=2)
        return None
