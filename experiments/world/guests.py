"""Guests: pictures of a scene as somebody might bring them along, from anywhere and before whatever was there.

Half of them are taken as the scene's own views are; the others in another light, and before another background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.world.render import Light
from experiments.world.sdf import Color
from gen3d.cameras import Cameras

_OWN = 0.5  # share of guests under the scene's own light, before its own background


@dataclass(frozen=True, slots=True)
class Guest:
    """A picture to be taken. camera: one. behind: what stands behind the scene, sRGB `[3, H, W]` or `[3, 1, 1]`."""

    camera: Cameras
    light: Light
    behind: Tensor


def invite(
    cameras: Cameras, size: int, rng: np.random.Generator, *, background: Color, light: Light
) -> tuple[Guest, ...]:
    """A guest for each camera, of `size` pixels. background, light: the scene's own."""
    guests = []
    for i in range(len(cameras)):
        behind, lit = torch.tensor(background, dtype=torch.float32).view(3, 1, 1), light
        if rng.random() >= _OWN:
            behind, lit = random_backdrop(rng, size), random_light(rng)
        guests.append(Guest(cameras[[i]], lit, behind))
    return tuple(guests)


def random_light(rng: np.random.Generator) -> Light:
    """Light from above and in front, more or less from a side."""
    azimuth, elevation = np.radians(rng.uniform(-60, 75)), np.radians(rng.uniform(35, 65))
    direction = (
        float(np.cos(elevation) * np.sin(azimuth)), float(np.sin(elevation)), float(np.cos(elevation) * np.cos(azimuth))
    )  # fmt: skip
    return Light(direction=direction)


def random_backdrop(rng: np.random.Generator, size: int) -> Tensor:
    """One colour, one that runs into another, or soft patches of two: `[3, size, size]` sRGB in [0, 1]."""
    a, b = (torch.from_numpy(rng.uniform(0, 1, 3)).float().view(3, 1, 1) for _ in range(2))
    kind = rng.integers(3)
    if kind == 0:
        share = torch.zeros(1, size, size)
    elif kind == 1:
        share = _ramp(size, float(rng.uniform(0, 2 * np.pi)))
    else:
        share = _patches(size, torch.from_numpy(rng.uniform(0, 1, (1, 1, *rng.integers(3, 8, 2)))).float())
    return torch.lerp(a.expand(3, size, size), b.expand(3, size, size), share)


def _ramp(size: int, angle: float) -> Tensor:
    """0 to 1 across the picture, in the direction of `angle` in radians: `[1, size, size]`."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    along = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    return (0.5 + along / (2 * (abs(np.cos(angle)) + abs(np.sin(angle)))))[None].float()


def _patches(size: int, coarse: Tensor) -> Tensor:
    """A few random numbers `[1, 1, h, w]` made smooth: `[1, size, size]` in [0, 1]."""
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0].clamp(0, 1)
