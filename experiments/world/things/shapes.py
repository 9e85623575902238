"""The seven plain shapes."""

from __future__ import annotations

from experiments.world import sdf
from experiments.world.sdf import Part
from experiments.world.things.palette import Palette, Proportions, vary

_CLAY = (0.80, 0.79, 0.77)


def sphere(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A ball."""
    return [sdf.sphere(1.0).colored(palette.body(_CLAY)).named("body")]


def cube(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A cube with softened edges, faces along the axes."""
    edge = vary(rng, 0.08, 0.5)
    return [sdf.box(0.8, 0.8, 0.8, rounding=edge).colored(palette.body(_CLAY)).named("body")]


def cylinder(palette: Palette, rng: Proportions = None) -> list[Part]:
    """An upright cylinder."""
    radius, half_height = vary(rng, 0.62), vary(rng, 0.80)
    return [sdf.cylinder(radius, half_height, rounding=0.05).colored(palette.body(_CLAY)).named("body")]


def cone(palette: Palette, rng: Proportions = None) -> list[Part]:
    """An upright cone with a slightly blunt tip."""
    radius, half_height = vary(rng, 0.78, 0.15), vary(rng, 0.86, 0.15)
    return [sdf.cone(radius, 0.05, half_height, rounding=0.04).colored(palette.body(_CLAY)).named("body")]


def torus(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A ring lying flat, like a donut on a plate."""
    ring, tube = vary(rng, 0.68, 0.1), vary(rng, 0.30)
    return [sdf.torus(ring, tube).colored(palette.body(_CLAY)).named("body")]


def capsule(palette: Palette, rng: Proportions = None) -> list[Part]:
    """An upright capsule."""
    radius, half_length = vary(rng, 0.46), vary(rng, 0.52)
    return [sdf.capsule(radius, half_length).colored(palette.body(_CLAY)).named("body")]


def pyramid(palette: Palette, rng: Proportions = None) -> list[Part]:
    """A square pyramid with the apex up."""
    half_base, half_height = vary(rng, 0.80, 0.15), vary(rng, 0.66)
    return [sdf.pyramid(half_base, half_height, rounding=0.03).colored(palette.body(_CLAY)).named("body")]
