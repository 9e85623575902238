"""Light from everywhere: against integrals over the sphere, and in a white furnace."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.color import srgb_to_linear
from gen3d.render.environment import coefficients, harmonics, irradiance, lit, reflectance, reflected


def sphere(count: int = 40_000) -> Tensor:
    """Directions evenly over the sphere (a Fibonacci spiral)."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height = 1.0 - 2.0 * index / count
    turn = math.pi * (1.0 + math.sqrt(5.0)) * index
    ring = (1.0 - height * height).sqrt()
    return torch.stack([ring * turn.cos(), height, ring * turn.sin()], dim=-1).float()


def unit(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_harmonics_are_orthonormal() -> None:
    values = harmonics(sphere()).double()
    gram = values.T @ values * (4.0 * math.pi / len(values))
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=1e-3, rtol=0)


def test_irradiance_is_the_integral_over_the_hemisphere() -> None:
    directions, normals = sphere(), unit(20, 0)
    environment = coefficients("sky") + 0.05 * torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    radiance = harmonics(directions) @ environment
    cosine = (normals @ directions.T).clamp_min(0.0)
    expected = cosine @ radiance * (4.0 * math.pi / len(directions)) / math.pi
    torch.testing.assert_close(irradiance(environment, normals), expected, atol=1e-3, rtol=0)


def test_the_sky_is_brighter_above() -> None:
    up = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    light = harmonics(up) @ coefficients("sky")
    torch.testing.assert_close(light[:, 0], torch.tensor([1.5, 0.5]))


@pytest.mark.parametrize("roughness", [0.05, 0.5, 1.0])
def test_white_furnace(roughness: float) -> None:
    """Under light from everywhere a white surface cannot be told from it, and none gives back more than it gets."""
    normals, views, rough = unit(200, 2), unit(200, 3), torch.tensor([roughness])
    views = torch.where((views * normals).sum(dim=-1, keepdim=True) > 0, -views, views)
    even = coefficients("uniform")
    torch.testing.assert_close(irradiance(even, normals), torch.ones(200, 3))
    torch.testing.assert_close(reflected(even, views, rough), torch.ones(200, 3))
    white = lit(torch.ones(200, 3), normals, views, torch.zeros(1), rough, even)
    torch.testing.assert_close(white, torch.ones(200, 3), atol=1e-4, rtol=0)
    metal = lit(torch.ones(200, 3), normals, views, torch.ones(1), rough, even)
    assert float(metal.max()) <= 1.0
    assert float(srgb_to_linear(metal).min()) > 0.4  # one bounce between facets is all that counts
    grey = lit(torch.full((200, 3), 0.5), normals, views, torch.zeros(1), rough, even)
    given_back = srgb_to_linear(grey)
    base = float(srgb_to_linear(torch.tensor(0.5)))
    assert float(given_back.min()) > 0.95 * base
    assert float(given_back.max()) <= 1.0


def test_what_shines_at_the_rim() -> None:
    base = torch.full((2, 3), 0.1)
    facing = torch.tensor([[1.0], [0.0]])
    straight, rim = reflectance(base, facing, torch.zeros(1), torch.tensor([0.3]))
    assert float(straight.max()) == pytest.approx(0.04, abs=0.02)
    assert float(rim.min()) > 0.3
    blurred = [
        reflected(coefficients("sky"), torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([rough]))[0, 0]
        for rough in (0.1, 0.6, 1.0)
    ]
    assert 1.5 >= float(blurred[0]) > float(blurred[1]) > float(blurred[2]) > 1.0
