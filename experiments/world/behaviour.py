"""What a face does besides speaking: blinks, glances, brows and the sway of the head, as seeded random processes.

A behaviour is a function of continuous time: sampled at another frame rate it is the same movement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avatar.blink import blink_times, lids_at
from diffusion.limits import check_range

BEHAVIOUR_CHANNELS = (
    "blink_left", "blink_right", "brow_raise", "gaze_x", "gaze_y", "yaw_deg", "pitch_deg", "roll_deg"
)  # fmt: skip

_WAVES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviourConfig:
    """How lively a face is.

    blinks_per_minute: mean rate, 0 for none. glances, brows: 0 for none, 1 usual. head_motion: 0 holds the head still,
    1 sways it by about 5 degrees, up to 3. rest_deg: yaw, pitch, roll about which it sways.
    """

    blinks_per_minute: float = 17.0
    glances: float = 1.0
    brows: float = 1.0
    head_motion: float = 1.0
    rest_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        check_range(self, 0, 40, "blinks_per_minute")
        check_range(self, 0, 2, "glances", "brows")
        check_range(self, 0, 3, "head_motion")
        if max(map(abs, self.rest_deg)) > 30:
            raise ValueError(f"rest_deg must lie within 30 degrees, got {self.rest_deg}")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Events and waves of one take; times in seconds.

    blinks: [B] when lids begin to close. glances: [G, 3] time, gaze x, gaze y. emphases: [E, 3] time, nod in degrees,
    brow raise. waves: [3, K, 3] amplitude in degrees, frequency in Hz, phase; for yaw, pitch, roll.
    """

    blinks: Tensor
    glances: Tensor
    emphases: Tensor
    waves: Tensor
    rest_deg: tuple[float, float, float]

    def at(self, times: Tensor) -> Tensor:
        """Channels at times [T] (seconds): [T, 8] in the order of BEHAVIOUR_CHANNELS, within the rig's limits."""
        t = times.double()
        blink = lids_at(self.blinks, t)
        gaze = self._gaze(t)
        # An emphasis swells and fades over about a quarter of a second around its syllable.
        swell = torch.exp(-0.5 * ((t[:, None] - self.emphases[:, 0]) / 0.11).square())
        nods, brows = swell @ self.emphases[:, 1], swell @ self.emphases[:, 2]
        size, frequency, phase = self.waves.unbind(-1)
        sway = (size * torch.sin(2 * math.pi * frequency * t[:, None, None] + phase)).sum(-1)
        head = sway + torch.tensor(self.rest_deg, dtype=torch.float64)
        head[:, 1] -= nods
        columns = [
            blink,
            blink,
            brows.clamp(0, 1),
            *gaze.clamp(-1, 1).unbind(1),
            *head.clamp(-40, 40).unbind(1),
        ]
        return torch.stack(columns, dim=1).float()

    def _gaze(self, t: Tensor) -> Tensor:
        # Eyes jump: a glance is reached in about 40 ms and held until the next.
        reached = ((t[:, None] - self.glances[:, 0]) / 0.04).clamp(0, 1)
        reached = reached * reached * (3 - 2 * reached)
        steps = torch.diff(self.glances[:, 1:], dim=0, prepend=torch.zeros(1, 2, dtype=torch.float64))
        return reached @ steps


def behave(
    duration: float,
    stresses: Sequence[float],
    config: BehaviourConfig | None = None,
    *,
    generator: torch.Generator,
) -> Behaviour:
    """Draw a behaviour for `duration` seconds. stresses: times of stressed syllables; some get a nod or a brow."""
    config = config or BehaviourConfig()

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64)

    blinks = blink_times(duration, config.blinks_per_minute, generator=generator)

    glances = [(-1.0, 0.0, 0.0)]
    at = 0.0
    while config.glances > 0:
        at += 0.4 - 1.6 * math.log(1 - float(uniform()))
        if at > duration:
            break
        x, y, away = uniform(3).tolist()
        # Most of the time eyes rest on the viewer.
        reach = config.glances * (0.55 if away < 0.35 else 0.08)
        glances.append(
            (at, max(-1.0, min(1.0, reach * (2 * x - 1))), max(-1.0, min(1.0, 0.5 * reach * (2 * y - 1))))
        )

    emphases = []
    for time in stresses:
        nods, lifts, how_much = uniform(3).tolist()
        nod = (1.0 + 2.5 * how_much) * config.head_motion if nods < 0.45 else 0.0
        emphases.append((time, nod, config.brows * (0.3 + 0.5 * how_much) if lifts < 0.25 else 0.0))

    frequency = 0.06 * (0.9 / 0.06) ** uniform(3, _WAVES)
    # Slow waves are the larger ones, so that speed is shared evenly among them.
    size = (0.15 / frequency).sqrt() * (0.5 + uniform(3, _WAVES)) * math.sqrt(2 / _WAVES)
    size = size * config.head_motion * torch.tensor([[5.0], [2.6], [2.2]], dtype=torch.float64)
    phase = 2 * math.pi * uniform(3, _WAVES)
    return Behaviour(
        torch.tensor(blinks, dtype=torch.float64),
        torch.tensor(glances, dtype=torch.float64),
        torch.tensor(emphases, dtype=torch.float64).view(-1, 3),
        torch.stack([size, frequency, phase], dim=-1),
        config.rest_deg,
    )


def head_speed(angles_deg: Tensor, fps: float) -> Tensor:
    """Turning speed of the head in degrees a second, [F], between each frame and the next (the last one repeats).

    angles_deg: [F, 3] yaw, pitch, roll as the rig has them. A single frame is at rest.
    """
    if len(angles_deg) < 2:
        return torch.zeros(len(angles_deg))
    turn = _rotation(torch.deg2rad(angles_deg.double()))
    trace = (turn[:-1].transpose(1, 2) @ turn[1:]).diagonal(dim1=1, dim2=2).sum(-1)
    angle = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))) * fps
    return torch.cat([angle, angle[-1:]]).float()


def _rotation(angles: Tensor) -> Tensor:
    """[F, 3] yaw, pitch, roll in radians -> [F, 3, 3]: roll, then pitch, then yaw, as the rig turns a head."""
    yaw, pitch, roll = angles.unbind(1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, dim=1).view(-1, 3, 3)

    y = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    x = matrix(one, zero, zero, zero, pitch.cos(), pitch.sin(), zero, -pitch.sin(), pitch.cos())
    z = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    return y @ x @ z
