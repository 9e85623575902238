"""Plants, animals and the snowman."""

from __future__ import annotations

import math

from experiments.world import sdf
from experiments.world.sdf import Part
from experiments.world.things.palette import (
    BARK,
    CREAM,
    DARK,
    LEAF,
    TERRACOTTA,
    WHITE,
    Palette,
    Proportions,
    contrasting,
    mix,
    vary,
)

_BEAK = (0.97, 0.55, 0.12)
_CARROT = (0.95, 0.50, 0.13)


def mushroom(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A toadstool: domed cap with pale spots on a stout stem."""
    cap = palette.body((0.84, 0.16, 0.14))
    stem = palette.part("stem", contrasting(CREAM, cap, (0.80, 0.66, 0.48)))
    spots = palette.parts.get("spots", contrasting(WHITE, cap, (0.80, 0.70, 0.60)))
    radius, dome, half = vary(rng, 0.92, 0.12), vary(rng, 0.74, 0.15), vary(rng, 0.48)
    cap_y = 2.0 * half - 0.02
    parts = [
        sdf.ellipsoid(radius, dome, radius).at(0.0, cap_y, 0.0).colored(cap).named("cap"),
        # Reaches below the whole cap, so that nothing of it is left under the cut.
        sdf.ellipsoid(radius * 1.03, dome * 0.62, radius * 1.03)
        .at(0.0, cap_y - 0.50 * dome, 0.0)
        .carve(0.06)
        .colored(mix(stem, CREAM, 0.3) if "stem" not in palette.parts else stem),
        sdf.cone(0.37, 0.26, half + 0.1, rounding=0.14)
        .at(0.0, half + 0.1, 0.0)
        .smooth(0.05)
        .colored(stem)
        .named("stem"),
    ]
    turn = 20.0 if rng is None else float(rng.uniform(0.0, 360.0))
    for around, tilt, size in ((0, 0, 0.19), (0, 56, 0.20), (92, 50, 0.16), (178, 58, 0.19), (268, 47, 0.17)):
        sin, cos = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
        # A flat pebble laid along the cap's normal, then carried around the axis.
        normal = math.degrees(math.atan2(sin / radius, cos / dome))
        parts.append(
            sdf.ellipsoid(size, 0.35 * size, size)
            .rotate_x(normal)
            .at(0.0, dome * cos, radius * sin)
            .rotate_y(turn + around)
            .at(0.0, cap_y, 0.0)
            .colored(spots)
            .named("spots")
        )
    return parts


def snowman(palette: Palette, rng: Proportions = None) -> list[Part]:
    """Three snowballs, a carrot nose and a top hat."""
    body = palette.body(WHITE)
    hat = palette.part("hat", contrasting(DARK, body, (0.62, 0.16, 0.16)))
    coal = contrasting(DARK, body, WHITE)
    low, middle, head = vary(rng, 0.64, 0.1), vary(rng, 0.48, 0.1), vary(rng, 0.36, 0.1)
    low_y = low * 0.92
    middle_y = low_y + 0.72 * (low + middle)
    head_y = middle_y + 0.80 * (middle + head)
    brim_y = head_y + 0.78 * head
    parts = [
        sdf.sphere(low).at(0.0, low_y, 0.0).colored(body).named("body"),
        sdf.sphere(middle).at(0.0, middle_y, 0.0).smooth(0.06).colored(body).named("body"),
        sdf.sphere(head).at(0.0, head_y, 0.0).smooth(0.05).colored(body).named("body"),
        sdf.cone(0.095, 0.03, 0.20, rounding=0.03)
        .rotate_x(90)
        .at(0.0, head_y - 0.02, head + 0.15)
        .colored(contrasting(_CARROT, body, (0.85, 0.2, 0.15)))
        .named("nose"),
        sdf.cylinder(0.40, 0.05, rounding=0.04).rotate_x(-6).at(0.0, brim_y, -0.02).colored(hat).named("hat"),
        sdf.cylinder(0.26, 0.20, rounding=0.04)
        .rotate_x(-6)
        .at(0.0, brim_y + 0.20, -0.04)
        .colored(hat)
        .named("hat"),
    ]
    parts += [
        sdf.sphere(0.068)
        .at(side * 0.38 * head, head_y + 0.28 * head, 0.87 * head)
        .colored(coal)
        .named("eyes")
        for side in (-1.0, 1.0)
    ]
    for lift in (-0.25, 0.35):
        depth = math.sqrt(1.0 - lift**2) * middle
        parts.append(
            sdf.sphere(0.065).at(0.0, middle_y + lift * middle, depth).colored(coal).named("buttons")
        )
    parts += [
        sdf.capsule(0.05, 0.22)
        .rotate_z(-58 * side)
        .at(side * (middle + 0.12), middle_y + 0.16, 0.0)
        .colored(contrasting(BARK, body, DARK))
        .named("arms")
        for side in (-1.0, 1.0)
    ]
    if "scarf" in palette.parts:
        neck_y = head_y - 0.82 * head
        parts.append(
            sdf.torus(0.30, 0.11).at(0.0, neck_y, 0.0).colored(palette.parts["scarf"]).named("scarf")
        )
    return parts


def tree(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A broad-leaved tree with a cloud-shaped crown."""
    crown = palette.body(LEAF)
    trunk = palette.part("trunk", contrasting(BARK, crown, (0.30, 0.22, 0.18)))
    half, size = vary(rng, 0.46, 0.15), vary(rng, 0.62, 0.10)
    crown_y = 2.0 * half + 0.62 * size
    blobs = (
        (0.46, -0.04, 0.16, 0.72),
        (-0.48, 0.02, 0.10, 0.76),
        (0.02, 0.04, -0.48, 0.74),
        (-0.04, -0.02, 0.50, 0.68),
        (0.16, 0.48, 0.06, 0.74),
    )
    parts = [sdf.sphere(size).at(0.0, crown_y + 0.1, 0.0).colored(crown).named("crown")]
    for x, y, z, scale in blobs:
        parts.append(
            sdf.sphere(vary(rng, scale * size, 0.1))
            .at(vary(rng, x, 0.2), crown_y + y, vary(rng, z, 0.2))
            .smooth(0.12)
            .colored(crown)
            .named("crown")
        )
    parts.append(
        sdf.cone(0.24, 0.15, half + 0.1, rounding=0.03).at(0.0, half + 0.1, 0.0).colored(trunk).named("trunk")
    )
    return parts


def cactus(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A two-armed cactus in a pot, with a flower on top."""
    body = palette.body(LEAF)
    pot = palette.part("pot", contrasting(TERRACOTTA, body, (0.90, 0.84, 0.72)))
    flower = palette.part("flower", contrasting((0.96, 0.45, 0.62), body, (0.98, 0.85, 0.30)))
    radius, half = vary(rng, 0.27, 0.12), vary(rng, 0.62, 0.12)
    low, high = vary(rng, 0.95, 0.10), vary(rng, 1.20, 0.10)
    reach = radius + 0.30
    parts = [
        sdf.capsule(radius, half).at(0.0, 0.50 + half, 0.0).colored(body).named("body"),
        *_arm(1.0, low, reach, vary(rng, 0.17, 0.2)),
        *_arm(-1.0, high, reach, vary(rng, 0.14, 0.2)),
    ]
    parts = [parts[0], *(p.colored(body).named("body") for p in parts[1:])]
    return [
        *parts,
        sdf.cone(0.36, 0.46, 0.26, rounding=0.04).at(0.0, 0.26, 0.0).colored(pot).named("pot"),
        sdf.cylinder(0.52, 0.08, rounding=0.05).at(0.0, 0.50, 0.0).colored(pot).named("pot"),
        sdf.ellipsoid(0.16, 0.11, 0.16)
        .at(0.0, 0.50 + 2.0 * half + radius, 0.0)
        .colored(flower)
        .named("flower"),
    ]


def _arm(side: float, y: float, reach: float, half: float) -> list[Part]:
    """A bent arm: outwards, then up."""
    thickness = 0.145
    return [
        sdf.capsule(thickness, 0.5 * reach).rotate_z(90).at(side * 0.5 * reach, y, 0.0).smooth(0.05),
        sdf.capsule(thickness, half).at(side * reach, y + half, 0.0).smooth(0.05),
    ]


def duck(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A rubber duck."""
    body = palette.body((0.98, 0.83, 0.15))
    beak = palette.part("beak", contrasting(_BEAK, body, (0.98, 0.82, 0.20)))
    wings = palette.part("wings", body)
    eyes = contrasting(DARK, body, WHITE)
    width, length, head = vary(rng, 0.66, 0.1), vary(rng, 0.88, 0.1), vary(rng, 0.45, 0.1)
    head_y, head_z = 1.02 + 0.55 * head, 0.42
    parts = [
        sdf.ellipsoid(width, 0.52, length).at(0.0, 0.50, 0.0).colored(body).named("body"),
        sdf.ellipsoid(0.26, 0.17, 0.40)
        .rotate_x(42)
        .at(0.0, 0.78, -0.86 * length)
        .smooth(0.16)
        .colored(body)
        .named("body"),
        sdf.sphere(head).at(0.0, head_y, head_z).smooth(0.16).colored(body).named("body"),
        sdf.ellipsoid(0.21, 0.095, 0.27)
        .rotate_x(-6)
        .at(0.0, head_y - 0.16 * head, head_z + head)
        .colored(beak)
        .named("beak"),
    ]
    parts += [
        sdf.ellipsoid(0.13, 0.24, 0.42)
        .rotate_x(14)
        .at(side * (width - 0.03), 0.62, -0.12)
        .smooth(0.04)
        .colored(wings)
        .named("wings")
        for side in (-1.0, 1.0)
    ]
    parts += [
        sdf.sphere(0.078)
        .at(side * 0.50 * head, head_y + 0.28 * head, head_z + 0.74 * head)
        .colored(eyes)
        .named("eyes")
        for side in (-1.0, 1.0)
    ]
    return parts


def cat(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A sitting cat with a collar."""
    body = palette.body((0.93, 0.56, 0.22))
    collar = palette.part("collar", contrasting((0.80, 0.16, 0.18), body, (0.18, 0.42, 0.80)))
    eyes = contrasting(DARK, mix(body, DARK, 0.15), (0.93, 0.86, 0.30))
    width, height, head = vary(rng, 0.43, 0.1), vary(rng, 0.62, 0.1), vary(rng, 0.45, 0.1)
    head_y, head_z = 1.55 * height + 0.52, 0.16
    parts = [
        sdf.ellipsoid(width, height, 0.44)
        .rotate_x(-8)
        .at(0.0, 0.92 * height, 0.02)
        .colored(body)
        .named("body"),
        sdf.ellipsoid(width * 1.25, 0.28, 0.46).at(0.0, 0.26, -0.02).smooth(0.14).colored(body).named("body"),
        # The tail runs out along the floor and turns up.
        sdf.capsule(0.095, 0.26).rotate_z(-80).at(0.55, 0.13, -0.26).smooth(0.06).colored(body).named("tail"),
        sdf.capsule(0.095, 0.22).rotate_z(-12).at(0.84, 0.37, -0.26).smooth(0.10).colored(body).named("tail"),
    ]
    parts += [
        sdf.capsule(0.125, 0.34)
        .rotate_x(-10)
        .at(side * 0.17, 0.42, 0.37)
        .smooth(0.10)
        .colored(body)
        .named("legs")
        for side in (-1.0, 1.0)
    ]
    parts += [
        sdf.torus(0.25, 0.10)
        .rotate_x(10)
        .at(0.0, head_y - 0.40, head_z - 0.04)
        .colored(collar)
        .named("collar"),
        sdf.ellipsoid(head * 1.1, head * 0.9, head * 0.9).at(0.0, head_y, head_z).colored(body).named("head"),
    ]
    parts += [
        sdf.cone(0.17, 0.03, 0.18, rounding=0.03)
        .rotate_z(-16 * side)
        .at(side * 0.64 * head, head_y + 0.90 * head, head_z - 0.03)
        .smooth(0.03)
        .colored(body)
        .named("ears")
        for side in (-1.0, 1.0)
    ]
    parts += [
        sdf.sphere(0.07)
        .at(side * 0.42 * head, head_y + 0.12 * head, head_z + 0.78 * head)
        .colored(eyes)
        .named("eyes")
        for side in (-1.0, 1.0)
    ]
    parts.append(
        sdf.ellipsoid(0.065, 0.05, 0.06)
        .at(0.0, head_y - 0.16 * head, head_z + 0.89 * head)
        .colored(contrasting((0.93, 0.55, 0.60), body, DARK))
        .named("nose")
    )
    return parts
