"""The numbers of a head: its rig, its proportions and colours, and where eyes and mouth lie for them.

Head coordinates: the origin lies between the ears, +Y up, the face looks to +Z, +X is the head's own left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from experiments.world.head_spec import HeadSpec
from experiments.world.sdf import Color, Vec3

SKIN: dict[str, Color] = {
    "pale": (0.97, 0.84, 0.77), "light": (0.94, 0.76, 0.64), "tan": (0.84, 0.63, 0.45),
    "brown": (0.62, 0.41, 0.27), "dark": (0.40, 0.25, 0.17),
}  # fmt: skip
HAIR: dict[str, Color] = {
    "black": (0.11, 0.10, 0.11), "brown": (0.36, 0.22, 0.13), "blond": (0.91, 0.74, 0.38),
    "red": (0.72, 0.27, 0.10), "grey": (0.55, 0.55, 0.57), "white": (0.92, 0.92, 0.90),
    "pink": (0.95, 0.45, 0.68), "blue": (0.18, 0.38, 0.85), "green": (0.20, 0.65, 0.32),
    "purple": (0.52, 0.25, 0.72),
}  # fmt: skip
EYES: dict[str, Color] = {
    "brown": (0.38, 0.21, 0.10), "blue": (0.20, 0.47, 0.80), "green": (0.25, 0.55, 0.30),
    "grey": (0.48, 0.53, 0.57),
}  # fmt: skip
CLOTH: dict[str, Color] = {
    "red": (0.80, 0.16, 0.15), "green": (0.18, 0.58, 0.27), "blue": (0.16, 0.36, 0.76),
    "yellow": (0.95, 0.80, 0.20), "purple": (0.50, 0.24, 0.65), "orange": (0.94, 0.52, 0.14),
    "pink": (0.95, 0.55, 0.70), "white": (0.93, 0.93, 0.92), "black": (0.13, 0.13, 0.14),
    "brown": (0.45, 0.28, 0.16), "cyan": (0.25, 0.75, 0.80), "grey": (0.52, 0.53, 0.55),
}  # fmt: skip


def mix(a: Color, b: Color, share: float) -> Color:
    """`share` of b in a."""
    x, y, z = (p + (q - p) * share for p, q in zip(a, b, strict=True))
    return (x, y, z)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """The pose of a face: mouth and lids in [0, 1], gaze in [-1, 1], head angles in degrees.

    Left and right are the head's own (left is +X). gaze_x > 0 and yaw_deg > 0 turn to the head's left,
    gaze_y > 0 and pitch_deg > 0 look up, roll_deg > 0 tilts the crown to the head's right.
    """

    jaw_open: float = 0.0
    lips_pucker: float = 0.0
    lips_stretch: float = 0.0
    lips_press: float = 0.0
    lips_funnel: float = 0.0
    upper_lip_raise: float = 0.0
    lower_lip_raise: float = 0.0
    blink_left: float = 0.0
    blink_right: float = 0.0
    brow_raise: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_deg"):
                low, high = -180.0, 180.0
            else:
                low, high = (-1.0 if field.name.startswith("gaze") else 0.0), 1.0
            if not low <= value <= high:
                raise ValueError(f"Rig.{field.name} must lie in [{low:g}, {high:g}], got {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadShape:
    """Proportions of one person in head coordinates (lengths in world units)."""

    head_scale: float
    skull_width: float
    jaw_width: float
    jaw_length: float
    eye_radius: float
    eye_gap: float
    nose_size: float
    nose_length: float
    mouth_half_width: float
    lip: float
    ear: float
    brow: float
    shoulders: float
    neck: float


# Scale of head, jaw width, jaw length, eye, nose, lip, brow, shoulders, neck radius.
_BY_GENDER = {
    "man": (1.09, 0.345, 0.30, 0.095, 1.0, 0.030, 1.0, 1.0, 0.165),
    "woman": (1.08, 0.315, 0.285, 0.104, 0.78, 0.038, 0.62, 0.86, 0.125),
    "boy": (1.11, 0.335, 0.265, 0.108, 0.74, 0.030, 0.72, 0.80, 0.125),
    "girl": (1.11, 0.325, 0.260, 0.112, 0.66, 0.034, 0.55, 0.74, 0.11),
}


def head_shape(spec: HeadSpec, rng: torch.Generator | None) -> HeadShape:
    """Proportions for a filled spec: typical without rng, else varied by some per cent."""
    scale, jaw, length, eye, nose, lip, brow, shoulders, neck = _BY_GENDER[spec.gender or "man"]

    def vary(value: float, share: float) -> float:
        if rng is None:
            return value
        return value * (1 + share * (2 * float(torch.rand((), generator=rng, device=rng.device)) - 1))

    return HeadShape(
        head_scale=vary(scale, 0.02),
        skull_width=vary(0.395, 0.04),
        jaw_width=vary(jaw, 0.08),
        jaw_length=vary(length, 0.07),
        eye_radius=vary(eye, 0.08),
        eye_gap=vary(0.155, 0.05),
        nose_size=vary(nose, 0.25),
        nose_length=vary(1.0, 0.2),
        mouth_half_width=vary(0.118 if spec.gender in ("man", "woman") else 0.10, 0.12),
        lip=vary(lip, 0.2),
        ear=vary(1.0, 0.15),
        brow=vary(brow, 0.2),
        shoulders=vary(shoulders, 0.05),
        neck=vary(neck, 0.08),
    )


EYE_Y = 0.02
MOUTH_Y = -0.225


@dataclass(frozen=True, kw_only=True, slots=True)
class Mouth:
    """Where the rig puts the lips, in head coordinates."""

    half_width: float
    top: float  # y of the upper lip's inner edge
    bottom: float  # y of the lower lip's inner edge
    thickness: float
    front: float  # z of the lips' foremost line
    jaw_drop: float

    @property
    def opening(self) -> float:
        return self.top - self.bottom

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def mouth(shape: HeadShape, rig: Rig) -> Mouth:
    """Lip positions; pressed lips are closed however far the jaw is open."""
    free = 1 - rig.lips_press
    rise = free * (0.022 * rig.upper_lip_raise + 0.012 * rig.lips_funnel)
    drop = free * (0.165 * rig.jaw_open + 0.028 * rig.lips_funnel) - 0.035 * rig.lower_lip_raise
    opening = max(rise + drop, 0.0)
    # Closed lips ride down a little with the jaw, and up with a raised lower lip.
    top = MOUTH_Y + rise + 0.018 * rig.lower_lip_raise - 0.03 * rig.jaw_open * rig.lips_press
    width = 1 - 0.42 * rig.lips_pucker - 0.3 * rig.lips_funnel + 0.28 * rig.lips_stretch - 0.1 * rig.jaw_open
    thickness = 1 + 0.25 * rig.lips_pucker + 0.2 * rig.lips_funnel - 0.2 * rig.lips_stretch
    thickness -= 0.6 * rig.lips_press
    return Mouth(
        half_width=shape.mouth_half_width * max(width, 0.35),
        top=top,
        bottom=top - opening,
        thickness=shape.lip * thickness,
        front=face_front(shape, 0.0, MOUTH_Y) + 0.022 + 0.045 * rig.lips_pucker + 0.03 * rig.lips_funnel
        - 0.012 * rig.lips_press,
        jaw_drop=0.085 * rig.jaw_open,
    )  # fmt: skip


SKULL_Y, SKULL_HEIGHT, SKULL_DEPTH = 0.07, 0.42, 0.395
JAW_Y, JAW_Z, JAW_DEPTH = -0.20, 0.045, 0.335


def face_front(shape: HeadShape, x: float, y: float) -> float:
    """z of the resting face's skin at (x, y), nose and lips left out."""

    def front(centre: tuple[float, float], radii: Vec3) -> float:
        rest = 1 - (x / radii[0]) ** 2 - ((y - centre[0]) / radii[1]) ** 2
        return centre[1] + radii[2] * math.sqrt(max(rest, 0.0))

    skull = front((SKULL_Y, 0.0), (shape.skull_width, SKULL_HEIGHT, SKULL_DEPTH))
    jaw = front((JAW_Y, JAW_Z), (shape.jaw_width, shape.jaw_length, JAW_DEPTH))
    return max(skull, jaw)


def eye_centre(shape: HeadShape, side: int) -> Vec3:
    """Centre of the eyeball; side +1 is the head's left."""
    x = side * shape.eye_gap
    return (x, EYE_Y, face_front(shape, x, EYE_Y) - 0.58 * shape.eye_radius)
