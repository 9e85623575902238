"""The things of the procedural world, each a function from a palette to a list of coloured parts.

Conventions of every thing: +Y is up, the thing faces +Z, the ground is at about y = 0, sizes are arbitrary
(the scene builder fits the result into the unit sphere). `rng=None` gives canonical proportions.
"""

from __future__ import annotations

from experiments.world.things.living import cactus, cat, duck, mushroom, snowman, tree
from experiments.world.things.machines import boat, car, house, robot, rocket
from experiments.world.things.objects import cake, chair, hammer, lamp, mug, sword, table
from experiments.world.things.palette import Builder, Palette
from experiments.world.things.shapes import capsule, cone, cube, cylinder, pyramid, sphere, torus

BUILDERS: dict[str, Builder] = {
    "sphere": sphere,
    "cube": cube,
    "cylinder": cylinder,
    "cone": cone,
    "torus": torus,
    "capsule": capsule,
    "pyramid": pyramid,
    "mug": mug,
    "chair": chair,
    "table": table,
    "mushroom": mushroom,
    "snowman": snowman,
    "rocket": rocket,
    "house": house,
    "tree": tree,
    "car": car,
    "robot": robot,
    "lamp": lamp,
    "hammer": hammer,
    "boat": boat,
    "cactus": cactus,
    "cake": cake,
    "sword": sword,
    "duck": duck,
    "cat": cat,
}

__all__ = ["BUILDERS", "Builder", "Palette"]
