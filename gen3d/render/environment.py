"""Light from everywhere on a metallic-roughness surface: low-order spherical harmonics and the split sum.

The environment's radiance is L(d) = sum_lm c_lm Y_lm(d) up to l = 2. A lobe around an axis takes each band of it by a
factor: 1, 2/3, 1/4 for a diffuse surface (Ramamoorthi and Hanrahan 2001), exp(-l (l + 1) a^2 / 2), a = roughness^2, for
the glossy one around the mirrored direction. How much a view takes of the latter is Karis's fit of the split sum's
second part (2013). What is not reflected there is left to the diffuse part, so no surface is brighter than white.

Legend: K points. Light is linear RGB.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gen3d.color import linear_to_srgb, srgb_to_linear

Environment = Literal["uniform", "sky"]

_DIFFUSE = (1.0, 2.0 / 3.0, 0.25)
_BANDS = (0, 1, 1, 1, 2, 2, 2, 2, 2)
# Reflectance of what is no metal, looked at straight.
_DIELECTRIC = 0.04


def harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics `[K, 9]` up to l = 2 of unit directions `[K, 3]`."""
    x, y, z = directions.unbind(-1)
    first, second = math.sqrt(3.0 / (4.0 * math.pi)), math.sqrt(15.0 / (4.0 * math.pi))
    bands = [
        torch.full_like(x, math.sqrt(1.0 / (4.0 * math.pi))),
        *(first * y, first * z, first * x),
        *(second * x * y, second * y * z, second / math.sqrt(12.0) * (3.0 * z * z - 1.0)),
        *(second * x * z, 0.5 * second * (x * x - y * y)),
    ]
    return torch.stack(bands, dim=-1)


def coefficients(environment: Environment, device: torch.device | str = "cpu") -> Tensor:
    """`[9, 3]` of a radiance of 1 from everywhere, or of a sky: 1.5 straight above, falling to 0.5 below."""
    found = torch.zeros(9, 3, device=device)
    found[0] = math.sqrt(4.0 * math.pi)
    if environment == "sky":
        found[1] = 0.5 * math.sqrt(4.0 * math.pi / 3.0)
    return found


def _by_band(factors: Tensor) -> Tensor:
    """`[..., 9]` of factors `[..., 3]`, one a band."""
    return factors[..., list(_BANDS)]


def irradiance(environment: Tensor, normals: Tensor) -> Tensor:
    """`[K, 3]` light that a white diffuse surface with unit normals `[K, 3]` gives back, under `coefficients`."""
    factors = _by_band(torch.tensor(_DIFFUSE, device=normals.device))
    return ((harmonics(normals) * factors) @ environment).clamp_min(0.0)


def reflected(environment: Tensor, directions: Tensor, roughness: Tensor) -> Tensor:
    """`[K, 3]` radiance around mirrored directions `[K, 3]`, blurred by the roughness `[K, 1]` or `[1]`."""
    band = torch.arange(3.0, device=directions.device)
    factors = _by_band(torch.exp(-0.5 * band * (band + 1.0) * roughness**4))
    return ((harmonics(directions) * factors) @ environment).clamp_min(0.0)


def reflectance(base: Tensor, facing: Tensor, metallic: Tensor, roughness: Tensor) -> Tensor:
    """Share `[K, 3]` of an even light that the glossy part gives back. base: linear `[K, 3]`. facing: cosine between
    normal and view, `[K, 1]`."""
    straight = _DIELECTRIC + (base - _DIELECTRIC) * metallic
    x, y, z, w = (
        roughness * a + b for a, b in ((-1.0, 1.0), (-0.0275, 0.0425), (-0.572, 1.04), (0.022, -0.04))
    )
    edge = torch.minimum(x * x, torch.exp2(-9.28 * facing)) * x + y
    return (straight * (z - 1.04 * edge) + w + 1.04 * edge).clamp(0.0, 1.0)


def lit(
    base_color: Tensor,
    normals: Tensor,
    directions: Tensor,
    metallic: Tensor,
    roughness: Tensor,
    environment: Tensor,
) -> Tensor:
    """sRGB `[K, 3]` of a surface of base colour sRGB `[K, 3]` with unit normals, seen along `directions`, both
    `[K, 3]`. metallic, roughness: `[1]` or `[K, 1]` in [0, 1]."""
    base = srgb_to_linear(base_color)
    along = (normals * directions).sum(dim=-1, keepdim=True)
    glossy = reflectance(base, (-along).clamp(0.0, 1.0), metallic, roughness)
    mirrored = directions - 2.0 * along * normals
    diffuse = (1.0 - glossy) * (1.0 - metallic) * base * irradiance(environment, normals)
    light = diffuse + glossy * reflected(environment, mirrored, roughness)
    return linear_to_srgb(light.clamp(0.0, 1.0))
