"""Household things: mug, chair, table, lamp, hammer, cake, sword."""

from __future__ import annotations

import math

from experiments.world import sdf
from experiments.world.sdf import Part
from experiments.world.things.palette import (
    BARK,
    CREAM,
    DARK,
    GLOW,
    GOLD,
    STEEL,
    WHITE,
    WOOD,
    Palette,
    Proportions,
    contrasting,
    mix,
    vary,
)


def mug(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A coffee mug, handle on the +X side."""
    body = palette.body(WHITE)
    radius, half = vary(rng, 0.62, 0.12), vary(rng, 0.70, 0.15)
    grip = vary(rng, 0.36, 0.12)
    return [
        sdf.cylinder(radius, half, rounding=0.07).colored(body).named("body"),
        sdf.torus(grip, 0.11)
        .rotate_x(90)
        .at(radius + 0.05, 0.0, 0.0)
        .colored(palette.part("handle", body))
        .named("handle"),
        sdf.cylinder(radius - 0.11, half, rounding=0.06)
        .at(0.0, 0.16, 0.0)
        .carve(0.03)
        .colored(mix(body, WHITE, 0.15)),
    ]


def chair(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A chair facing +Z: seat and back in the main colour, four stout legs."""
    body = palette.body(WOOD)
    legs = palette.part("legs", mix(body, DARK, 0.12))
    width, depth = vary(rng, 0.55, 0.15), vary(rng, 0.52, 0.12)
    leg, back = vary(rng, 0.36), vary(rng, 0.50)
    seat_y = 2.0 * leg + 0.08
    x, z = width - 0.10, depth - 0.10
    back_z = -depth + 0.09
    parts = [
        sdf.box(width, back, 0.085, rounding=0.08).at(0.0, seat_y + back, back_z).colored(body).named("back"),
        # The slot below the head rest; carved before the seat exists so that the seat stays whole.
        sdf.box(width - 0.17, back * 0.26, 0.3, rounding=0.06)
        .at(0.0, seat_y + 0.72 * back, back_z)
        .carve(0.02)
        .colored(body),
        sdf.box(width, 0.09, depth, rounding=0.07).at(0.0, seat_y, 0.0).colored(body).named("seat"),
    ]
    for sx, sz in ((-x, -z), (x, -z), (-x, z), (x, z)):
        post = sdf.cone(0.075, 0.095, leg + 0.03, rounding=0.03)
        parts.append(post.at(sx, leg, sz).colored(legs).named("legs"))
    return parts


def table(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A rectangular table, long side along X."""
    body = palette.body(WOOD)
    legs = palette.part("legs", mix(body, DARK, 0.12))
    width, depth, leg = vary(rng, 0.95, 0.12), vary(rng, 0.66, 0.12), vary(rng, 0.42)
    x, z = width - 0.16, depth - 0.16
    top_y = 2.0 * leg + 0.06
    parts = [sdf.box(width, 0.10, depth, rounding=0.07).at(0.0, top_y, 0.0).colored(body).named("top")]
    for sx, sz in ((-x, -z), (x, -z), (-x, z), (x, z)):
        post = sdf.cone(0.085, 0.115, leg + 0.02, rounding=0.03)
        parts.append(post.at(sx, leg, sz).colored(legs).named("legs"))
    return parts


def lamp(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A table lamp with a hollow shade."""
    body = palette.body((0.93, 0.80, 0.55))
    stand = palette.part("stand", contrasting(GOLD, body, (0.45, 0.33, 0.24)))
    bottom, top = vary(rng, 0.68, 0.12), vary(rng, 0.42, 0.15)
    half, stem = vary(rng, 0.42, 0.15), vary(rng, 0.48)
    shade_y = 2.0 * stem + half - 0.10
    rod = shade_y + half - 0.02
    return [
        sdf.cone(bottom, top, half, rounding=0.02).at(0.0, shade_y, 0.0).colored(body).named("shade"),
        sdf.cone(bottom - 0.08, top - 0.08, half, rounding=0.02)
        .at(0.0, shade_y - 0.10, 0.0)
        .carve()
        .colored(mix(body, GLOW, 0.12)),
        # The rod carries the shade by its closed top.
        sdf.cylinder(0.075, 0.5 * rod).at(0.0, 0.5 * rod, 0.0).colored(stand).named("stand"),
        sdf.sphere(0.17).at(0.0, shade_y - 0.05, 0.0).smooth(0.04).colored(GLOW).named("bulb"),
        sdf.cylinder(0.40, 0.07, rounding=0.06).at(0.0, 0.07, 0.0).smooth(0.10).colored(stand).named("stand"),
        sdf.sphere(0.10).at(0.0, shade_y + half + 0.02, 0.0).colored(stand).named("stand"),
    ]


def hammer(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A claw hammer standing on its handle; the face looks to +X, the claw to -X."""
    body = palette.body(STEEL)
    handle = palette.part("handle", contrasting(WOOD, body, CREAM))
    length, face = vary(rng, 0.62, 0.15), vary(rng, 0.29, 0.12)
    y = 2.0 * length
    return [
        sdf.ellipsoid(0.50, 0.17, 0.19).rotate_z(22).at(-0.42, y + 0.02, 0.0).colored(body).named("head"),
        sdf.box(0.34, 0.3, 0.055).rotate_z(22).at(-0.80, y - 0.1, 0.0).carve(0.02).colored(body),
        sdf.cylinder(0.19, 0.24).rotate_z(90).at(0.22, y, 0.0).smooth(0.06).colored(body).named("head"),
        sdf.cylinder(face, 0.15, rounding=0.05)
        .rotate_z(90)
        .at(0.52, y, 0.0)
        .smooth(0.05)
        .colored(body)
        .named("head"),
        sdf.box(0.21, 0.25, 0.21, rounding=0.06).at(0.0, y, 0.0).smooth(0.05).colored(body).named("head"),
        sdf.cone(0.135, 0.115, length, rounding=0.05).at(0.0, length, 0.0).colored(handle).named("handle"),
    ]


def cake(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A round cake under thick dripping icing, with one candle."""
    icing = palette.body((0.96, 0.62, 0.74))
    base = palette.part("base", contrasting((0.93, 0.76, 0.50), icing, (0.46, 0.28, 0.17)))
    radius, half = vary(rng, 0.80, 0.10), vary(rng, 0.40)
    top = 2.0 * half
    turn = 0.0 if rng is None else float(rng.uniform(0.0, 2.0 * math.pi))
    parts = [
        sdf.cylinder(radius, half, rounding=0.07).at(0.0, half, 0.0).colored(base).named("base"),
        sdf.cylinder(radius + 0.05, 0.21, rounding=0.10)
        .at(0.0, top - 0.14, 0.0)
        .colored(icing)
        .named("icing"),
    ]
    num_drips = 7
    for i in range(num_drips):
        angle = turn + 2.0 * math.pi * i / num_drips
        # Drips of alternating length; deterministic so that the canonical cake is one fixed picture.
        drop = (0.22 + 0.14 * ((i * 3) % 4) / 3.0) * half
        parts.append(
            sdf.capsule(0.10, drop)
            .at((radius - 0.03) * math.sin(angle), top - 0.28 - drop, (radius - 0.03) * math.cos(angle))
            .smooth(0.05)
            .colored(icing)
            .named("icing")
        )
    candle_y = top + 0.26
    return [
        *parts,
        sdf.cylinder(0.065, 0.22, rounding=0.02)
        .at(0.0, candle_y, 0.0)
        .colored(contrasting((0.96, 0.94, 0.90), icing, (0.45, 0.70, 0.92)))
        .named("candle"),
        sdf.ellipsoid(0.08, 0.13, 0.08)
        .at(0.0, candle_y + 0.31, 0.0)
        .colored((1.0, 0.72, 0.20))
        .named("flame"),
    ]


def sword(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A toy sword standing on its pommel, blade up, flat side to +Z."""
    body = palette.body(STEEL)
    handle = palette.part("handle", contrasting(BARK, body, DARK))
    guard = palette.parts.get("guard", contrasting(GOLD, body, STEEL))
    width, length, cross = vary(rng, 0.19, 0.15), vary(rng, 0.72, 0.12), vary(rng, 0.44, 0.15)
    blade_y = 0.72
    # A square turned by 45 degrees has its side corners exactly at the blade's edges and makes the point.
    tip = width / math.sqrt(2.0)
    return [
        sdf.box(width, length, 0.065, rounding=0.02)
        .at(0.0, blade_y + length, 0.0)
        .colored(body)
        .named("blade"),
        sdf.box(tip, tip, 0.065, rounding=0.02)
        .rotate_z(45)
        .at(0.0, blade_y + 2.0 * length - 0.02, 0.0)
        .colored(body)
        .named("blade"),
        sdf.box(0.055, length, 0.095, rounding=0.04)
        .at(0.0, blade_y + length - 0.08, 0.0)
        .smooth(0.03)
        .colored(mix(body, WHITE, 0.2))
        .named("blade"),
        sdf.box(cross, 0.085, 0.13, rounding=0.08).at(0.0, blade_y, 0.0).colored(guard).named("guard"),
        sdf.cylinder(0.105, 0.26, rounding=0.03).at(0.0, 0.44, 0.0).colored(handle).named("handle"),
        sdf.sphere(0.165).at(0.0, 0.15, 0.0).colored(guard).named("guard"),
    ]
