"""A miniature of SyncNet (Chung & Zisserman, 2016): do lips and sound belong to the same moment?

Lips and sound of five frames become vectors that lie close together when they belong together. From their distances
at shifts of up to 15 frames come the field's scores Sync-D (least mean distance), Sync-C (median minus least) and the
offset. Numbers of this network compare with each other, not with those of the public one.

Legend: F frames, W = 5 frames of a window, D width of the vectors, K = 2 reach + 1 shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncNetConfig:
    """size: side in pixels of the mouth's region. features: numbers of sound a frame (time steps times bands).
    width: numbers in each of the two vectors that are compared.
    """

    size: int = 48
    steps: int = 4
    bands: int = 80
    width: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncScore:
    """confidence: Sync-C. distance: Sync-D. offset: frames by which the lips come late."""

    confidence: float
    distance: float
    offset: int


class SyncNet(nn.Module):
    """Two towers into one space of unit vectors."""

    def __init__(self, config: SyncNetConfig | None = None):
        super().__init__()
        self.config = config = config or SyncNetConfig()
        self.lips = nn.Sequential(
            *_stage(nn.Conv2d(3 * WINDOW, 32, 3, stride=2, padding=1)),
            *_stage(nn.Conv2d(32, 48, 3, stride=2, padding=1)),
            *_stage(nn.Conv2d(48, 64, 3, stride=2, padding=1)),
            *_stage(nn.Conv2d(64, 96, 3, stride=2, padding=1)),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(96, config.width),
        )
        self.sound = nn.Sequential(
            *_stage(nn.Conv1d(config.bands, 96, 3, padding=1)),
            *_stage(nn.Conv1d(96, 96, 3, stride=2, padding=1)),
            *_stage(nn.Conv1d(96, 96, 3, padding=1)),
            nn.Flatten(),
            nn.Linear(96 * (WINDOW * config.steps // 2), config.width),
        )

    def embed_lips(self, windows: Tensor) -> Tensor:
        """[N, W, 3, S, S] in [0, 1] -> [N, D], of length 1."""
        if windows.ndim != 5 or windows.shape[1:3] != (WINDOW, 3):
            raise ValueError(f"windows of lips must be [N, {WINDOW}, 3, S, S], got {list(windows.shape)}")
        small = F.interpolate(
            windows.flatten(1, 2).float() - 0.5, size=(self.config.size,) * 2, mode="bilinear", antialias=True,
            align_corners=False,
        )  # fmt: skip
        return F.normalize(self.lips(small), dim=1)

    def embed_sound(self, windows: Tensor) -> Tensor:
        """[N, W, P, B] features -> [N, D], of length 1."""
        config = self.config
        if windows.ndim != 4 or windows.shape[1:] != (WINDOW, config.steps, config.bands):
            raise ValueError(
                f"windows of sound must be {['N', WINDOW, config.steps, config.bands]}, got {list(windows.shape)}"
            )
        return F.normalize(self.sound(windows.float().flatten(1, 2).transpose(1, 2)), dim=1)


def contrast(lips: Tensor, sound: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy [] of N moments, each lips' own sound against the others', and the other way round."""
    logits = scale * lips @ sound.T
    own = torch.arange(len(lips), device=lips.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def sync_score(lips: Tensor, sound: Tensor, *, reach: int = 15) -> SyncScore:
    """Scores of a clip from its vectors [F', D] of windows that begin at frames 0, 1, 2 and so on.

    Raises:
        ValueError: when the clip is shorter than `reach` and a few frames more.
    """
    if lips.shape != sound.shape or lips.ndim != 2:
        raise ValueError(
            f"lips and sound must both be [F, D], got {list(lips.shape)} and {list(sound.shape)}"
        )
    if len(lips) < reach + 5:
        raise ValueError(
            f"a clip of {len(lips)} windows is too short for shifts of {reach}; {reach + 5} are needed"
        )
    distances = []
    for shift in range(-reach, reach + 1):
        # Lips that come `shift` frames late fit the sound that was `shift` frames earlier.
        late = lips[shift:] if shift >= 0 else lips[:shift]
        early = sound[: len(sound) - shift] if shift >= 0 else sound[-shift:]
        distances.append(float((late - early).norm(dim=1).mean()))
    track = torch.tensor(distances)
    best = int(track.argmin())
    return SyncScore(
        confidence=float(track.median() - track[best]), distance=float(track[best]), offset=best - reach
    )


def windows_of(frames: Tensor) -> Tensor:
    """Every run of W frames: [F, ...] -> [F - W + 1, W, ...]."""
    if len(frames) < WINDOW:
        raise ValueError(f"{len(frames)} frames are fewer than a window's {WINDOW}")
    return torch.stack([frames[i : len(frames) - WINDOW + 1 + i] for i in range(WINDOW)], dim=1)


def _stage(layer: nn.Conv1d | nn.Conv2d) -> tuple[nn.Module, ...]:
    return layer, nn.GroupNorm(8, layer.out_channels), nn.SiLU()
