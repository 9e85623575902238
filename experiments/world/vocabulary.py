"""The words of the caption grammar: colours, things and their parts, relations, backgrounds and synonyms."""

from __future__ import annotations

RGB = tuple[float, float, float]  # sRGB, each in [0, 1]

COLORS: dict[str, RGB] = {
    "red": (0.84, 0.13, 0.13),
    "green": (0.16, 0.60, 0.22),
    "blue": (0.13, 0.33, 0.84),
    "yellow": (0.98, 0.84, 0.13),
    "purple": (0.51, 0.20, 0.70),
    "orange": (0.98, 0.48, 0.07),
    "pink": (0.98, 0.56, 0.73),
    "white": (0.96, 0.96, 0.95),
    "black": (0.09, 0.09, 0.10),
    "brown": (0.43, 0.25, 0.12),
    "cyan": (0.13, 0.79, 0.85),
    "grey": (0.50, 0.51, 0.53),
}
COLOR_SYNONYMS = {"gray": "grey", "violet": "purple", "turquoise": "cyan"}

BACKGROUNDS: dict[str, RGB] = {
    "white": (1.00, 1.00, 1.00),
    "light grey": (0.83, 0.83, 0.84),
    "grey": (0.62, 0.63, 0.64),
    "dark grey": (0.27, 0.28, 0.29),
    "black": (0.03, 0.03, 0.03),
    "light blue": (0.74, 0.86, 0.96),
    "pale yellow": (0.98, 0.95, 0.78),
    "pale green": (0.80, 0.92, 0.80),
    "pale pink": (0.98, 0.86, 0.89),
}

SHAPES = ("sphere", "cube", "cylinder", "cone", "torus", "capsule", "pyramid")

# Per thing: the part its colour paints, then those a caption may colour apart. A closing "s" means plural.
PARTS: dict[str, tuple[str, ...]] = {
    "mug": ("body", "handle"),
    "chair": ("seat", "legs"),
    "table": ("top", "legs"),
    "mushroom": ("cap", "stem", "spots"),
    "snowman": ("body", "hat", "scarf"),
    "rocket": ("body", "fins", "nose"),
    "house": ("walls", "roof", "door"),
    "tree": ("crown", "trunk"),
    "car": ("body", "wheels"),
    "robot": ("body", "head", "arms"),
    "lamp": ("shade", "stand"),
    "hammer": ("head", "handle"),
    "boat": ("hull", "sail"),
    "cactus": ("body", "pot", "flower"),
    "cake": ("icing", "base"),
    "sword": ("blade", "handle", "guard"),
    "duck": ("body", "beak", "wings"),
    "cat": ("body", "collar"),
}
THINGS = (*SHAPES, *PARTS)

# The first word of each is what a caption says most often.
THING_WORDS: dict[str, tuple[str, ...]] = {
    **{thing: (thing,) for thing in THINGS},
    "sphere": ("sphere", "ball", "globe"),
    "cube": ("cube", "box", "block"),
    "torus": ("torus", "ring", "donut", "doughnut"),
    "capsule": ("capsule", "pill"),
    "mug": ("mug", "cup"),
    "mushroom": ("mushroom", "toadstool"),
    "rocket": ("rocket", "rocketship"),
    "house": ("house", "home"),
    "boat": ("boat", "sailboat"),
    "cat": ("cat", "kitten"),
    "robot": ("robot", "bot"),
    "duck": ("duck", "duckling"),
}
# Said by the sampler; the rest is only understood.
SAID_WORDS: dict[str, tuple[str, ...]] = {
    **{thing: (thing,) for thing in THINGS},
    "sphere": ("sphere", "ball"),
    "cube": ("cube", "box"),
    "torus": ("torus", "ring", "donut"),
}
PART_SYNONYMS: dict[str, str] = {
    "stalk": "stem",
    "dots": "spots",
    "wall": "walls",
    "fin": "fins",
    "leg": "legs",
    "wheel": "wheels",
    "tyres": "wheels",
    "tires": "wheels",
    "leaves": "crown",
    "foliage": "crown",
    "lampshade": "shade",
    "frosting": "icing",
    "sponge": "base",
    "hilt": "handle",
    "grip": "handle",
    "bill": "beak",
    "tabletop": "top",
    "sails": "sail",
    "arm": "arms",
    "wing": "wings",
    "spot": "spots",
    "crossguard": "guard",
}

# Relation -> phrases, the first being the plainest. Read: a <phrase> b, seen from the front (+Z).
RELATIONS: dict[str, tuple[str, ...]] = {
    "on": ("on", "on top of", "standing on", "sitting on", "atop", "upon"),
    "next_to": ("next to", "beside", "near", "by"),
    "left_of": ("left of", "to the left of", "on the left of"),
    "right_of": ("right of", "to the right of", "on the right of"),
    "in_front_of": ("in front of", "before"),
    "behind": ("behind",),
}
SAID_RELATIONS: dict[str, tuple[str, ...]] = {
    "on": ("on", "on", "on top of"),
    "next_to": ("next to", "next to", "beside"),
    "left_of": ("left of", "to the left of"),
    "right_of": ("right of", "to the right of"),
    "in_front_of": ("in front of",),
    "behind": ("behind",),
}
# Understood by swapping the two things.
SWAPPED: dict[str, str] = {"under": "on", "underneath": "on", "beneath": "on", "below": "on"}

FILLERS = frozenset(
    ("a", "an", "the", "one", "some", "single", "toy", "of", "is", "that", "which", "are", "and")
).union(("coloured", "colored", "painted"))
OPENINGS = ("photo", "picture", "image", "render", "rendering", "drawing", "model", "figure", "3d")


def is_plural(part: str) -> bool:
    """Whether a part's name takes no article ("black wheels", but "a black sail")."""
    return part.endswith("s")


def article(word: str) -> str:
    """The indefinite article that `word` takes."""
    return "an" if word[0] in "aeiou" else "a"
