"""Stylised heads: a bust built from parts, posed by a rig.

A bust faces +Z with +Y up, at rest keeps within the unit sphere (hair or a brim may leave it by 5 % when the head
is thrown back 20 degrees), and has one fixed scale and place, so that frames of an animation need no refitting.
Of a close-up, the face at rest fills the unit sphere, and the rest of the bust lies around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.world.head_hair import beard, glasses, hair, hat, moustache
from experiments.world.head_shape import (
    CLOTH,
    EYES,
    HAIR,
    JAW_DEPTH,
    JAW_Y,
    JAW_Z,
    SKIN,
    SKULL_DEPTH,
    SKULL_HEIGHT,
    SKULL_Y,
    HeadShape,
    Mouth,
    Rig,
    eye_centre,
    face_front,
    head_shape,
    mix,
    mouth,
)  # fmt: skip
from experiments.world.head_spec import (
    HeadSpec,
    fill,
    head_caption,
    held_out_head,
    is_head_caption,
    parse_head,
    sample_head,
)  # fmt: skip
from experiments.world.render import REACH
from experiments.world.sdf import Color, Part, Vec3, box, capsule, cylinder, ellipsoid, sphere, torus

__all__ = [
    "Head", "HeadSpec", "Rig", "build_head", "head_caption", "held_out_head", "is_head_caption", "landmarks",
    "make_head", "parse_head", "sample_head",
]  # fmt: skip

# Where the head's own origin and the neck joint lie on the bust.
_HEAD_Y = 0.13
_PIVOT: Vec3 = (0.0, -0.34, -0.04)
_BASE_Y = -0.80
_SHOULDERS_FOLLOW = 0.18
# In head coordinates.
_BROW_Y, _HAIRLINE_Y = 0.152, 0.35
_MAX_PARTS = 40
_WHITE: Color = (0.96, 0.96, 0.95)


@dataclass(frozen=True, slots=True)
class Head:
    """One person: a spec without gaps and proportions. Pose it as often as wanted."""

    spec: HeadSpec
    shape: HeadShape

    def face(self) -> tuple[Vec3, float]:
        """Centre and radius of the ball that the face fills at rest, hairline to chin and ear to ear, on the bust."""
        shape = self.shape
        top, chin = _HAIRLINE_Y, JAW_Y - shape.jaw_length
        radius = max((top - chin) / 2, shape.skull_width + 0.02)
        # As deep as makes the nose's tip touch the ball.
        nose = _nose(shape)
        z = nose.translation[2] + nose.params[2] - radius
        x, y, z = (value * shape.head_scale for value in (0.0, (top + chin) / 2, z))
        return (x, y + _HEAD_Y, z), radius * shape.head_scale

    @property
    def reach(self) -> float:
        """Radius of a ball about the origin that holds the bust in every pose."""
        if not self.spec.close_up:
            return REACH
        centre, radius = self.face()
        return (math.hypot(*centre) + REACH) / radius

    def parts(self, rig: Rig | None = None) -> list[Part]:
        """The bust's parts in this pose, in joining order."""
        rig = rig or Rig()
        spec, shape, lips = self.spec, self.shape, mouth(self.shape, rig)
        torso = [_turn(part, rig, _SHOULDERS_FOLLOW) for part in _torso(spec, shape)]
        hair_color = HAIR[spec.hair_color or "brown"]
        # The lids are cut out first: the cut must spare the face. The beard precedes the lips and the mouth.
        head = _lids(spec, shape, rig) + _face(spec, shape, lips)
        head += beard(shape, lips, hair_color) if spec.beard else []
        head += _lips(spec, shape, lips) + _eyes(spec, shape, rig) + _brows(shape, rig, hair_color)
        head += moustache(lips, hair_color) if spec.moustache else []
        head += hair(spec, hair_color, SKIN[spec.skin or "light"])
        head += glasses(shape, spec.glasses) if spec.glasses else []
        head += hat(CLOTH[spec.hat]) if spec.hat else []
        head += _glints(shape) if len(head) + len(torso) <= _MAX_PARTS - 2 else []
        turned = [_turn(part.scaled(shape.head_scale).at(0.0, _HEAD_Y, 0.0), rig, 1.0) for part in head]
        return [self._framed(part) for part in _trimmed(torso + turned)]

    def _framed(self, part: Part) -> Part:
        """A part of the bust where the caption has the picture taken: of the whole bust, or of its face."""
        if not self.spec.close_up:
            return part
        (x, y, z), radius = self.face()
        return part.at(-x, -y, -z).scaled(1 / radius)

    def landmarks(self, rig: Rig | None = None) -> dict[str, Tensor]:
        """World-space points `[3]` on the bust's surface; left is the head's own left (+X)."""
        rig = rig or Rig()
        shape, lips = self.shape, mouth(self.shape, rig)
        nose = _nose(shape)
        points: dict[str, Vec3] = {
            "mouth_left": (lips.half_width * 0.95, lips.middle, lips.front - 0.035),
            "mouth_right": (-lips.half_width * 0.95, lips.middle, lips.front - 0.035),
            "lip_top_inner": (0.0, lips.top, lips.front - 0.01),
            "lip_bottom_inner": (0.0, lips.bottom, lips.front - 0.01),
            "nose_tip": (0.0, nose.translation[1], nose.translation[2] + nose.params[2]),
            "chin": (0.0, JAW_Y - shape.jaw_length * 0.8 - lips.jaw_drop, JAW_Z + JAW_DEPTH * 0.6),
        }
        for name, side in (("eye_left", 1), ("eye_right", -1)):
            x, y, z = eye_centre(shape, side)
            points[name] = (x, y, z + shape.eye_radius)
        scale = shape.head_scale
        placed = {}
        for name, point in points.items():
            marker = sphere(0.01).at(*point).scaled(scale).at(0.0, _HEAD_Y, 0.0)
            placed[name] = torch.tensor(self._framed(_turn(marker, rig, 1.0)).translation)
        return placed


def make_head(spec: HeadSpec, rng: torch.Generator | None = None) -> Head:
    """The person a spec describes; what it leaves open is canonical without rng, else random."""
    filled = fill(spec, rng)
    return Head(filled, head_shape(filled, rng))


def build_head(spec: HeadSpec, rng: torch.Generator | None = None, rig: Rig | None = None) -> list[Part]:
    """Parts of the bust, +Y up, facing +Z, within the unit sphere; of a close-up's, the face within it.

    rng is drawn from: for several poses of one random person use `make_head` and `Head.parts`.
    """
    return make_head(spec, rng).parts(rig)


def landmarks(
    spec: HeadSpec, rng: torch.Generator | None = None, rig: Rig | None = None
) -> dict[str, Tensor]:
    """`Head.landmarks` of the person that build_head makes from an rng in the same state."""
    return make_head(spec, rng).landmarks(rig)


def _trimmed(parts: list[Part]) -> list[Part]:
    """At most the allowed number of parts: collar, spikes from the nape, then lashes go where all is worn at once."""
    for name in ("collar", "spike", "lashes"):
        for i in reversed([i for i, part in enumerate(parts) if part.name == name]):
            if len(parts) > _MAX_PARTS:
                parts = parts[:i] + parts[i + 1 :]
    return parts


def _turn(part: Part, rig: Rig, share: float) -> Part:
    x, y, z = _PIVOT
    part = part.at(-x, -y, -z).rotate_z(share * rig.roll_deg)
    # Shoulders lean and twist with the head, but a nod leaves them still.
    part = part.rotate_x(-rig.pitch_deg if share == 1.0 else 0.0)
    return part.rotate_y(share * rig.yaw_deg).at(x, y, z)


def _torso(spec: HeadSpec, shape: HeadShape) -> list[Part]:
    shirt, skin = CLOTH[spec.shirt or "blue"], SKIN[spec.skin or "light"]
    wide = shape.shoulders
    return [
        ellipsoid(0.50 * wide, 0.36, 0.30).at(0, -0.78, -0.02).colored(shirt).named("chest"),
        capsule(0.15, 0.35 * wide).rotate_z(90).at(0, -0.67, -0.02).smooth(0.12)
        .colored(shirt).named("shoulders"),
        box(1.0, 0.3, 1.0).at(0, _BASE_Y - 0.3, 0).colored(shirt).carve(0.05).named("base"),
        torus(shape.neck + 0.015, 0.038).at(0, -0.465, -0.03).smooth(0.015)
        .colored(mix(shirt, (0.0, 0.0, 0.0), 0.25)).named("collar"),
        cylinder(shape.neck, 0.2).at(0, -0.38, -0.03).colored(skin).named("neck"),
    ]  # fmt: skip


def _face(spec: HeadSpec, shape: HeadShape, lips: Mouth) -> list[Part]:
    skin = SKIN[spec.skin or "light"]
    parts = [
        ellipsoid(shape.skull_width, SKULL_HEIGHT, SKULL_DEPTH).at(0, SKULL_Y, 0).named("skull"),
        ellipsoid(shape.jaw_width, shape.jaw_length, JAW_DEPTH).at(0, JAW_Y - lips.jaw_drop, JAW_Z)
        .smooth(0.10).named("jaw"),
        _nose(shape),
    ]  # fmt: skip
    # Long and curly hair covers the ears.
    for side in (1, -1) if spec.hair_style not in ("long", "curly") else ():
        ear = ellipsoid(0.035, 0.085 * shape.ear, 0.06).rotate_y(side * -25).rotate_z(side * -8)
        parts.append(ear.at(side * (shape.skull_width + 0.025), 0.0, -0.03).smooth(0.02).named("ear"))
    return [part.colored(skin) for part in parts]


def _nose(shape: HeadShape) -> Part:
    size = 0.062 * (0.55 + 0.45 * shape.nose_size)
    y = -0.085
    return (
        ellipsoid(size * 0.95, size * 1.15 * shape.nose_length, size * 1.25)
        .at(0, y, face_front(shape, 0, y) + size * 0.25).smooth(0.05).named("nose")
    )  # fmt: skip


def _lids(spec: HeadSpec, shape: HeadShape, rig: Rig) -> list[Part]:
    """Half shells over the eyeballs; the cut's rim is dark and draws the lashes."""
    skin = mix(SKIN[spec.skin or "light"], (0.35, 0.12, 0.10), 0.16)
    feminine = spec.gender in ("woman", "girl")
    radius = shape.eye_radius * (1.15 if feminine else 1.10)
    lids, cuts = [], []
    for side, blink in ((1, rig.blink_left), (-1, rig.blink_right)):
        centre = eye_centre(shape, side)
        lids.append(sphere(radius).colored(skin).at(*centre).named("lid"))
        reach = 1.3 * radius
        open_deg = 38 + 6 * rig.gaze_y + 4 * rig.brow_raise
        edge = open_deg + (-46 - open_deg) * blink
        cut = box(reach, reach, reach).at(0, -reach, 0).rotate_x(-edge).colored((0.08, 0.06, 0.06))
        cuts.append(cut.at(*centre).carve().named("lashes"))
    return lids + cuts


def _eyes(spec: HeadSpec, shape: HeadShape, rig: Rig) -> list[Part]:
    iris = EYES[spec.eye_color or "blue"]
    radius = shape.eye_radius
    parts = []
    for side in (1, -1):
        # Iris and pupil are flatter spheres of which only a cap stands out of the eyeball.
        ball = sphere(radius).colored(_WHITE).named("eye")
        disc = sphere(0.90 * radius).at(0, 0, 0.13 * radius).colored(iris).named("iris")
        pupil = sphere(0.50 * radius).at(0, 0, 0.55 * radius).colored((0.03, 0.03, 0.04)).named("pupil")
        turned = [p.rotate_x(-22 * rig.gaze_y).rotate_y(28 * rig.gaze_x) for p in (ball, disc, pupil)]
        parts += [p.at(*eye_centre(shape, side)) for p in turned]
    return parts


def _glints(shape: HeadShape) -> list[Part]:
    """The light's reflection in each eye; it stays when the eye turns, and a closing lid swallows it."""
    r = shape.eye_radius
    glint = sphere(0.10 * r).at(0.20 * r, 0.24 * r, 0.97 * r).colored((1.0, 1.0, 1.0)).named("glint")
    return [glint.at(*eye_centre(shape, side)) for side in (1, -1)]


def _brows(shape: HeadShape, rig: Rig, color: Color) -> list[Part]:
    parts = []
    for side in (1, -1):
        x, y = side * (shape.eye_gap + 0.005), _BROW_Y + 0.045 * rig.brow_raise
        brow = capsule(0.024 * (0.4 + 0.6 * shape.brow), 0.058).rotate_z(90 + side * 2).rotate_y(side * 20)
        parts.append(brow.at(x, y, face_front(shape, x, y) + 0.008).colored(color).named("brow"))
    return parts


def _lips(spec: HeadSpec, shape: HeadShape, lips: Mouth) -> list[Part]:
    """Lips, the cavity carved between them, upper teeth and tongue."""
    skin = SKIN[spec.skin or "light"]
    feminine = spec.gender in ("woman", "girl")
    red = mix(skin, (0.80, 0.16, 0.22) if feminine else (0.66, 0.24, 0.22), 0.72 if feminine else 0.5)
    width, thick, opening = lips.half_width, lips.thickness, lips.opening
    # Each lip reaches from its outer edge to the middle of the opening: what remains of both is a ring.
    half = 0.5 * thick + 0.25 * opening
    depth = 0.05 + 0.25 * thick
    z = lips.front - depth
    parts = []
    # A moustache hides the upper lip's bow: one part does.
    for side in (1, -1) if not spec.moustache else ():
        upper = ellipsoid(width * 0.56, half * 1.08, depth).rotate_z(side * 7).rotate_y(side * 14)
        parts.append(upper.at(side * width * 0.44, lips.top + 0.5 * thick - 0.25 * opening, z))
    if spec.moustache:
        parts.append(ellipsoid(width * 0.95, half, depth).at(0, lips.top + 0.5 * thick - 0.25 * opening, z))
    parts.append(
        ellipsoid(width * 0.86, half * 1.1, depth).at(0, lips.bottom - 0.5 * thick + 0.25 * opening, z)
    )
    parts = [part.smooth(0.012).colored(red).named("lip") for part in parts]
    # Closed lips keep a dark slit, too shallow to open the mouth.
    deep = min(opening / 0.03, 1.0)
    cavity = ellipsoid(width * (0.90 - 0.06 * deep), max(0.5 * opening, 0.004), 0.03 + 0.17 * deep)
    parts.append(
        cavity.at(0, lips.middle, lips.front - 0.02 * deep)
        .colored((0.22, 0.04, 0.05))
        .carve(0.006)
        .named("cavity")
    )
    row = box(width * 0.60, 0.03, 0.02, 0.012).at(
        0, lips.top + 0.03 - 0.4 * min(opening, 0.12), lips.front - 0.06
    )
    tongue = ellipsoid(width * 0.55, 0.035, 0.09).at(0, lips.bottom - 0.012, lips.front - 0.14)
    return [*parts, row.colored(_WHITE).named("teeth"), tongue.colored((0.80, 0.36, 0.38)).named("tongue")]
