"""Taking the light out of colours that were seen under it.

Views show a surface under some light. A texture must show the surface's own colour, or light counts twice when the
asset is lit again. Nothing is known of the light but what the views show, so it is fitted, in linear light:

    color = albedo * shading,    log shading = a . Y(normal) + b * facing - c * occlusion

The light is taken to be white, far away and fixed to the world: Y are the real spherical harmonics of degrees 1 and
2, which hold what such light does to a matt surface to within a few per cent (Ramamoorthi and Hanrahan 2001, "An
efficient representation for irradiance environment maps"). b >= 0 is a lamp that goes with the camera, c >= 0 how much
hollows darken.

Albedo is taken to be constant in pieces: of two points of like chromaticity, close together above all, most have one
albedo. Each such pair says how shading differs between its two normals; those with two albedos are outliers to a
robust fit (Geman and McClure, by reweighted least squares). How strong the light is cannot be seen at all: a surface
without hollows that turns its face to the light and to the camera is taken to show its own colour.

Where the pairs do not agree, coefficients are pulled to those of light as pictures of objects mostly have it: from
above, from in front, and with the camera. Colours never change by more than a bound.

Legend: K samples (a surface point in a view), N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.delight_config import DelightConfig
from gen3d.metrics import mesh_occupancy

_LUMINANCE = (0.2126, 0.7152, 0.0722)
# Added to linear colours: below this, differences are noise and reflections.
_DARK = 1e-2
_NUM_DIRECTIONAL = 8
# So scaled, occlusion varies about as much as the other features do.
_HOLLOWS = 4.0
# Usual light, and how far light may well be from it: coefficients of x, y, z, of degree 2, of facing and of occlusion.
# The light under which `experiments.world` shows its scenes has 0.05, 0.6, 0.2 and 0.4, 0.2 in the mean.
_USUAL = (0.0, 0.4, 0.2, *(0.0,) * 5, 0.3, 0.15)
_SPREAD = (0.25, 0.25, 0.25, *(0.1,) * 5, 0.2, 0.1)
# A pair is a random sample with the closest of so many others.
_CANDIDATES = 4
_MIN_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What views show of a surface: linear colors `[K, 3]` in [0, 1], points and unit normals `[K, 3]` in the
    world, facing `[K]`, the cosine between normal and view, occlusion `[K]` in [0, 1] and weights `[K]` >= 0.
    """

    colors: Tensor
    points: Tensor
    normals: Tensor
    facing: Tensor
    occlusion: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """coefficients: `[10]`, eight of `harmonics`, then facing and occlusion (a quarter of c). level: log
    shading of what is best lit. All zero: no light was seen, and nothing is taken out."""

    coefficients: Tensor
    level: float

    @staticmethod
    def none() -> Lighting:
        return Lighting(coefficients=torch.zeros(_NUM_DIRECTIONAL + 2), level=0.0)

    def shading(self, normals: Tensor, facing: Tensor, occlusion: Tensor) -> Tensor:
        """Shading `[N]` of points with unit normals `[N, 3]`, facing and occlusion `[N]`; 1 is best lit."""
        coefficients = self.coefficients.to(normals.device)
        return torch.exp(_features(normals, facing, occlusion) @ coefficients - self.level)


def harmonics(normals: Tensor) -> Tensor:
    """Real spherical harmonics of degrees 1 and 2, `[N, 8]`, of unit vectors `[N, 3]`, scaled so that the sum of
    squares of a degree is 1."""
    x, y, z = normals.unbind(-1)
    root = math.sqrt(3.0)
    second = [root * x * y, root * y * z, 1.5 * z * z - 0.5, root * x * z, 0.5 * root * (x * x - y * y)]
    return torch.stack([x, y, z, *second], dim=-1)


def _features(normals: Tensor, facing: Tensor, occlusion: Tensor) -> Tensor:
    return torch.cat([harmonics(normals), facing[:, None], -_HOLLOWS * occlusion[:, None]], dim=-1)


def occlusion(
    mesh: Mesh, points: Tensor, normals: Tensor, *, resolution: int = 96, reach: float = 0.4
) -> Tensor:
    """How much of the room before `points [N, 3]` with `normals [N, 3]` a closed mesh takes: `[N]` in [0, 1].

    0 over a plane, from the distance to the surface at reach, reach / 2 and reach / 4 along the normal (Evans 2006,
    "Fast approximations for global illumination on dynamic scenes"), on a grid of resolution^3 cells.
    """
    half = 1.0 + reach
    inside = mesh_occupancy(mesh, resolution, half)
    outward = np.asarray(ndimage.distance_transform_edt(~inside))
    inward = np.asarray(ndimage.distance_transform_edt(inside))
    # Both count to the other side's cell centres: half a cell too much, the surface lies between.
    cells = np.where(inside, 0.5 - inward, outward - 0.5).astype(np.float32)
    distance = torch.from_numpy(cells * (2.0 * half / resolution)).to(points.device)[None, None]
    taken = torch.zeros(len(points), device=points.device)
    for along in (reach / 4, reach / 2, reach):
        # grid_sample names the last axis first.
        where = ((points + normals * along) / half).flip(-1)[None, None, None]
        room = F.grid_sample(distance, where, padding_mode="border", align_corners=False)[0, 0, 0, 0]
        taken += (1.0 - room / along).clamp(0.0, 1.0) / 3.0
    return taken


@torch.no_grad()
def fit_lighting(samples: Samples, config: DelightConfig, generator: torch.Generator) -> Lighting:
    """The light under which `samples` were seen; see the module's docstring. Too few samples, or none that weigh
    anything, show no light."""
    first, second = _draw_pairs(samples, config.num_pairs, generator)
    if len(first) == 0:
        return Lighting.none()
    colors = samples.colors.double().cpu() + _DARK
    luminance = torch.log(colors @ torch.tensor(_LUMINANCE, dtype=torch.float64))
    unit = F.normalize(colors, dim=-1)
    angle = torch.acos((unit[first] * unit[second]).sum(dim=-1).clamp(-1.0, 1.0))
    alike = torch.exp(-((angle / config.chroma) ** 2))
    features = _features(samples.normals, samples.facing, samples.occlusion).double().cpu()
    change, seen = features[first] - features[second], luminance[first] - luminance[second]
    coefficients = expected = config.usual * torch.tensor(_USUAL, dtype=torch.float64)
    for scale in (*np.geomspace(7.0, 1.0, 8).tolist(), 1.0, 1.0):
        residual = (seen - change @ coefficients) / (scale * config.robustness)
        coefficients = _solve(change, seen, alike / (1.0 + residual**2) ** 2, expected, config.ridge)
    return Lighting(coefficients=coefficients.float(), level=_level(coefficients.float()))


def _draw_pairs(samples: Samples, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` pairs of samples, drawn by weight, mostly close together; none if there is too little to draw from."""
    total = samples.weights.double().cpu().cumsum(0)
    if len(total) < _MIN_SAMPLES or not float(total[-1]) > 0.0:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    uniform = torch.rand(1 + _CANDIDATES, count, generator=generator, device=generator.device)
    drawn = torch.searchsorted(total, uniform.double().cpu() * total[-1], right=True)
    drawn = drawn.clamp_max(len(total) - 1)
    points = samples.points.cpu()
    distance = (points[drawn[1:]] - points[drawn[0]]).square().sum(dim=-1)
    # The very same point, seen by another view, would say nothing of the normal.
    distance = torch.where(distance < 1e-12, torch.inf, distance)
    return drawn[0], drawn[1:].gather(0, distance.argmin(dim=0)[None])[0]


def _solve(change: Tensor, seen: Tensor, weights: Tensor, expected: Tensor, ridge: float) -> Tensor:
    """Weighted least squares, pulled to `expected`, with the last two coefficients not negative."""
    size = change.shape[1]
    weighted = change * weights[:, None]
    pull = ridge / torch.tensor(_SPREAD, dtype=change.dtype) ** 2
    matrix = change.T @ weighted / len(seen) + torch.diag(pull)
    vector = weighted.T @ seen / len(seen) + pull * expected
    used = list(range(size))
    while True:
        solution = change.new_zeros(size)
        solution[used] = torch.linalg.solve(matrix[used][:, used], vector[used])
        negative = [index for index in used[_NUM_DIRECTIONAL:] if solution[index] < 0.0]
        if not negative:
            return solution
        used.remove(negative[0])


def _level(coefficients: Tensor) -> float:
    """Log shading of a surface without hollows that faces the light and the camera."""
    count = 2000
    index = torch.arange(count) + 0.5
    y, turn = 1.0 - 2.0 * index / count, index * (math.pi * (3.0 - math.sqrt(5.0)))
    radius = (1.0 - y * y).sqrt()
    directions = torch.stack([radius * torch.cos(turn), y, radius * torch.sin(turn)], dim=-1)
    return float((_features(directions, torch.ones(count), torch.zeros(count)) @ coefficients).max())


def remove_light(colors: Tensor, shading: Tensor, config: DelightConfig) -> Tensor:
    """Albedo `[N, 3]` of linear `colors [N, 3]` seen under `shading [N]`, in [0, 1]."""
    # Brighter than best lit is a reflection or noise.
    divisor = shading.clamp(config.floor, 1.0) ** config.strength
    return (colors / divisor[:, None]).clamp(0.0, 1.0)
