"""A cloud of anisotropic Gaussians: rendered by splatting, meshed through the density that they add up to.

Legend: N splats, K = (degree + 1)^2 coefficients of spherical harmonics, V views, S x S pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from scipy.spatial import KDTree
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen3d.cameras import Cameras
from gen3d.extraction import mesh_of_grid
from gen3d.metrics import sample_surface
from gen3d.render.spherical_harmonics import FIRST, basis
from gen3d.render.splats import composite, project, rotation_matrices
from gen3d.representations.base import Field, Rendered, Representation, Shade
from gen3d.representations.gaussians import GaussiansConfig
from gen3d.representations.splat_control import control
from gen3d.representations.splat_density import densities, peaks
from gen3d.splat_ply import encode_splats
from gen3d.texture import surface_colors

if TYPE_CHECKING:
    from gen3d.asset import Mesh
    from gen3d.surface import SurfaceConfig
    from gen3d.views import Views

LEARNT = ("means", "features", "opacities", "scales", "rotations")
TENSORS = (*LEARNT, "probe", "pulls", "steps")
# Of splats on a surface: thickness by their width, and opacity.
_FLATNESS, _SOLID = 0.25, 0.95
_NEIGHBOURS = 16  # that a colour between splats is taken from


class _Probe(torch.autograd.Function):
    """Centres as they are; the gradient of `probe [N, 2]` is the sum over pictures of the length of each centre's
    gradient, and the number of pictures in which it has one. So it is summed over processes as gradients are."""

    @staticmethod
    def forward(ctx: Any, centres: Tensor, probe: Tensor) -> Tensor:
        return centres.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        length = grads[0].norm(dim=-1)
        return grads[0], torch.stack([length.sum(0), (length > 0).to(length).sum(0)], dim=-1)


class SplatCloud(Representation):
    """N splats.

    means: `[N, 3]`, world. features: `[N, K, 3]` coefficients of spherical harmonics; a colour is 0.5 + their sum.
    opacities: `[N]` logits. scales: `[N, 3]` logarithms of the standard deviations along the splat's own axes, world
    units. rotations: `[N, 4]` quaternions (w, x, y, z) of those axes. probe: `[N, 2]` zeros that never change; see
    `_Probe`. pulls: `[N, 2]` sums of its gradient since splats were last doubled. steps: scalar, taken so far.
    """

    def __init__(self, tensors: Mapping[str, Tensor], settings: GaussiansConfig | None = None) -> None:
        self.settings = settings or GaussiansConfig()
        self._tensors = dict(tensors)
        count = len(tensors["means"])
        wanted = {
            "means": [count, 3], "features": [count, (self.settings.degree + 1) ** 2, 3], "opacities": [count],
            "scales": [count, 3], "rotations": [count, 4], "probe": [count, 2], "pulls": [count, 2], "steps": [],
        }  # fmt: skip
        for name, shape in wanted.items():
            if list(tensors[name].shape) != shape:
                raise ValueError(f"gaussians {name} must have shape {shape}, got {list(tensors[name].shape)}")

    def __len__(self) -> int:
        return len(self._tensors["means"])

    @property
    def device(self) -> torch.device:
        return self._tensors["means"].device

    @property
    def means(self) -> Tensor:
        return self._tensors["means"]

    @property
    def lengths(self) -> Tensor:
        """`[N, 3]` standard deviations along the splat's own axes."""
        return self._tensors["scales"].exp()

    @property
    def axes(self) -> Tensor:
        """`[N, 3, 3]`, the splat's own axes in the columns."""
        return rotation_matrices(self._tensors["rotations"])

    @property
    def opacities(self) -> Tensor:
        """`[N]` in (0, 1)."""
        return self._tensors["opacities"].sigmoid()

    @property
    def colors(self) -> Tensor:
        """`[N, 3]` sRGB in [0, 1], from everywhere."""
        return (0.5 + FIRST * self._tensors["features"][:, 0]).clamp(0.0, 1.0)

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._tensors)

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        own = self.settings
        return {
            "means": own.position_rate * own.position_decay**progress,
            "features": own.feature_rate,
            "opacities": own.opacity_rate,
            "scales": own.scale_rate,
            "rotations": own.rotation_rate,
            "probe": 0.0,
        }

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
        means, own = self.means, self.settings
        seen = project(
            means,
            self.lengths,
            self._tensors["rotations"],
            self.opacities,
            cameras,
            size,
            antialias=own.antialias,
        )
        if self._tensors["probe"].requires_grad:
            centres = cast(Tensor, _Probe.apply(seen.centres, self._tensors["probe"]))
            seen = dataclasses.replace(seen, centres=centres)
        towards = cameras.positions[:, None] - means
        distance = towards.norm(dim=-1, keepdim=True)
        colors = self._colors_from(-towards / distance)
        facing = self._normals_to(towards) if normals or shade is not None else None
        if shade is not None:
            assert facing is not None
            lit = [
                shade(cast(Field, _Known(each)), means, color)
                for each, color in zip(facing, colors, strict=True)
            ]
            colors = torch.stack(lit)
        layers = [colors, distance] + ([facing] if normals and facing is not None else [])
        sums, remaining = composite(seen, torch.cat(layers, dim=-1), size, backend=own.backend)
        sums = sums.permute(0, 3, 1, 2)
        remaining = remaining[:, None]
        return Rendered(
            images=(sums[:, :3] + remaining * background.to(means)[:, :, None, None]).clamp(0.0, 1.0),
            opacity=1.0 - remaining,
            depth=sums[:, 3:4],
            normals=sums[:, 4:] if normals else None,
        )

    def _colors_from(self, directions: Tensor) -> Tensor:
        """`[V, N, 3]` as they are seen along unit `directions [V, N, 3]`."""
        features = self._tensors["features"]
        if self.settings.degree == 0:
            return (0.5 + FIRST * features[:, 0]).clamp_min(0.0).expand(len(directions), -1, -1)
        return (
            0.5 + torch.einsum("vnk,nkc->vnc", basis(directions, self.settings.degree), features)
        ).clamp_min(0.0)

    def _normals_to(self, towards: Tensor) -> Tensor:
        """`[V, N, 3]` unit: the shortest axis of each splat, on the side of `towards [V, N, 3]`."""
        shortest = self._tensors["scales"].detach().argmin(dim=1)
        normal = self.axes.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
        side = (normal.detach() * towards.detach()).sum(dim=-1, keepdim=True)
        return torch.where(side < 0, -normal, normal)

    @torch.no_grad()
    def after_step(
        self, gradients: Mapping[str, Tensor], progress: float, generator: torch.Generator
    ) -> Mapping[str, Tensor] | None:
        self._tensors["features"][:, 0].clamp_(-0.5 / FIRST, 0.5 / FIRST)
        self._tensors["steps"] += 1
        if "probe" in gradients:
            self._tensors["pulls"] += gradients["probe"]
        return control(self._tensors, self.settings, progress, generator)

    def regularisers(self, generator: torch.Generator) -> dict[str, Tensor]:
        own, losses = self.settings, {}
        if own.scale_weight:
            losses["scale"] = own.scale_weight * self.lengths.mean()
        if own.flat_weight:
            losses["flat"] = own.flat_weight * self.lengths.amin(dim=1).mean()
        return losses

    def files(self) -> dict[str, bytes]:
        return {"gaussians.ply": encode_splats(self._tensors)}

    @torch.no_grad()
    def to_mesh(self, settings: SurfaceConfig, views: Views | None) -> Mesh:
        assert settings.level is not None, "refused by check_level"
        grid = self.density_grid(settings.resolution).cpu().numpy()
        mesh = mesh_of_grid(grid, settings.level, settings, views).to(self.device)
        return mesh.replace(vertex_colors=self.colors_at(mesh.vertices))

    @torch.no_grad()
    def density_grid(self, resolution: int) -> Tensor:
        """Optical density per unit length `[R, R, R]` indexed [x, y, z], voxel 0 on -1 and voxel R - 1 on +1."""
        return densities(self.means, self.lengths, self.axes, self.opacities, resolution)

    @torch.no_grad()
    def colors_at(self, points: Tensor) -> Tensor:
        """Colours `[P, 3]` at `points [P, 3]`: of the splats about them, each by its density there."""
        count = min(_NEIGHBOURS, len(self))
        _, nearest = KDTree(self.means.cpu().numpy()).query(points.cpu().numpy(), k=count)
        which = torch.from_numpy(nearest).reshape(-1, count).to(self.device)
        own = torch.einsum("pkij,pki->pkj", self.axes[which], points[:, None] - self.means[which])
        squared = (own / self.lengths[which]).square().sum(dim=-1)
        # Far from all of them the nearest must still have a colour: the least exponent is taken away from each.
        weight = torch.exp(-0.5 * (squared - squared.amin(dim=1, keepdim=True)))
        weight = weight * peaks(self.lengths, self.opacities)[which]
        return (weight[..., None] * self.colors[which]).sum(dim=1) / weight.sum(dim=1, keepdim=True)


class _Known:
    """What lamps ask of a field, for points whose normals are known."""

    def __init__(self, normals: Tensor) -> None:
        self.normals = normals

    def normals_at(self, points: Tensor) -> Tensor:
        return self.normals


def ball(settings: GaussiansConfig, device: torch.device | str = "cpu") -> SplatCloud:
    """Grey round splats, evenly in a ball."""
    generator = torch.Generator().manual_seed(0)
    direction = F.normalize(torch.randn(settings.num_points, 3, generator=generator), dim=-1)
    radius = torch.rand(settings.num_points, 1, generator=generator) ** (1.0 / 3.0)
    means = settings.radius * radius * direction
    upright = torch.tensor([0.0, 0.0, 1.0]).expand_as(means)
    colors, lengths = torch.full_like(means, 0.5), _spacing(means)[:, None].expand(-1, 3)
    return _cloud(means, colors, settings.opacity, lengths, upright, settings, device)


def on_surface(mesh: Mesh, settings: GaussiansConfig, device: torch.device | str = "cpu") -> SplatCloud:
    """Flat splats, evenly on a mesh, with its colours."""
    mesh, generator = mesh.detach().to("cpu"), torch.Generator().manual_seed(0)
    means, faces, weights = sample_surface(mesh, settings.num_points, generator=generator)
    first, second, third = mesh.vertices[mesh.faces[faces]].unbind(1)
    normals = F.normalize(torch.linalg.cross(second - first, third - first), dim=-1)
    lengths = _spacing(means)[:, None] * torch.tensor([1.0, 1.0, _FLATNESS])
    return _cloud(means, surface_colors(mesh, faces, weights), _SOLID, lengths, normals, settings, device)


def _spacing(means: Tensor) -> Tensor:
    """`[N]` root mean square distance to the three nearest others."""
    distance, _ = KDTree(means.numpy()).query(means.numpy(), k=4)
    return torch.from_numpy(distance)[:, 1:].float().square().mean(dim=1).sqrt().clamp_min(1e-4)


def _cloud(
    means: Tensor,
    colors: Tensor,
    opacity: float,
    lengths: Tensor,
    normals: Tensor,
    settings: GaussiansConfig,
    device: torch.device | str,
) -> SplatCloud:
    """Splats whose third axes are the unit `normals`."""
    count = len(means)
    features = torch.zeros(count, (settings.degree + 1) ** 2, 3)
    features[:, 0] = (colors - 0.5) / FIRST
    x, y, z = normals.unbind(-1)
    turned = torch.stack([1.0 + z, -y, x, torch.zeros_like(z)], dim=-1)  # the shortest way from +Z
    over = torch.tensor([0.0, 1.0, 0.0, 0.0])
    tensors = {
        "means": means,
        "features": features,
        "opacities": torch.full((count,), opacity).logit(),
        "scales": lengths.log(),
        "rotations": torch.where(z[:, None] < -0.9999, over, F.normalize(turned, dim=-1)),
        "probe": torch.zeros(count, 2),
        "pulls": torch.zeros(count, 2),
        "steps": torch.zeros(()),
    }
    return SplatCloud({name: each.contiguous().to(device) for name, each in tensors.items()}, settings)
