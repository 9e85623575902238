"""What frames of a talking portrait score against a clip of the world of which everything is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar import metrics
from avatar.mouth import MouthReader, mouth_region
from avatar.syncnet import WINDOW, SyncNet, sync_score, windows_of
from diffusion.backbone import Backbone
from diffusion.finite import check_finite
from experiments.benchmark.sharpness import in_box, sharpness
from experiments.training.talking import LIP_SIDE, mouth_centre, portrait_box, sound_windows
from experiments.world.talking import Clip
from video.pixels import from_uint8

_WIDE_OPEN = 0.15
_REACH = 10
_REMEDY = "its weights are damaged: fetch or train them again"


@dataclass(frozen=True, kw_only=True)
class TalkJudge:
    """reader: tells how wide mouths are open. sync: the miniature SyncNet, or None. backbone: its CLIP image tower
    compares persons, if it has one."""

    reader: MouthReader
    sync: SyncNet | None
    backbone: Backbone

    @torch.no_grad()
    def mouths(self, frames: Tensor, clip: Clip) -> Tensor:
        """Mouth opening [F] read from frames [F, 3, S, S] in [0, 1], about the portrait's mouth."""
        box = portrait_box(clip.portrait_landmarks)
        return read_mouths(self.reader, mouth_region(frames, mouth_centre(box), LIP_SIDE * box.size))

    @torch.no_grad()
    def score(
        self, frames: Tensor, clip: Clip, *, track: Tensor | None = None, joins: Sequence[int] = ()
    ) -> dict[str, float]:
        """Scores of frames [F, 3, S, S] that should be those of `clip`; a score that has no meaning is left out.

        track: mouth opening, if it was read already. joins: frames at which clips that were made apart meet.
        """
        track = self.mouths(frames, clip) if track is None else track
        truth, images = clip.aperture, from_uint8(clip.images)
        box = portrait_box(clip.portrait_landmarks)
        silent = torch.tensor([name == "sil" for name in clip.visemes])
        # A mouth that never moves is neither early nor late.
        late = (
            metrics.offset(track, truth, reach=min(_REACH, len(track) // 3)) if metrics.moves(track) else None
        )
        scores = {
            "r": metrics.pearson(track, truth),
            "error": float((track - truth).abs().mean()),
            "offset": math.nan if late is None else float(abs(late)),
            "in_step": math.nan if late is None else float(abs(late) <= 1),
            "closures": metrics.closure_recall(track, clip.closures, opened=_WIDE_OPEN),
            "stillness": metrics.stillness(track, silent),
            "static_psnr_db": metrics.static_psnr(frames, images),
            "sharpness": sharpness(in_box(frames, box), in_box(from_uint8(clip.portrait[None]), box)),
            "boundary_jump": metrics.boundary_jump(frames, joins),
        }
        if self.backbone.image_encoder is not None:
            some = torch.cat([from_uint8(clip.portrait[None]), frames[:: max(len(frames) // 8, 1)]])
            embedded = self.backbone.embed_image(some.to(self.backbone.device))
            scores["identity"] = float(F.cosine_similarity(embedded[1:], embedded[:1]).mean())
        if self.sync is not None and len(frames) >= 15 + 5 + WINDOW:
            found = sync_score(*self._vectors(frames, clip))
            scores |= {"sync_c": found.confidence, "sync_d": found.distance}
        return {name: value for name, value in scores.items() if math.isfinite(value)}

    def _vectors(self, frames: Tensor, clip: Clip) -> tuple[Tensor, Tensor]:
        assert self.sync is not None
        box = portrait_box(clip.portrait_landmarks)
        lips = mouth_region(frames, mouth_centre(box), LIP_SIDE * box.size)
        small = F.interpolate(lips, size=(48, 48), mode="bilinear", antialias=True, align_corners=False)
        sound = sound_windows(clip)
        middle = sound[:, sound.shape[1] // 2].float()
        vectors = self.sync.embed_lips(windows_of(small)), self.sync.embed_sound(windows_of(middle))
        for vector in vectors:
            check_finite(vector, "what the miniature SyncNet makes", _REMEDY)
        return vectors


def read_mouths(reader: MouthReader, mouths: Tensor) -> Tensor:
    """Mouth opening [F], on the CPU, of regions [F, 3, n, n]. A score that is not finite is left out as one without a
    meaning, so a reader that fails must say so itself: NonFiniteError."""
    return check_finite(reader(mouths).cpu(), "what the reader of mouths makes", _REMEDY)
