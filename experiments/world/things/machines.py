"""Vehicles, the robot and the house."""

from __future__ import annotations

import math

from experiments.world import sdf
from experiments.world.sdf import Part
from experiments.world.things.palette import (
    BARK,
    CREAM,
    DARK,
    GLASS,
    GLOW,
    STEEL,
    TYRE,
    WHITE,
    WOOD,
    Palette,
    Proportions,
    contrasting,
    mix,
    tapered_box,
    vary,
)


def rocket(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A retro rocket on four fins with a porthole to +Z."""
    body = palette.body(WHITE)
    fins = palette.part("fins", contrasting((0.88, 0.88, 0.88), body, (0.82, 0.18, 0.16)))
    nose = palette.part("nose", fins)
    girth, half, spread = vary(rng, 0.50, 0.12), vary(rng, 1.10, 0.10), vary(rng, 0.50, 0.10)
    y = 0.30 + half
    window_y, window_z = y + 0.22 * half, 0.955 * girth
    parts = [
        sdf.ellipsoid(girth, half, girth).at(0.0, y, 0.0).colored(body).named("body"),
        sdf.cone(0.56 * girth, 0.035, 0.20 * half, rounding=0.03)
        .at(0.0, y + 0.98 * half, 0.0)
        .colored(nose)
        .named("nose"),
        sdf.cone(0.30, 0.20, 0.16, rounding=0.03)
        .at(0.0, 0.34, 0.0)
        .colored(mix(DARK, STEEL, 0.35))
        .named("nozzle"),
        sdf.torus(0.17, 0.055)
        .rotate_x(90)
        .at(0.0, window_y, window_z)
        .colored(contrasting(STEEL, body, DARK))
        .named("window"),
        sdf.ellipsoid(0.17, 0.17, 0.06)
        .at(0.0, window_y, window_z)
        .colored((0.55, 0.80, 0.95))
        .named("window"),
    ]
    for turn in (45.0, 135.0, 225.0, 315.0):
        angle = math.radians(turn)
        parts.append(
            sdf.box(0.23, 0.40, 0.08, rounding=0.07)
            .rotate_z(24)
            .rotate_y(turn)
            .at(spread * math.cos(angle), 0.44, -spread * math.sin(angle))
            .colored(fins)
            .named("fins")
        )
    return parts


def house(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A gabled house, door to +Z."""
    walls = palette.body((0.94, 0.88, 0.76))
    roof = palette.part("roof", contrasting((0.36, 0.29, 0.28), walls, (0.72, 0.33, 0.24)))
    door = palette.part("door", contrasting(BARK, walls, CREAM))
    width, half, depth = vary(rng, 0.72, 0.10), vary(rng, 0.56, 0.14), vary(rng, 0.68, 0.12)
    eave = 2.0 * half
    # The gable is a square prism turned by 45 degrees: its diagonal is the width of the house.
    gable = width / math.sqrt(2.0)
    slab = 0.5 * (math.sqrt(2.0) * width + 0.24)
    reach = slab / math.sqrt(2.0)
    parts = [
        sdf.box(width, half, depth).at(0.0, half, 0.0).colored(walls).named("walls"),
        sdf.box(gable, gable, depth).rotate_z(45).at(0.0, eave, 0.0).colored(walls).named("walls"),
    ]
    parts += [
        sdf.box(slab, 0.075, depth + 0.11, rounding=0.03)
        .rotate_z(-45 * side)
        .at(side * (reach + 0.0), eave + width - reach + 0.06, 0.0)
        .colored(roof)
        .named("roof")
        for side in (-1.0, 1.0)
    ]
    parts += [
        sdf.box(0.11, 0.26, 0.11, rounding=0.02)
        .at(0.5 * width, eave + 0.72 * width, -0.35 * depth)
        .colored(contrasting((0.60, 0.32, 0.25), roof, (0.80, 0.78, 0.74)))
        .named("chimney"),
        sdf.box(0.17, 0.34, 0.05, rounding=0.03).at(0.0, 0.34, depth).colored(door).named("door"),
        sdf.cylinder(0.15, 0.05, rounding=0.02)
        .rotate_x(90)
        .at(0.0, eave + 0.10, depth)
        .colored(GLASS)
        .named("window"),
        # One bar through the house gives a window on either side.
        sdf.box(width + 0.04, 0.19, 0.22, rounding=0.03)
        .at(0.0, 1.15 * half, 0.0)
        .colored(GLASS)
        .named("window"),
    ]
    return parts


def car(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A small rounded car driving towards +Z."""
    body = palette.body((0.85, 0.16, 0.15))
    wheels = palette.part("wheels", contrasting(TYRE, body, (0.33, 0.33, 0.36)))
    hubs = contrasting(STEEL, wheels, WHITE)
    glass = contrasting((0.62, 0.80, 0.90), body, (0.25, 0.32, 0.40))
    width, length = vary(rng, 0.52, 0.08), vary(rng, 1.02, 0.10)
    cabin, roof = vary(rng, 0.52, 0.12), vary(rng, 0.30, 0.12)
    wheel = vary(rng, 0.26, 0.10)
    deck = wheel + 0.19
    cabin_y = deck + 0.20 + roof
    taper, back = 0.13, -0.14
    parts = [
        sdf.box(width, 0.25, length, rounding=0.18).at(0.0, deck, 0.0).colored(body).named("body"),
        tapered_box(width - 0.04, roof, cabin + 0.12, taper, rounding=0.09)
        .at(0.0, cabin_y, back)
        .smooth(0.05)
        .colored(body)
        .named("body"),
    ]
    # Glass is a slightly larger, narrower copy of the cabin: one lengthwise, one crosswise.
    for across, along in ((-0.015, -0.04), (-0.145, 0.145)):
        parts.append(
            tapered_box(width + across, roof * 0.62, cabin + along, 0.62 * taper, rounding=0.05)
            .at(0.0, cabin_y + 0.06, back)
            .colored(glass)
            .named("windows")
        )
    axle = 0.60 * length
    for z in (-axle, axle):
        parts += [
            sdf.cylinder(wheel, 0.12, rounding=0.05)
            .rotate_z(90)
            .at(side * (width - 0.03), wheel, z)
            .colored(wheels)
            .named("wheels")
            for side in (-1.0, 1.0)
        ]
        # One bar through the car is the hub of both wheels of an axle.
        parts.append(
            sdf.cylinder(0.5 * wheel, width + 0.11, rounding=0.03)
            .rotate_z(90)
            .at(0.0, wheel, z)
            .colored(hubs)
            .named("hubs")
        )
    parts += [
        sdf.sphere(0.10).at(side * 0.62 * width, deck + 0.03, length - 0.05).colored(GLOW).named("lights")
        for side in (-1.0, 1.0)
    ]
    return parts


def robot(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A square toy robot."""
    body = palette.body(STEEL)
    head = palette.part("head", body)
    arms = palette.part("arms", mix(body, DARK, 0.25))
    dark = contrasting((0.20, 0.22, 0.26), body, (0.45, 0.48, 0.52))
    width, half, skull = vary(rng, 0.46, 0.10), vary(rng, 0.42, 0.10), vary(rng, 0.38, 0.10)
    leg = vary(rng, 0.28, 0.12)
    body_y = 2.0 * leg + half - 0.04
    head_y = body_y + half + 0.38
    parts = [
        sdf.box(width, half, 0.34, rounding=0.09).at(0.0, body_y, 0.0).colored(body).named("body"),
        sdf.cylinder(0.15, 0.2).at(0.0, body_y + half, 0.0).colored(dark).named("neck"),
        sdf.box(skull, 0.31, 0.31, rounding=0.09).at(0.0, head_y, 0.0).colored(head).named("head"),
        sdf.box(skull * 0.80, 0.135, 0.05, rounding=0.04)
        .at(0.0, head_y + 0.03, 0.30)
        .colored(dark)
        .named("visor"),
        sdf.box(0.24, 0.15, 0.05, rounding=0.03)
        .at(0.0, body_y + 0.08, 0.33)
        .colored(contrasting((0.96, 0.93, 0.86), body, (0.35, 0.40, 0.48)))
        .named("panel"),
        sdf.cone(0.085, 0.05, 0.16).at(0.0, head_y + 0.42, 0.0).colored(dark).named("antenna"),
        sdf.sphere(0.11)
        .at(0.0, head_y + 0.60, 0.0)
        .colored(contrasting((0.95, 0.30, 0.22), body, (0.98, 0.82, 0.20)))
        .named("antenna"),
    ]
    for side in (-1.0, 1.0):
        parts += [
            sdf.capsule(0.125, 0.30)
            .rotate_z(8 * side)
            .at(side * (width + 0.12), body_y - 0.02, 0.0)
            .colored(arms)
            .named("arms"),
            sdf.box(0.17, leg, 0.22, rounding=0.06).at(side * 0.24, leg, 0.03).colored(arms).named("legs"),
            sdf.sphere(0.085)
            .at(side * 0.42 * skull, head_y + 0.03, 0.32)
            .colored((0.45, 0.95, 0.95))
            .named("eyes"),
        ]
    # The visor lies over the head, so that eyes come last and stay in front.
    return parts


def boat(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A sailing boat, bow to +Z, the sail in the plane of its course."""
    hull = palette.body((0.80, 0.20, 0.17))
    sail = palette.part("sail", contrasting(WHITE, hull, (0.72, 0.84, 0.93)))
    wood = contrasting(WOOD, hull, (0.86, 0.74, 0.55))
    width, depth, length = vary(rng, 0.52, 0.10), vary(rng, 0.58, 0.10), vary(rng, 1.05, 0.08)
    half, foot = vary(rng, 0.54, 0.12), vary(rng, 0.64, 0.10)
    sail_y, sail_z = depth + 0.20 + half, -0.24 * length
    slope = math.degrees(math.atan2(foot, 2.0 * half))
    edge = 0.5 * math.hypot(foot, 2.0 * half)
    parts = [
        sdf.ellipsoid(width, depth, length).at(0.0, depth, 0.0).colored(hull).named("hull"),
        # No wider than the boat: a neighbour in the same scene must not be cut.
        sdf.box(width + 0.04, depth, length + 0.04).at(0.0, 2.0 * depth, 0.0).carve(0.03).colored(hull),
        sdf.ellipsoid(width - 0.12, 0.30, length - 0.22).at(0.0, depth, 0.0).carve(0.03).colored(wood),
        sdf.box(0.06, half, foot).at(0.0, sail_y, sail_z).colored(sail).named("sail"),
    ]
    # Two slanted boxes cut the sail's slab into a triangle; they stay above the hull.
    parts += [
        sdf.box(0.2, edge + 0.04, 0.5 * foot)
        .at(0.0, -edge, side * 0.5 * foot)
        .rotate_x(-slope * side)
        .at(0.0, sail_y + half, sail_z)
        .carve()
        .colored(sail)
        for side in (-1.0, 1.0)
    ]
    # The mast's foot goes into the hull below the cockpit's floor.
    foot_y = depth - 0.36
    mast = 0.5 * (sail_y + half + 0.08 - foot_y)
    parts.append(
        sdf.cylinder(0.075, mast, rounding=0.03).at(0.0, foot_y + mast, sail_z).colored(wood).named("mast")
    )
    return parts
