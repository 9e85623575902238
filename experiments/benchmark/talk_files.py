"""What a talking portrait scores where no truth is known: against its recording and its picture alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar import metrics
from avatar.audio import SAMPLE_RATE, AudioError, AudioSource
from avatar.face_box import FaceBox
from avatar.mouth import MouthReader, mouth_region
from avatar.portrait import PortraitError
from diffusion.backbone import Backbone
from experiments.benchmark.talk_scores import read_mouths
from experiments.errors import UserError, describe
from experiments.training.talking import LIP_SIDE, mouth_centre

T = TypeVar("T")

FLOOR_DB = -40.0
"""What is this far below a recording's loudest frame counts as silence."""
_SILENT_DB = -35.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A picture that is made to speak, and what it says."""

    portrait: Path
    audio: Path

    @property
    def name(self) -> str:
        return f"{self.portrait.stem}, {self.audio.stem}"


def pairs(portraits: Sequence[Path], recordings: Sequence[Path]) -> list[Pair]:
    """Every picture and every recording at least once, in their order; the shorter list goes round."""
    return [
        Pair(portrait=portraits[i % len(portraits)], audio=recordings[i % len(recordings)])
        for i in range(max(len(portraits), len(recordings)))
    ]


def read_folder(name: str, folder: Path, read: Callable[[Path], T]) -> tuple[dict[Path, T], dict[str, str]]:
    """What `read` makes of each file, in the order of their names, and why the others cannot be used.

    name: the setting that names the folder. read: reads one file; raises PortraitError, AudioError or
    OSError for what is no use.

    Raises:
        UserError: the folder is not there, or holds no file that can be read.
    """
    if not folder.is_dir():
        raise UserError(
            f"{name} is {str(folder)!r}, which is no folder; name one that holds the files to score"
        )
    found: dict[Path, T] = {}
    left_out: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "."):
        try:
            found[path] = read(path)
        except (PortraitError, AudioError, OSError) as error:
            left_out[path.name] = describe(error)[0].replace(str(path), path.name)
    if not found:
        reason = next(iter(left_out.values()), "it is empty")
        raise UserError(
            f"{name} is {str(folder)!r}, which holds no files that can be used ({reason}); name a folder that does"
        )
    return found, left_out


def loudness(sound: AudioSource, fps: Fraction, count: int) -> Tensor:
    """Root mean square of the sound in each of `count` video frames, in dB below the loudest of them: [F] in
    [FLOOR_DB, 0]; FLOOR_DB throughout where all is silent."""
    edges = [round(index * SAMPLE_RATE / fps) for index in range(count + 1)]
    samples = sound.read(0, edges[-1])
    power = torch.stack([samples[a:b].square().mean() for a, b in pairwise(edges)])
    if float(power.max()) == 0.0:
        return torch.full((count,), FLOOR_DB)
    return (10.0 * torch.log10(power / power.max())).clamp(min=FLOOR_DB)


@dataclass(frozen=True, kw_only=True)
class FilesJudge:
    """reader: tells how wide mouths are open; it was trained on the heads of the procedural world, so its numbers for
    others are hints. backbone: its CLIP image tower compares persons, if it has one."""

    reader: MouthReader
    backbone: Backbone

    @torch.no_grad()
    def mouths(self, frames: Tensor, box: FaceBox) -> Tensor:
        """Mouth opening [F] read from frames [F, 3, S, S] in [0, 1] whose portrait has its face in `box`."""
        return read_mouths(self.reader, mouth_region(frames, mouth_centre(box), LIP_SIDE * box.size))

    @torch.no_grad()
    def score(
        self, frames: Tensor, portrait: Tensor, track: Tensor, loud: Tensor, joins: Sequence[int] = ()
    ) -> dict[str, float]:
        """Scores of frames [F, 3, S, S] of a portrait [3, S, S]; a score that has no meaning is left out.

        track: mouth opening [F]. loud: loudness [F] of what is said. joins: frames at which clips that were made apart
        meet.
        """
        scores = {
            "loudness_r": metrics.pearson(track, loud),
            "stillness": metrics.stillness(track, loud <= _SILENT_DB),
            "boundary_jump": metrics.boundary_jump(frames, joins),
        }
        if self.backbone.image_encoder is not None:
            some = torch.cat([portrait[None], frames[:: max(len(frames) // 8, 1)]])
            embedded = self.backbone.embed_image(some.to(self.backbone.device))
            scores["identity"] = float(F.cosine_similarity(embedded[1:], embedded[:1]).mean())
        return {name: value for name, value in scores.items() if math.isfinite(value)}
