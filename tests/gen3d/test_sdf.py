"""The signed distance: its densities against their equations, its regularisers against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gen3d import meshing
from gen3d.cameras import orbit
from gen3d.metrics import volume_iou
from gen3d.render.rays import render_rays
from gen3d.representations.sdf import SdfConfig
from gen3d.representations.sdf_field import SdfField
from gen3d.surface import SurfaceConfig

SMALL: dict[str, Any] = {
    "num_levels": 3,
    "base_resolution": 4,
    "finest_resolution": 16,
    "log2_hashmap_size": 10,
    "hidden_width": 8,
}


def test_neus_density_is_the_logistic_distributions_hazard() -> None:
    """-d Phi_s(f) / dt over Phi_s(f), along a ray on which f falls by one a unit (NeuS, equation 10)."""
    field = SdfConfig(**SMALL, sharpness=30.0).begin()
    f = torch.linspace(-0.3, 0.3, 13, dtype=torch.float64)
    step = 1e-6
    phi = [1 / (1 + torch.exp(-30.0 * (f + each))) for each in (-step, 0.0, step)]
    expected = (phi[2] - phi[0]) / (2 * step) / phi[1]
    torch.testing.assert_close(field.density_of(-f.float()), expected.float(), rtol=1e-4, atol=1e-4)


def test_volsdf_density_is_the_laplace_distribution() -> None:
    """Equations 2 and 3 of VolSDF, with alpha = 1 / beta."""
    beta = 0.05
    field = SdfConfig(**SMALL, density="volsdf", sharpness=1 / beta).begin()
    for f in (-0.4, -0.05, 0.0, 0.05, 0.4):
        s = -f
        psi = 0.5 * math.exp(s / beta) if s <= 0 else 1 - 0.5 * math.exp(-s / beta)
        assert float(field.density_of(torch.tensor([-f]))) == pytest.approx(psi / beta, rel=1e-4)


@pytest.mark.parametrize("density", ["neus", "volsdf"])
def test_light_stops_at_the_surface(density: str) -> None:
    field = SdfConfig(**SMALL, density=density, sharpness=200.0, sphere_radius=0.5).begin()  # type: ignore[arg-type]
    origins, directions = torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    rendered = render_rays(field, origins, directions, torch.zeros(3), num_samples=512)
    assert float(rendered.opacity) == pytest.approx(1.0, abs=0.01)
    assert float(rendered.depth) == pytest.approx(2.5, abs=0.02)


def test_begins_as_a_ball() -> None:
    field = SdfConfig(sphere_radius=0.6).begin()
    mesh = field.to_mesh(SurfaceConfig(level=None, resolution=64, smooth=0), None)
    assert meshing.is_watertight(mesh)
    assert volume_iou(mesh, lambda points: points.norm(dim=-1) - 0.6) > 0.98


def test_eikonal_and_curvature_of_a_ball() -> None:
    """|x| has a gradient of length 1 everywhere, and 2 / |x| is the sum of its second derivatives."""
    field = SdfConfig(**SMALL, eikonal=1.0, curvature=1.0).begin()
    generator = torch.Generator().manual_seed(0)
    losses = field.regularisers(generator)
    assert float(losses["eikonal"]) < 0.01
    points = field._anywhere(200_000, torch.Generator().manual_seed(1))
    expected = (2.0 / points.norm(dim=-1).clamp_min(field.detail) * field.detail).square().mean()
    assert float(losses["curvature"]) == pytest.approx(float(expected), rel=0.2)
    # Twice as steep is off by one.
    field.named["bias_1"] = field.named["bias_1"].clone()
    steep = SdfConfig(**SMALL, eikonal=1.0).load(field.tensors())
    steep.value = lambda raw, points: 2.0 * (0.5 - points.norm(dim=-1))  # type: ignore[method-assign]
    assert float(steep.regularisers(generator)["eikonal"]) == pytest.approx(1.0, abs=0.05)


def test_the_sharpness_learns_and_may_stay() -> None:
    field = SdfConfig(**SMALL, sharpness=40.0).begin()
    assert isinstance(field, SdfField)
    assert float(field.sharpness) == pytest.approx(40.0)
    field.named["log_sharpness"].requires_grad_(True)
    origins, directions = torch.tensor([[0.0, 0.45, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    render_rays(field, origins, directions, torch.zeros(3), num_samples=64).opacity.sum().backward()
    gradient = field.named["log_sharpness"].grad
    assert gradient is not None
    assert float(gradient.abs()) > 0.0
    assert SdfConfig(sharpness_rate=0.0).begin().rates(0.5)["log_sharpness"] == 0.0


@pytest.mark.parametrize("training", [False, True])
def test_depth_and_normals_of_a_ball(training: bool) -> None:
    field = SdfConfig(sharpness=200.0, sphere_radius=0.5, num_samples=256).begin()
    cameras = orbit([90.0], [0.0])
    generator = torch.Generator().manual_seed(0) if training else None
    seen = field.render(cameras, 33, torch.ones(1, 3), generator=generator, normals=True)
    assert seen.depth is not None
    assert seen.normals is not None
    distance = float(cameras.positions.norm())
    assert float(seen.depth[0, 0, 16, 16]) == pytest.approx(distance - 0.5, abs=0.02)
    torch.testing.assert_close(seen.normals[0, :, 16, 16], torch.tensor([1.0, 0.0, 0.0]), atol=0.03, rtol=0.0)
    assert float(seen.depth[0, 0, 0, 0]) == 0.0
    if training:
        field = SdfConfig(num_samples=64).begin()
        field.named["table_0"].requires_grad_(True)
        seen = field.render(cameras, 8, torch.ones(1, 3), generator=generator, normals=True)
        assert seen.depth is not None
        assert seen.normals is not None
        (seen.depth.sum() + seen.normals[:, 1].sum()).backward()
        assert field.named["table_0"].grad is not None
