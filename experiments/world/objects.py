"""From the meaning of a caption to coloured parts: one thing, or two things placed by their relation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.world.captions import PairSpec, ThingSpec
from experiments.world.sdf import Part, compile_parts, fit_unit_sphere
from experiments.world.things import BUILDERS, Palette
from experiments.world.vocabulary import COLORS

__all__ = ["build_parts", "palette_of", "thing_parts"]

# Columns a side of the height maps by which one thing comes to rest on another.
_COLUMNS = 40
# Share of the upper thing's height by which it may sink in: enough to join, too little to see.
_SINK = (0.015, 0.06)
_GAP = 0.10
# Where a thing is sat upon if not at its highest place: (x, z, free half width), shares of its half extents.
_SEATS = {"chair": (0.0, 0.12, 0.62), "boat": (0.0, 0.60, 0.50)}


def palette_of(spec: ThingSpec) -> Palette:
    """The colours that the caption names, as sRGB."""
    return Palette(
        main=None if spec.color is None else COLORS[spec.color],
        parts={part: COLORS[color] for part, color in (spec.secondary or {}).items()},
    )


def thing_parts(spec: ThingSpec, rng: np.random.Generator | None = None) -> list[Part]:
    """Parts of one thing in the thing's own arbitrary size; see `build_parts`."""
    return BUILDERS[spec.thing](palette_of(spec), rng)


def build_parts(spec: ThingSpec | PairSpec, rng: np.random.Generator | None = None) -> list[Part]:
    """Parts of the scene, fitted into the unit sphere: +Y up, facing +Z.

    rng: None gives canonical proportions; a generator varies a few of them by up to a quarter.
    """
    if isinstance(spec, ThingSpec):
        return fit_unit_sphere(thing_parts(spec, rng))
    a = _Solid.of(fit_unit_sphere(thing_parts(spec.a, rng)))
    b = _Solid.of(fit_unit_sphere(thing_parts(spec.b, rng)))
    if spec.relation == "on":
        placed = [*b.parts, *_rest_on(a, b, _SEATS.get(spec.b.thing)).parts]
    else:
        placed = _stand_together(a, b, spec.relation)
    return fit_unit_sphere(placed)


@dataclass(frozen=True, slots=True)
class _Solid:
    """Parts with their surface's extent: low and high corners as (x, y, z)."""

    parts: list[Part]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @staticmethod
    def of(parts: list[Part]) -> _Solid:
        """Measure parts that lie within the unit sphere."""
        axis = torch.linspace(-1.0, 1.0, 32)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3)
        field = compile_parts([parts])
        distance = field.sdf(grid)[0]
        points = grid[:, distance.abs() < 0.08]
        # Onto the surface, so that the extent does not come in steps of the grid.
        for _ in range(3):
            points = points - field.normals(points) * field.sdf(points)[..., None]
        low, high = points[0].amin(0).tolist(), points[0].amax(0).tolist()
        return _Solid(parts, (low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def scaled(self, factor: float) -> _Solid:
        x0, y0, z0 = (v * factor for v in self.low)
        x1, y1, z1 = (v * factor for v in self.high)
        return _Solid([part.scaled(factor) for part in self.parts], (x0, y0, z0), (x1, y1, z1))

    def at(self, x: float, y: float, z: float) -> _Solid:
        move = (x, y, z)
        low = [v + m for v, m in zip(self.low, move, strict=True)]
        high = [v + m for v, m in zip(self.high, move, strict=True)]
        return _Solid(
            [part.at(x, y, z) for part in self.parts], (low[0], low[1], low[2]), (high[0], high[1], high[2])
        )

    def size(self, axis: int) -> float:
        return self.high[axis] - self.low[axis]

    def centre(self, axis: int) -> float:
        return 0.5 * (self.high[axis] + self.low[axis])


def _stand_together(a: _Solid, b: _Solid, relation: str) -> list[Part]:
    """Side by side or one before the other on one floor, with a gap so that they stay two pieces."""
    axis = 2 if relation in ("in_front_of", "behind") else 0
    if axis == 2:
        # A smaller thing in front leaves the one behind to be seen.
        front, back = (a, b) if relation == "in_front_of" else (b, a)
        front = front.scaled(min(1.0, 0.8 * back.size(1) / front.size(1)))
        return _in_row(back, front, axis)
    return _in_row(b, a, axis) if relation == "right_of" else _in_row(a, b, axis)


def _in_row(first: _Solid, second: _Solid, axis: int) -> list[Part]:
    """The first towards the axis's negative end, both centred across it and standing on y = 0."""
    placed: list[Part] = []
    for solid, sign in ((first, -1.0), (second, 1.0)):
        move = [-solid.centre(0), -solid.low[1], -solid.centre(2)]
        move[axis] += sign * 0.5 * (_GAP + solid.size(axis))
        placed += [part.at(move[0], move[1], move[2]) for part in solid.parts]
    # A carving part cuts everything before it in the list, but reaches no further than its own thing.
    return placed


def _rest_on(a: _Solid, b: _Solid, seat: tuple[float, float, float] | None) -> _Solid:
    """Thing a, scaled to suit b and lowered onto it."""
    x, z, room = _support(b, seat)
    widest = max(a.size(0), a.size(2))
    factor = min(0.85, 1.1 * b.size(1) / a.size(1), 2.0 * room / widest)
    small = a.scaled(max(factor, 0.30 if seat else 0.42))
    # A slim thing would slip through a ring: it grows until it rests on it.
    for growth in (1.0, 1.3, 1.7, 2.2, 3.0):
        a = small.scaled(growth)
        a = a.at(x - a.centre(0), b.high[1] - a.low[1], z - a.centre(2))
        gaps = _gaps(a, b, x, z)
        if len(gaps) > 0:
            break
    else:
        a, gaps = _on_the_highest_place(small, b)
        if len(gaps) == 0:  # thinner than the columns lie apart: it stands where its box touches
            return a
    # A point of contact alone would look (and print) loose: sink until a few columns overlap.
    least, most = (share * a.size(1) for share in _SINK)
    wanted = float(gaps[min(len(gaps) - 1, 8)] - gaps[0])
    return a.at(0.0, -float(gaps[0]) - min(max(wanted, least), most), 0.0)


def _gaps(a: _Solid, b: _Solid, x: float, z: float) -> Tensor:
    """How far a, whose middle is at (x, z), is above b in each column that meets both, the least first: `[N]`."""
    columns = _columns(x, z, 0.5 * max(a.size(0), a.size(2)))
    gap = _first_hit(a.parts, columns, a.low[1] - 0.02, up=True) - _first_hit(
        b.parts, columns, b.high[1] + 0.02, up=False
    )
    return gap[torch.isfinite(gap)].sort().values


def _on_the_highest_place(a: _Solid, b: _Solid) -> tuple[_Solid, Tensor]:
    """Thing a with its lowest place above b's highest, and its `_gaps` there: beside a ring's hole, on its rim."""
    a = a.at(-a.centre(0), b.high[1] - a.low[1], -a.centre(2))
    feet = _columns(0.0, 0.0, 0.5 * max(a.size(0), a.size(2)))
    foot = feet[_first_hit(a.parts, feet, a.low[1] - 0.02, up=True).argmin()]
    tops = _columns(b.centre(0), b.centre(2), 0.5 * max(b.size(0), b.size(2)))
    x, z = (tops[_first_hit(b.parts, tops, b.high[1] + 0.02, up=False).argmax()] - foot).tolist()
    a = a.at(x, 0.0, z)
    return a, _gaps(a, b, x, z)


def _support(b: _Solid, seat: tuple[float, float, float] | None) -> tuple[float, float, float]:
    """Centre (x, z) of b's top, and the half width that a thing on it may have."""
    half_x, half_z = 0.5 * b.size(0), 0.5 * b.size(2)
    if seat is not None:
        return b.centre(0) + seat[0] * half_x, b.centre(2) + seat[1] * half_z, seat[2] * min(half_x, half_z)
    columns = _columns(b.centre(0), b.centre(2), max(half_x, half_z))
    height = _first_hit(b.parts, columns, b.high[1] + 0.02, up=False)
    top = columns[height > height.max() - 0.04 * b.size(1)]
    low, high = top.amin(0), top.amax(0)
    x, z = (0.5 * (low + high)).tolist()
    # Things may overhang a small top, as a cone on a ball does, but not by much.
    room = max(0.85 * 0.5 * float((high - low).min()), 0.6 * min(half_x, half_z))
    return x, z, room


def _columns(x: float, z: float, half: float) -> Tensor:
    """Vertical lines on a square grid about (x, z): `[N, 2]`."""
    offsets = (torch.arange(_COLUMNS) + 0.5) / _COLUMNS * 2.0 - 1.0
    grid = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1).reshape(-1, 2)
    return grid * half + torch.tensor([x, z])


def _first_hit(parts: list[Part], columns: Tensor, start: float, *, up: bool) -> Tensor:
    """Height at which each column, walked from `start` upwards or downwards, meets the parts: `[N]`.

    A column that misses has +inf when walked upwards and -inf downwards.
    """
    field = compile_parts([parts])
    way = 1.0 if up else -1.0
    y = torch.full((len(columns),), start)
    hit = torch.zeros(len(columns), dtype=torch.bool)
    for _ in range(48):
        points = torch.stack([columns[:, 0], y, columns[:, 1]], dim=-1)[None]
        distance = field.sdf(points)[0]
        hit |= distance < 2e-3
        y = torch.where(hit, y, y + way * 0.9 * distance.clamp(min=1e-3))
    return torch.where(hit, y, torch.full_like(y, way * torch.inf))
