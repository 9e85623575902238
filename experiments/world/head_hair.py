"""What is worn on a head: hair, beard, moustache, glasses and hats, as parts in head coordinates."""

from __future__ import annotations

import math

from experiments.world.head_shape import (
    JAW_DEPTH,
    JAW_Y,
    JAW_Z,
    HeadShape,
    Mouth,
    eye_centre,
    mix,
)  # fmt: skip
from experiments.world.head_spec import HeadSpec
from experiments.world.sdf import Color, Part, capsule, cone, cylinder, ellipsoid, sphere, torus

_BRIM_Y = 0.30


def hair(spec: HeadSpec, color: Color, skin: Color) -> list[Part]:
    """Hair of the spec's style; under a hat only what shows below its brim."""
    style, under_hat = spec.hair_style, spec.hat is not None
    bobbed = spec.gender in ("woman", "girl")
    if style == "bald":
        return []
    if style == "mohawk":
        return _mohawk(color, skin, under_hat)
    if style == "long":
        parts = _long(under_hat)
    elif style == "bun":
        parts = _bun(under_hat)
    elif style == "curly":
        parts = _curly(under_hat, bobbed)
    elif style == "ponytail":
        parts = _ponytail(under_hat)
    else:
        parts = _short(under_hat, bobbed)
    ribbon = mix(color, (0.9, 0.2, 0.3), 0.7)
    return [part.colored(ribbon if part.name == "tie" else color) for part in parts]


def _cap() -> Part:
    """Hair close to the skull, its line over the forehead."""
    return ellipsoid(0.425, 0.435, 0.43).at(0, 0.125, -0.075).named("hair")


def _short(under_hat: bool, bobbed: bool) -> list[Part]:
    parts = [_cap()]
    if not under_hat:
        quiff = ellipsoid(0.27, 0.085, 0.13).rotate_z(8).rotate_x(-14).at(0.03, 0.435, 0.215)
        parts.append(quiff.smooth(0.06).named("hair"))
    if bobbed:
        parts.append(ellipsoid(0.42, 0.30, 0.30).at(0, -0.06, -0.13).smooth(0.03).named("hair"))
    return parts


def _fringe() -> list[Part]:
    """Two sweeps from a side parting."""
    return [
        ellipsoid(0.23, 0.085, 0.10)
        .rotate_z(-28)
        .rotate_y(28)
        .at(0.17, 0.335, 0.27)
        .smooth(0.03)
        .named("hair"),
        ellipsoid(0.15, 0.075, 0.09)
        .rotate_z(35)
        .rotate_y(-32)
        .at(-0.2, 0.34, 0.245)
        .smooth(0.03)
        .named("hair"),
    ]


def _long(under_hat: bool) -> list[Part]:
    parts = [_cap()] if under_hat else [_cap(), *_fringe()]
    parts.append(ellipsoid(0.40, 0.50, 0.21).at(0, -0.18, -0.25).smooth(0.06).named("hair"))
    for side in (1, -1):
        lock = ellipsoid(0.095, 0.37, 0.16).rotate_z(side * 5).at(side * 0.385, -0.17, -0.04)
        parts.append(lock.smooth(0.03).named("hair"))
    return parts


def _bun(under_hat: bool) -> list[Part]:
    if under_hat:
        return [_cap(), sphere(0.155).at(0.0, -0.04, -0.53).named("hair")]
    return [_cap(), *_fringe(), sphere(0.165).at(0.0, 0.575, -0.14).named("hair")]


def _ponytail(under_hat: bool) -> list[Part]:
    y, z = (0.08, -0.49) if under_hat else (0.34, -0.44)
    return [
        _cap(),
        *([] if under_hat else _fringe()),
        torus(0.06, 0.03).rotate_x(75).at(0, y, z - 0.02).named("tie"),
        sphere(0.11).at(0, y, z - 0.11).smooth(0.02).named("hair"),
        ellipsoid(0.115, 0.31, 0.10).rotate_x(8).at(0, y - 0.25, z - 0.15).smooth(0.06).named("hair"),
    ]


def _curly(under_hat: bool, bobbed: bool) -> list[Part]:
    """A wreath of big curls from ear to ear over the crown, and one behind."""
    curls = [
        (0.27, 0.39, 0.06, 0.17), (-0.27, 0.39, 0.06, 0.17), (0.0, 0.44, 0.17, 0.17),
        (0.40, 0.12, -0.10, 0.17), (-0.40, 0.12, -0.10, 0.17), (0.0, 0.34, -0.33, 0.24),
    ]  # fmt: skip
    if under_hat or bobbed:
        curls += [(0.34, -0.12, -0.13, 0.16), (-0.34, -0.12, -0.13, 0.16)]
    if under_hat:
        curls = [curl for curl in curls if curl[1] < 0.15]
    return [_cap(), *(sphere(radius).at(x, y, z).named("hair") for x, y, z, radius in curls)]


def _mohawk(color: Color, skin: Color, under_hat: bool) -> list[Part]:
    shaved = ellipsoid(0.405, 0.425, 0.41).at(0, 0.095, -0.035).colored(mix(skin, color, 0.35)).named("hair")
    if under_hat:
        return [
            shaved,
            ellipsoid(0.06, 0.26, 0.12).rotate_x(12).at(0, -0.04, -0.41).colored(color).named("hair"),
        ]
    crest = [cylinder(0.47, 0.055, 0.05).rotate_z(90).at(0, 0.18, -0.11).named("hair")]
    for i in range(6):
        angle = 68 - 37 * i
        spike = cone(0.11, 0.0, 0.14, 0.02).at(0, 0.47, 0).rotate_x(angle).at(0, 0.15, -0.10)
        crest.append(spike.smooth(0.04).named("spike"))
    return [shaved, *(part.colored(color) for part in crest)]


def beard(shape: HeadShape, lips: Mouth, color: Color) -> list[Part]:
    """A full beard: a larger jaw pushed down and back, parting from the skin along a line under the lips."""
    full = ellipsoid(shape.jaw_width + 0.025, shape.jaw_length + 0.05, JAW_DEPTH + 0.025)
    return [full.at(0, JAW_Y - 0.085 - lips.jaw_drop, JAW_Z - 0.025).colored(color).named("beard")]


def moustache(lips: Mouth, color: Color) -> list[Part]:
    y = lips.top + lips.thickness + 0.022
    return [
        ellipsoid(0.085, 0.030, 0.04).rotate_z(side * -14).rotate_y(side * 16)
        .at(side * 0.065, y, lips.front - 0.01).colored(color).named("moustache")
        for side in (1, -1)
    ]  # fmt: skip


def glasses(shape: HeadShape, style: str) -> list[Part]:
    frame: Color = (0.12, 0.12, 0.14)
    x, y, z = eye_centre(shape, 1)
    z += shape.eye_radius + 0.02
    rim = 0.014
    wide = min(1.15 * shape.eye_radius, x - 0.04)
    parts = []
    for side in (1, -1):
        lens = torus(wide, rim)
        if style == "square":
            # A hollow rounded rectangle: the ring's own primitive with other sides.
            lens = Part((wide * 1.04, wide * 0.86, 0.022, 0.0, 0.0, 0.0, rim))
        parts.append(lens.rotate_x(90).rotate_y(side * 7).at(side * x, y, z - 0.005).named("glasses"))
        start, end = (x + wide, y + 0.03, z - 0.02), (shape.skull_width + 0.045, y + 0.05, 0.0)
        dx, dz = end[0] - start[0], start[2] - end[2]
        temple = (
            capsule(0.012, math.hypot(dx, dz) / 2)
            .rotate_x(90)
            .rotate_y(-side * math.degrees(math.atan2(dx, dz)))
        )
        parts.append(
            temple.at(side * (start[0] + end[0]) / 2, y + 0.04, (start[2] + end[2]) / 2).named("glasses")
        )
    parts.append(capsule(0.012, max(x - wide, 0.02)).rotate_z(90).at(0, y + 0.02, z + 0.008).named("glasses"))
    return [part.colored(frame) for part in parts]


def hat(color: Color) -> list[Part]:
    parts = [
        cylinder(0.60, 0.024, 0.02).at(0, _BRIM_Y, -0.06).colored(color),
        cylinder(0.435, 0.045).at(0, _BRIM_Y + 0.05, -0.06).colored(mix(color, (0.05, 0.05, 0.06), 0.65)),
        cone(0.432, 0.39, 0.18, 0.09).at(0, _BRIM_Y + 0.17, -0.06).colored(color),
    ]
    return [part.rotate_x(-7).named("hat") for part in parts]
