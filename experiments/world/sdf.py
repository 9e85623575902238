"""Signed distance functions of the procedural world: primitives, how they combine, and their batched evaluation.

Two kinds of primitive suffice. A *superprimitive* is a rounded-rectangle cross-section swept along +Y with a taper,
optionally hollowed to a shell and rounded: box, cylinder, cone, capsule, torus, tube and pyramid are settings of its
seven numbers. An *ellipsoid* is the other. So a scene is a table of numbers, and many scenes evaluate as one tensor
expression, on a CPU or a GPU, with nothing but torch.

Legend: S scenes, P parts, N points. Distances are in world units (an asset fits the unit sphere), negative inside.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Color = tuple[float, float, float]
Vec3 = tuple[float, float, float]
Mat3 = tuple[Vec3, Vec3, Vec3]

_IDENTITY: Mat3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# Columns of a superprimitive's parameters.
_HALF_X, _HALF_Z, _CORNER, _SHELL, _HEIGHT, _INSET, _ROUND = range(7)
_SOLID = -1.0


@dataclass(frozen=True, slots=True)
class Part:
    """One primitive, placed and coloured, and how it joins what stands before it in the list.

    `params` is a superprimitive's seven numbers (half x, half z, corner radius, shell half-thickness or -1 for
    solid, half height, inset of the top, rounding) or an ellipsoid's three radii. `color` is sRGB in [0, 1].
    """

    params: tuple[float, ...]
    rotation: Mat3 = _IDENTITY
    translation: Vec3 = (0.0, 0.0, 0.0)
    color: Color = (0.7, 0.7, 0.7)
    blend: float = 0.0
    carves: bool = False
    name: str = ""

    @property
    def is_ellipsoid(self) -> bool:
        return len(self.params) == 3

    def at(self, x: float, y: float, z: float) -> Part:
        """Move by `(x, y, z)`."""
        t = self.translation
        return replace(self, translation=(t[0] + x, t[1] + y, t[2] + z))

    def rotate_x(self, deg: float) -> Part:
        c, s = _cos_sin(deg)
        return self._rotated(((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c)))

    def rotate_y(self, deg: float) -> Part:
        c, s = _cos_sin(deg)
        return self._rotated(((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)))

    def rotate_z(self, deg: float) -> Part:
        c, s = _cos_sin(deg)
        return self._rotated(((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0)))

    def _rotated(self, m: Mat3) -> Part:
        """Turn about the world's origin, after whatever was done before."""
        return replace(self, rotation=_matmul(m, self.rotation), translation=_apply(m, self.translation))

    def scaled(self, factor: float) -> Part:
        """Scale uniformly about the world's origin."""
        params = tuple(
            v if i == _SHELL and v < 0 and len(self.params) == 7 else v * factor
            for i, v in enumerate(self.params)
        )
        t = self.translation
        return replace(self, params=params, blend=self.blend * factor,
                       translation=(t[0] * factor, t[1] * factor, t[2] * factor))  # fmt: skip

    def colored(self, color: Color) -> Part:
        return replace(self, color=(float(color[0]), float(color[1]), float(color[2])))

    def named(self, name: str) -> Part:
        return replace(self, name=name)

    def smooth(self, radius: float) -> Part:
        """Join with a smooth union of this radius; colours blend across it."""
        return replace(self, blend=radius)

    def carve(self, radius: float = 0.0) -> Part:
        """Subtract this part from everything before it; the cut takes this part's colour."""
        return replace(self, carves=True, blend=radius)


def _cos_sin(deg: float) -> tuple[float, float]:
    return math.cos(math.radians(deg)), math.sin(math.radians(deg))


def _apply(m: Mat3, v: Vec3) -> Vec3:
    x, y, z = (row[0] * v[0] + row[1] * v[1] + row[2] * v[2] for row in m)
    return (x, y, z)


def _matmul(a: Mat3, b: Mat3) -> Mat3:
    columns = [_apply(a, (b[0][j], b[1][j], b[2][j])) for j in range(3)]
    x, y, z = ((columns[0][i], columns[1][i], columns[2][i]) for i in range(3))
    return (x, y, z)


# -- Primitives ------------------------------------------------------------------------------------------------------


def box(hx: float, hy: float, hz: float, rounding: float = 0.0) -> Part:
    """Box of half sizes `hx, hy, hz`; edges rounded within them."""
    r = min(rounding, hx, hy, hz)
    return Part((hx - r, hz - r, 0.0, _SOLID, hy - r, 0.0, r))


def cylinder(r: float, h: float, rounding: float = 0.0) -> Part:
    """Cylinder of radius `r` and half height `h` along +Y."""
    e = min(rounding, r, h)
    return Part((r - e, r - e, r - e, _SOLID, h - e, 0.0, e))


def capsule(r: float, h: float) -> Part:
    """Capsule along +Y: a segment of half length `h` grown by `r`."""
    return Part((0.0, 0.0, 0.0, _SOLID, h, 0.0, r))


def cone(r_bottom: float, r_top: float, h: float, rounding: float = 0.0) -> Part:
    """Capped cone along +Y, half height `h`; `r_top` 0 gives a point."""
    e = min(rounding, max(r_bottom, r_top), h)
    bottom, top = max(r_bottom - e, 0.0), max(r_top - e, 0.0)
    return Part((bottom, bottom, bottom, _SOLID, h - e, bottom - top, e))


def torus(R: float, r: float) -> Part:
    """Ring of radius `R` in the XZ plane, tube radius `r`."""
    return Part((R, R, R, 0.0, 0.0, 0.0, r))


def tube(r: float, h: float, thickness: float, rounding: float = 0.0) -> Part:
    """Open pipe along +Y, outer radius `r`, half height `h`, wall `thickness`."""
    e = min(rounding, thickness / 2)
    middle = r - thickness / 2
    return Part((middle, middle, middle, thickness / 2 - e, h - e, 0.0, e))


def pyramid(half_base: float, h: float, rounding: float = 0.0) -> Part:
    """Square pyramid, half height `h`, apex up."""
    e = min(rounding, half_base / 2, h / 2)
    return Part((half_base - e, half_base - e, 0.0, _SOLID, h - e, half_base - e, e))


def ellipsoid(rx: float, ry: float, rz: float) -> Part:
    return Part((rx, ry, rz))


def sphere(r: float) -> Part:
    return capsule(r, 0.0)


# -- Batched evaluation ----------------------------------------------------------------------------------------------


class _Shape(enum.Enum):
    """Which distance formula a place in the table needs; the special ones are only quicker."""

    CAPSULE = enum.auto()
    STRAIGHT = enum.auto()  # a solid superprimitive without taper
    SUPER = enum.auto()
    ELLIPSOID = enum.auto()
    MIXED = enum.auto()


def _shape(part: Part) -> _Shape:
    v = part.params
    if part.is_ellipsoid:
        return _Shape.ELLIPSOID
    if v[_SHELL] >= 0 or v[_INSET] != 0:
        return _Shape.SUPER
    return _Shape.CAPSULE if v[_HALF_X] == v[_HALF_Z] == 0 else _Shape.STRAIGHT


def _common_shape(parts: Sequence[Part]) -> _Shape:
    shapes = {_shape(part) for part in parts}
    if len(shapes) == 1:
        return shapes.pop()
    return _Shape.MIXED if _Shape.ELLIPSOID in shapes else _Shape.SUPER


@dataclass(frozen=True, slots=True)
class Field:
    """S scenes as tensors, shorter ones padded with parts far away. Made by `compile_parts`.

    params `[S, P, 7]` (an ellipsoid holds its radii in the first three), rotation `[S, P, 3, 3]` local to world,
    translation `[S, P, 3]`, color `[S, P, 3]`, blend `[S, P]`, sign `[S, P]` (+1 joins, -1 carves),
    ellipsoid `[S, P]` bool. `shapes[p]` is the simplest formula that serves every scene at place p, `hard[p]`
    whether all of them join there by a plain union.
    """

    params: Tensor
    rotation: Tensor
    translation: Tensor
    color: Tensor
    blend: Tensor
    sign: Tensor
    ellipsoid: Tensor
    shapes: tuple[_Shape, ...]
    hard: tuple[bool, ...]

    @property
    def num_scenes(self) -> int:
        return self.params.shape[0]

    def to(self, device: torch.device | str) -> Field:
        moved = {n: getattr(self, n).to(device)
                 for n in ("params", "rotation", "translation", "color", "blend", "sign", "ellipsoid")}  # fmt: skip
        return replace(self, **moved)

    def sdf(self, points: Tensor) -> Tensor:
        """Distance at `points [S, N, 3]`: `[S, N]`."""
        xyz = points.transpose(1, 2).contiguous()
        total = self._part_distance(xyz, 0)
        for p in range(1, len(self.shapes)):
            distance = self._part_distance(xyz, p)
            if self.hard[p]:
                total = torch.minimum(total, distance)
            else:
                sign, k = self.sign[:, p, None], self.blend[:, p, None]
                total = sign * _smooth_min(sign * total, distance, k)
        return total

    def sdf_and_albedo(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Distance `[S, N]` and sRGB albedo `[S, N, 3]` at `points [S, N, 3]`."""
        xyz = points.transpose(1, 2).contiguous()
        total = self._part_distance(xyz, 0)
        color = self.color[:, 0, None].expand(*total.shape, 3)
        for p in range(1, len(self.shapes)):
            distance = self._part_distance(xyz, p)
            sign, k = self.sign[:, p, None], self.blend[:, p, None]
            share = (0.5 + 0.5 * (sign * total - distance) / (k + 1e-6)).clamp(0, 1)
            color = torch.lerp(color, self.color[:, p, None].expand_as(color), share[..., None])
            total = sign * _smooth_min(sign * total, distance, k)
        return total, color

    def normals(self, points: Tensor, eps: float = 2e-3) -> Tensor:
        """Unit gradient `[S, N, 3]` by central differences on a tetrahedron's four corners."""
        corners = torch.tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], device=points.device).to(
            points
        )
        gradient = torch.zeros_like(points)
        for corner in corners:
            gradient = gradient + corner * self.sdf(points + eps * corner)[..., None]
        return torch.nn.functional.normalize(gradient, dim=-1)

    def _part_distance(self, xyz: Tensor, p: int) -> Tensor:
        """Distance to part p of every scene, `[S, N]`, at `xyz [S, 3, N]`."""
        rotation = self.rotation[:, p]
        origin = self.translation[:, p, None] @ rotation
        x, y, z = torch.baddbmm(-origin.transpose(1, 2), rotation.transpose(1, 2), xyz).unbind(1)
        v = self.params[:, p, :, None]
        shape = self.shapes[p]
        if shape is _Shape.CAPSULE:
            over = (y.abs() - v[:, _HEIGHT]).clamp_(min=0)
            return (x * x).addcmul_(z, z).addcmul_(over, over).sqrt_() - v[:, _ROUND]
        if shape is _Shape.ELLIPSOID:
            return _ellipsoid_distance(x, y, z, v)
        if shape is _Shape.STRAIGHT:
            return _straight_distance(x, y, z, v)
        if shape is _Shape.SUPER:
            return _super_distance(x, y, z, v)
        return torch.where(
            self.ellipsoid[:, p, None], _ellipsoid_distance(x, y, z, v), _super_distance(x, y, z, v)
        )


def compile_parts(scenes: Sequence[Sequence[Part]], device: torch.device | str = "cpu") -> Field:
    """Tables of parts (one list a scene) to one `Field`."""
    if not scenes or any(not parts for parts in scenes):
        raise ValueError(
            "a scene needs at least one part, got none: give every scene a non-empty list of parts"
        )
    length = max(len(parts) for parts in scenes)
    nowhere = sphere(0.01).at(0.0, 100.0, 0.0)
    padded = [list(parts) + [nowhere] * (length - len(parts)) for parts in scenes]

    def table(value: str) -> Tensor:
        return torch.tensor(
            [[getattr(part, value) for part in parts] for parts in padded], dtype=torch.float32
        )

    params = torch.tensor(
        [[part.params + (0.0,) * (7 - len(part.params)) for part in parts] for parts in padded]
    )
    columns = list(zip(*padded, strict=True))
    return Field(
        params=params,
        rotation=table("rotation"),
        translation=table("translation"),
        color=table("color"),
        blend=table("blend"),
        sign=1.0 - 2.0 * table("carves"),
        ellipsoid=table("is_ellipsoid").bool(),
        shapes=tuple(_common_shape(c) for c in columns),
        hard=tuple(all(q.blend == 0 and not q.carves for q in c) for c in columns),
    ).to(device)


def _smooth_min(a: Tensor, b: Tensor, k: Tensor) -> Tensor:
    """Polynomial smooth minimum of radius `k` (0 gives the plain one)."""
    h = (k - (a - b).abs()).clamp(min=0)
    return torch.minimum(a, b) - h * h / (4 * k + 1e-9)


def _outline(x: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """Signed distance, in the XZ plane, to the cross-section's rounded rectangle."""
    corner = v[:, _CORNER]
    dx = x.abs().sub_(v[:, _HALF_X] - corner)
    dz = z.abs().sub_(v[:, _HALF_Z] - corner)
    within = torch.maximum(dx, dz).clamp_(max=0)
    dx, dz = dx.clamp_(min=0), dz.clamp_(min=0)
    return (dx * dx).addcmul_(dz, dz).sqrt_().add_(within).sub_(corner)


def _straight_distance(x: Tensor, y: Tensor, z: Tensor, v: Tensor) -> Tensor:
    q = _outline(x, z, v)
    over = y.abs().sub_(v[:, _HEIGHT])
    within = torch.maximum(q, over).clamp_(max=0)
    q, over = q.clamp_(min=0), over.clamp_(min=0)
    return (q * q).addcmul_(over, over).sqrt_().add_(within).sub_(v[:, _ROUND])


def _super_distance(x: Tensor, y: Tensor, z: Tensor, v: Tensor) -> Tensor:
    shell, height, inset = v[:, _SHELL], v[:, _HEIGHT], v[:, _INSET]
    q = _outline(x, z, v)
    # A shell keeps what lies near the outline.
    q = torch.where(shell < 0, q, q.abs() - shell)
    # Exact distance in the (q, y) half-plane to {|y| <= h, q left of the slanted side}.
    rise = y + height
    slant = (2 * height * rise - q * inset) / (inset * inset + 4 * height * height + 1e-12)
    slant = slant.clamp_(0, 1)
    side_q, side_y = q + inset * slant, rise - 2 * height * slant
    bottom, top, above = q.clamp(min=0), (q + inset).clamp_(min=0), y - height
    d2 = (side_q * side_q).addcmul_(side_y, side_y)
    d2 = torch.minimum(d2, (bottom * bottom).addcmul_(rise, rise))
    d2 = torch.minimum(d2, (top * top).addcmul_(above, above))
    d = d2.sqrt_()
    inside = torch.maximum(2 * height * q + inset * rise, y.abs() - height) < 0
    return torch.where(inside, -d, d).sub_(v[:, _ROUND])


def _ellipsoid_distance(x: Tensor, y: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """First-order distance: exact on the surface and for a sphere, a few per cent off nearby."""
    rx, ry, rz = v[:, 0], v[:, 1], v[:, 2]
    x, y, z = x / rx, y / ry, z / rz
    k0 = (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()
    x, y, z = x / rx, y / ry, z / rz
    k1 = (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()
    # The small terms make the centre, where both are zero, come out at minus the least radius.
    least = torch.minimum(torch.minimum(rx, ry), rz)
    return (k0 + 1e-4) * (k0 - 1) / (k1 + 1e-4 / least)


def fit_unit_sphere(parts: Sequence[Part], margin: float = 0.95) -> list[Part]:
    """Scale and centre `parts` as one so that their surface lies within radius `margin` of the origin.

    The extent is measured on the field itself, so that carved-away matter does not count.
    """
    field = compile_parts([parts])
    bound = max(math.dist(part.translation, (0, 0, 0)) + _reach(part) for part in parts)
    n = 40
    axis = torch.linspace(-bound, bound, n)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3)
    distance = field.sdf(grid)[0]
    # Thin tips slip through a grid: points about every part, in all directions, look for them as well.
    steps = torch.tensor([-1.0, 0.0, 1.0])
    around = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3)
    tips = [torch.tensor(part.translation) + around * _reach(part) for part in parts if not part.carves]
    points = torch.cat([grid[0][distance.abs() < bound / n * 2], *tips])
    # Pulled onto the surface, they sample it densely enough to bound it.
    for _ in range(10):
        points = points - field.normals(points[None])[0] * field.sdf(points[None])[0][:, None]
    points = points[field.sdf(points[None])[0].abs() < 0.03 * bound]
    if len(points) == 0:
        raise ValueError("the parts have no surface: everything is carved away")
    low, high = points.amin(0), points.amax(0)
    centre = (low + high) / 2
    radius = float((points - centre).norm(dim=-1).max())
    factor = margin / radius
    x, y, z = centre.tolist()
    return [part.at(-x, -y, -z).scaled(factor) for part in parts]


def _reach(part: Part) -> float:
    """Radius of a ball about the part's own centre that holds it."""
    v = part.params
    if part.is_ellipsoid:
        return max(v)
    wide = max(v[_HALF_X], v[_HALF_Z]) + max(v[_SHELL], 0.0) + max(-v[_INSET], 0.0)
    return math.hypot(wide * math.sqrt(2), v[_HEIGHT]) + v[_ROUND]
