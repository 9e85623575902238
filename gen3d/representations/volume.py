"""A voxel grid of density and colour in the cube [-1, 1]^3: the field that views are fitted to.

The grid is one tensor `[R, R, R, 1 + C]` indexed `[x, y, z]`, voxel 0 on -1 and voxel R - 1 on +1, the last axis
(raw density, raw red, raw green, raw blue), or a model's latents in place of the colours. Raw values are interpolated
first and passed through their activation afterwards, so that a surface may lie anywhere between two voxels. One row of
the table holds everything about a voxel: a sample is eight row reads, and its gradient eight row writes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras
from gen3d.extraction import mesh_of_field
from gen3d.latent_colors import affine_rgb
from gen3d.render.rays import picture, render_field
from gen3d.representations import trilinear
from gen3d.representations.base import Field, Rendered, Shade
from gen3d.representations.cells import EMPTY, bounds_of, box_of, rows_of
from gen3d.representations.config import VolumeConfig
from gen3d.representations.hull import hull

if TYPE_CHECKING:
    from gen3d.asset import Mesh
    from gen3d.priors.base import ScoringPrior
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

_LEAST_DENSITY = 1e-6  # of a voxel that is made empty: its raw value must not be endless


class Volume(Field):
    """A density and colour field; see the module's docstring for the layout.

    grid: `[R, R, R, 1 + C]` raw values, the only tensor that learns. cell_density: `[(R-1)^3, 2]` least and greatest
    optical density at the corners of each cell, by which the renderer skips what is empty or hidden. It is as of the
    last `refresh()` and part of the state: a resumed run must skip exactly what the unbroken one skips. rgb_map:
    `[C + 1, 3]` from its colours to sRGB, of a volume of latents that has learnt it.
    """

    def __init__(
        self,
        grid: Tensor,
        settings: VolumeConfig | None = None,
        *,
        cell_density: Tensor | None = None,
        rgb_map: Tensor | None = None,
    ) -> None:
        self.grid, self.settings, self.rgb_map = grid, settings or VolumeConfig(), rgb_map
        width = 1 + self.num_channels
        if grid.ndim != 4 or grid.shape[3] != width or len(set(grid.shape[:3])) != 1 or grid.shape[0] < 2:
            raise ValueError(f"a volume's grid must have shape [R, R, R, {width}], got {list(grid.shape)}")
        self.num_samples = self.settings.num_samples
        self.cell_density = (
            cell_density if cell_density is not None else grid.new_zeros((self.resolution - 1) ** 3, 2)
        )
        self._bounds: tuple[Tensor, Tensor] | None = None
        if cell_density is None:
            self._note_densities()

    @property
    def resolution(self) -> int:
        return self.grid.shape[0]

    @property
    def device(self) -> torch.device:
        return self.grid.device

    @property
    def num_channels(self) -> int:
        return self.settings.num_channels

    def tensors(self) -> dict[str, Tensor]:
        learnt = {} if self.rgb_map is None else {"rgb_map": self.rgb_map}
        return {"grid": self.grid, "cell_density": self.cell_density, **learnt}

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        return {"grid": 1.0}

    def refresh(self) -> None:
        self._note_densities(dilate=1)

    @torch.no_grad()
    def _note_densities(self, dilate: int = 0) -> None:
        """Recompute `cell_density` from the grid; `dilate` > 0 also keeps that many cells around what is dense,
        into which a surface may grow before the next refresh."""
        raw = self.grid.detach()[..., 0][None, None]
        greatest = F.max_pool3d(raw, 2, stride=1)
        least = -F.max_pool3d(-raw, 2, stride=1)
        if dilate:
            greatest = F.max_pool3d(greatest, 2 * dilate + 1, stride=1, padding=dilate)
        self.cell_density = self.density_of(torch.stack([least.reshape(-1), greatest.reshape(-1)], dim=-1))
        self._bounds = None

    @torch.no_grad()
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Corners `[3]`, `[3]` of the box around every cell that is not empty."""
        if self._bounds is None:
            n = self.resolution - 1
            self._bounds = box_of((self.cell_density[:, 1] > EMPTY).view(n, n, n))
        return self._bounds

    def density_of(self, raw: Tensor) -> Tensor:
        """Raw density to optical density per unit length, same shape."""
        return F.softplus(self.settings.density_scale * raw)

    def raw_of(self, density: float) -> float:
        """The raw value whose optical density is `density`: the inverse of `density_of`."""
        return (density + math.log(-math.expm1(-density))) / self.settings.density_scale

    def density_bounds(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return bounds_of(self.cell_density, self.cells(points))

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.sample(points)
        colors = raw[:, 1:]
        return self.density_of(raw[:, 0]), colors if self.settings.latents else torch.sigmoid(colors)

    def learn_colors(self, prior: ScoringPrior) -> None:
        if self.settings.latents:
            self.rgb_map = affine_rgb(prior, self.device)

    def to_rgb(self, colors: Tensor, share: Tensor | float = 1.0) -> Tensor:
        if not self.settings.latents:
            return colors
        if self.rgb_map is None:
            raise ValueError("a volume of latents has no colours before it is distilled from a model")
        return colors @ self.rgb_map[:-1] + share * self.rgb_map[-1]

    def cells(self, points: Tensor) -> Tensor:
        """Row of `cell_density` that holds each of `points [..., 3]`: int64 `[...]`."""
        return rows_of(points, self.resolution - 1)

    def sample(self, points: Tensor) -> Tensor:
        """Raw values at `points [K, 3]`: `[K, 1 + C]`, differentiable in the grid. Outside the cube the nearest
        face's value holds."""
        return trilinear.sample(self.grid.view(-1, self.grid.shape[3]), points, self.resolution)

    def normals_at(self, points: Tensor) -> Tensor:
        """Outward unit normals `[K, 3]`: the direction of falling density, by central differences."""
        step = 2.0 / (self.resolution - 1)
        offsets = torch.eye(3, device=points.device) * step
        raw = self.sample((points[:, None, None] + torch.stack([-offsets, offsets])).reshape(-1, 3))[:, 0]
        low, high = raw.view(-1, 2, 3).unbind(1)
        return F.normalize(low - high, dim=-1)

    @torch.no_grad()
    def density_grid(self, resolution: int | None = None) -> np.ndarray:
        """Raw density `[n, n, n]` float32 indexed `[x, y, z]` on [-1, 1]^3; zero is a surface, inside is above."""
        raw = self.grid.detach()[..., 0]
        if resolution is not None and resolution != self.resolution:
            size = (resolution, resolution, resolution)
            raw = F.interpolate(raw[None, None], size=size, mode="trilinear", align_corners=True)[0, 0]
        return raw.cpu().numpy().astype(np.float32, copy=True)

    @torch.no_grad()
    def level(self, index: int) -> Volume:
        resolutions = self.settings.resolutions
        # What an earlier stage has made finer stays as fine.
        return self.upsample(max(resolutions[min(index, len(resolutions) - 1)], self.resolution))

    @torch.no_grad()
    def upsample(self, resolution: int) -> Volume:
        """The same field on `resolution`^3 voxels, for going from coarse to fine; itself where it has them."""
        if resolution == self.resolution:
            return self
        if resolution < self.resolution:
            raise ValueError(
                f"upsample goes from coarse to fine: {resolution} is below {self.resolution} voxels"
            )
        channels = self.grid.detach().permute(3, 0, 1, 2)[None]
        size = (resolution, resolution, resolution)
        grid = F.interpolate(channels, size=size, mode="trilinear", align_corners=True)
        return Volume(grid[0].permute(1, 2, 3, 0).contiguous(), self.settings, rgb_map=self.rgb_map)

    @torch.no_grad()
    def carve(self, views: Views, *, tolerance: float = 0.0) -> None:
        """The raw density becomes +-0.5 inside and outside the hull, with a linear ramp as wide as the silhouettes are
        soft."""
        n = self.resolution
        axis = torch.linspace(-1.0, 1.0, n, device=self.device)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        assert not self.settings.latents
        inside, color = hull(points, views, tolerance=tolerance)
        grid = self.grid.detach().view(-1, 4)
        grid[:, 0] = inside - 0.5
        grid[:, 1:] = torch.logit(color.clamp(0.02, 0.98))
        self._note_densities()

    def render(
        self,
        cameras: Cameras,
        size: int,
        background: Tensor,
        *,
        generator: torch.Generator | None = None,
        shade: Shade | None = None,
        normals: bool = False,
    ) -> Rendered:
        look: dict[str, Any] = {"shade": shade, "normals": normals}
        if generator is not None:
            return render_field(self, cameras, size, background, generator=generator, **look)
        self._note_densities()  # as they are; a picture needs no room for a surface to grow into
        return picture(self, cameras, size, background, num_samples=self.resolution, **look)

    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        return mesh_of_field(self, settings, views)

    def surface_grid(self, resolution: int, level: float | None) -> tuple[np.ndarray, float]:
        assert level is not None
        return self.density_grid(max(resolution, self.resolution)), self.raw_of(level)

    @property
    def detail(self) -> float:
        return 1.0 / (self.resolution - 1)

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        settings = self.settings
        if not (settings.density_tv or settings.color_tv):
            return {}
        density, color = self.total_variation(generator, settings.tv_fraction)
        return {"tv": settings.density_tv * density + settings.color_tv * color}

    def total_variation(self, generator: torch.Generator, fraction: float = 1.0) -> tuple[Tensor, Tensor]:
        """Mean squared difference of neighbouring raw densities, and of neighbouring colours: two scalars.

        `fraction` < 1 looks at a random slab of that share of the x planes, for speed; its mean is the same.
        """
        planes = max(2, round(self.resolution * fraction))
        low = int(
            torch.randint(self.resolution - planes + 1, (), generator=generator, device=generator.device)
        )
        slab = self.grid[low : low + planes]
        squares = [slab.diff(dim=axis).square().sum(dim=(0, 1, 2)) for axis in range(3)]
        total = torch.stack(squares).sum(dim=0) / (3.0 * slab[..., 0].numel())
        return total[0], total[1:].mean()


@torch.no_grad()
def sampled(field: Field, settings: VolumeConfig, device: torch.device | str = "cpu") -> Volume:
    """A volume of what a field holds at the voxels."""
    resolution = settings.resolutions[0]
    axis = torch.linspace(-1.0, 1.0, resolution, device=field.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    parts = [field.density_and_color(part) for part in points.split(1 << 16)]
    density = torch.cat([density for density, _ in parts]).clamp_min(_LEAST_DENSITY)
    color = field.to_rgb(torch.cat([color for _, color in parts]))
    # The inverse of softplus, stable for large values.
    raw = (density + torch.log(-torch.expm1(-density))) / settings.density_scale
    grid = torch.cat([raw[:, None], torch.logit(color.clamp(0.02, 0.98))], dim=1)
    return Volume(grid.view(resolution, resolution, resolution, 4).to(device), settings)


def blob(settings: VolumeConfig, device: torch.device | str = "cpu") -> Volume:
    """A volume that begins as a ball whose raw density falls linearly from the centre outwards."""
    axis = torch.linspace(-1.0, 1.0, settings.resolutions[0], device=device)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    grid = torch.zeros(*radius.shape, 1 + settings.num_channels, device=device)
    grid[..., 0] = settings.blob_strength * (1.0 - radius / settings.blob_radius)
    return Volume(grid, settings)
