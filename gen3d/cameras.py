"""Pinhole cameras in glTF's convention, and the orbits they are taken from.

World: right-handed, +Y up, the object faces +Z and fits the unit sphere.
Camera: x right, y up, looks down -z. `azimuth_deg` 0 is in front (on +Z), 90 is on +X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Angles = float | Sequence[float] | Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras:
    """A batch of V cameras.

    c2w: `[V, 4, 4]` camera-to-world, float32.
    fovy_deg: `[V]` vertical field of view in degrees.
    """

    c2w: Tensor
    fovy_deg: Tensor

    def __post_init__(self) -> None:
        if self.c2w.ndim != 3 or self.c2w.shape[1:] != (4, 4):
            raise ValueError(f"c2w must have shape [V, 4, 4], got {list(self.c2w.shape)}")
        if self.fovy_deg.shape != self.c2w.shape[:1]:
            raise ValueError(
                f"fovy_deg must have shape [{self.c2w.shape[0]}], one angle a camera, "
                f"got {list(self.fovy_deg.shape)}"
            )

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: slice | Tensor | list[int]) -> Cameras:
        return Cameras(c2w=self.c2w[index], fovy_deg=self.fovy_deg[index])

    @staticmethod
    def cat(parts: Sequence[Cameras]) -> Cameras:
        """All of `parts`, in their order."""
        return Cameras(c2w=torch.cat([p.c2w for p in parts]), fovy_deg=torch.cat([p.fovy_deg for p in parts]))

    @property
    def device(self) -> torch.device:
        return self.c2w.device

    @property
    def w2c(self) -> Tensor:
        """`[V, 4, 4]` world-to-camera: the rigid inverse of `c2w`."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        w2c = torch.zeros_like(self.c2w)
        w2c[:, :3, :3] = rotation
        w2c[:, :3, 3] = -(rotation @ self.c2w[:, :3, 3:])[..., 0]
        w2c[:, 3, 3] = 1.0
        return w2c

    @property
    def positions(self) -> Tensor:
        """`[V, 3]` camera centres in the world."""
        return self.c2w[:, :3, 3]

    def angles(self) -> tuple[list[float], list[float]]:
        """Azimuths in -180..180 and elevations in -90..90 degrees from which the cameras see the origin."""
        towards = torch.nn.functional.normalize(self.positions, dim=-1)
        azimuths = torch.rad2deg(torch.atan2(towards[:, 0], towards[:, 2]))
        return azimuths.tolist(), torch.rad2deg(torch.asin(towards[:, 1].clamp(-1.0, 1.0))).tolist()

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(c2w=self.c2w.to(device), fovy_deg=self.fovy_deg.to(device))

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """World rays through the pixel centres: origins and unit directions, both `[V, H, W, 3]`.

        Row 0 is the top of the picture.
        """
        device = self.device
        y = (height / 2 - 0.5 - torch.arange(height, device=device)) / (height / 2)
        x = (torch.arange(width, device=device) + 0.5 - width / 2) / (height / 2)
        tan = torch.tan(torch.deg2rad(self.fovy_deg) / 2)[:, None, None]
        directions = torch.stack(
            torch.broadcast_tensors(x[None, None, :] * tan, y[None, :, None] * tan, -torch.ones_like(tan)),
            dim=-1,
        )
        directions = torch.nn.functional.normalize(directions, dim=-1)
        directions = torch.einsum("vij,vhwj->vhwi", self.c2w[:, :3, :3], directions)
        return self.positions[:, None, None].expand_as(directions), directions

    def pixel_rays(self, view: Tensor, row: Tensor, column: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """World rays through the centres of single pixels of square pictures, `size` along an edge: origins and unit
        directions, both `[N, 3]`; view, row (0 at the top) and column are int64 `[N]`."""
        tan = torch.tan(torch.deg2rad(self.fovy_deg) / 2)[view]
        x = (column + 0.5 - size / 2) / (size / 2) * tan
        y = (size / 2 - 0.5 - row) / (size / 2) * tan
        local = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1), dim=-1)
        rotation = self.c2w[:, :3, :3][view]
        return self.positions[view], (rotation * local[:, None]).sum(dim=-1)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points `[K, 3]` into all pictures: positions `[V, K, 2]` in [-1, 1] (x right, y down) and depth
        `[V, K]`.

        Square pictures; depth is the distance in front of the camera, negative behind it.
        """
        w2c = self.w2c
        local = torch.einsum("vij,kj->vki", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
        depth = -local[..., 2]
        focal = 1.0 / torch.tan(torch.deg2rad(self.fovy_deg) / 2)[:, None]
        scale = focal / depth.clamp_min(1e-6)
        return torch.stack([local[..., 0] * scale, -local[..., 1] * scale], dim=-1), depth

    def projection(self, near: float = 0.1, far: float = 10.0, aspect: float = 1.0) -> Tensor:
        """`[V, 4, 4]` OpenGL projection (camera to clip; z in [-w, w]); `aspect` is width / height."""
        f = 1.0 / torch.tan(torch.deg2rad(self.fovy_deg) / 2)
        matrix = torch.zeros(len(self), 4, 4, device=self.device)
        matrix[:, 0, 0] = f / aspect
        matrix[:, 1, 1] = f
        matrix[:, 2, 2] = -(far + near) / (far - near)
        matrix[:, 2, 3] = -2 * far * near / (far - near)
        matrix[:, 3, 2] = -1.0
        return matrix


def look_at(positions: Tensor, target: Tensor | None = None, *, up: Tensor | None = None) -> Tensor:
    """`[V, 4, 4]` camera-to-world of cameras at `positions [V, 3]` looking at `target [3]` or `[V, 3]` (the origin),
    `up` being up in the picture (+Y)."""
    target = torch.zeros(3, device=positions.device) if target is None else target
    normalize = torch.nn.functional.normalize
    back = normalize(positions - target, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], device=positions.device) if up is None else up
    up = up.expand_as(back)
    right = torch.linalg.cross(up, back)
    # Straight above or below, "up" says nothing about the right: the picture keeps +X to its right.
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6
    right = normalize(
        torch.where(degenerate, torch.tensor([1.0, 0.0, 0.0], device=right.device), right), dim=-1
    )
    c2w = torch.zeros(len(positions), 4, 4, device=positions.device)
    c2w[:, :3, 0] = right
    c2w[:, :3, 1] = torch.linalg.cross(back, right)
    c2w[:, :3, 2] = back
    c2w[:, :3, 3] = positions
    c2w[:, 3, 3] = 1.0
    return c2w


def fitting_distance(fovy_deg: Tensor) -> Tensor:
    """How far from the origin the unit sphere just fits a picture of this field of view, with 5 % to spare."""
    return 1.05 / torch.sin(torch.deg2rad(fovy_deg) / 2)


def orbit(
    azimuth_deg: Angles, elevation_deg: Angles, *, fovy_deg: Angles = 40.0, distance: Angles | None = None
) -> Cameras:
    """Cameras on a sphere about the origin, looking at it.

    Every argument is a number or V numbers (numbers are repeated). `distance` None puts each camera where the
    unit sphere just fits its picture, with 5 % to spare.
    """
    values = [azimuth_deg, elevation_deg, fovy_deg] + ([] if distance is None else [distance])
    azimuth, elevation, fovy, *rest = torch.broadcast_tensors(
        *[torch.atleast_1d(torch.as_tensor(v, dtype=torch.float32)) for v in values]
    )
    if not bool(((fovy > 0) & (fovy < 180)).all()):
        raise ValueError(f"fovy_deg must lie between 0 and 180 degrees, got {fovy.tolist()}")
    radius = rest[0] if rest else fitting_distance(fovy)
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    direction = torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()], dim=-1)
    return Cameras(c2w=look_at(direction * radius[:, None]), fovy_deg=fovy.clone())


def ring(
    num_views: int, *, azimuth_deg: float = 0.0, elevation_deg: float = 15.0, fovy_deg: float = 40.0
) -> Cameras:
    """`num_views` cameras evenly around the object, the first at `azimuth_deg`."""
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1, got {num_views}")
    azimuths = azimuth_deg + torch.arange(num_views) * (360.0 / num_views)
    return orbit(azimuths, elevation_deg, fovy_deg=fovy_deg)
