"""Cameras: axes, rays against projection, rigid inverses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gen3d.cameras import Cameras, look_at, orbit, ring

angles = st.floats(-360, 360)
elevations = st.floats(-89, 89)
fields = st.floats(10, 100)


def test_zero_azimuth_is_in_front_and_ninety_on_plus_x() -> None:
    cameras = orbit([0.0, 90.0, 0.0], [0.0, 0.0, 90.0], distance=2.0)
    expected = torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    torch.testing.assert_close(cameras.positions, expected, atol=1e-5, rtol=0)
    # In front: x of the camera is x of the world, y is up.
    torch.testing.assert_close(cameras.c2w[0, :3, :3], torch.eye(3), atol=1e-6, rtol=0)
    # Straight from above a rotation is still a rotation.
    assert torch.linalg.det(cameras.c2w[2, :3, :3]) == pytest.approx(1.0, abs=1e-5)


@given(angles, elevations, fields)
def test_rays_project_back_to_their_pixels(azimuth: float, elevation: float, fovy: float) -> None:
    cameras = orbit(azimuth, elevation, fovy_deg=fovy)
    origins, directions = cameras.rays(6, 9)
    points = (origins + 2.5 * directions)[0].reshape(-1, 3)
    homogeneous = torch.cat([points, torch.ones(len(points), 1)], dim=-1)
    clip = homogeneous @ cameras.w2c[0].T @ cameras.projection(aspect=1.5)[0].T
    ndc = clip[:, :2] / clip[:, 3:]
    x = (ndc[:, 0] + 1) / 2 * 9 - 0.5
    y = (1 - ndc[:, 1]) / 2 * 6 - 0.5
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    torch.testing.assert_close(x, columns.reshape(-1), atol=2e-3, rtol=0)
    torch.testing.assert_close(y, rows.reshape(-1), atol=2e-3, rtol=0)


@given(angles, elevations)
def test_w2c_is_the_inverse(azimuth: float, elevation: float) -> None:
    cameras = orbit(azimuth, elevation)
    torch.testing.assert_close(cameras.c2w @ cameras.w2c, torch.eye(4)[None], atol=1e-5, rtol=0)


@given(fields)
def test_the_unit_sphere_fits(fovy: float) -> None:
    cameras = orbit(0.0, 0.0, fovy_deg=fovy)
    distance = cameras.positions.norm()
    half = torch.asin(1 / distance)
    assert 0.9 * fovy < 2 * torch.rad2deg(half) < fovy


def test_projection_maps_near_and_far_to_the_ends() -> None:
    matrix = orbit(0.0, 0.0).projection(near=0.5, far=8.0)[0]
    near, far = matrix @ torch.tensor([0.0, 0.0, -0.5, 1.0]), matrix @ torch.tensor([0.0, 0.0, -8.0, 1.0])
    assert near[2] / near[3] == pytest.approx(-1.0, abs=1e-5)
    assert far[2] / far[3] == pytest.approx(1.0, abs=1e-5)


def test_a_ring_goes_round_and_can_be_indexed() -> None:
    cameras = ring(4, azimuth_deg=10.0)
    assert len(cameras) == 4
    assert len(cameras[1:3]) == 2
    torch.testing.assert_close(cameras.positions[0], cameras.positions[2] * torch.tensor([-1.0, 1.0, -1.0]))


def test_look_at_looks_there() -> None:
    target = torch.tensor([0.3, -0.2, 0.1])
    c2w = look_at(torch.tensor([[1.0, 2.0, 3.0]]), target)
    towards = torch.nn.functional.normalize(target - c2w[0, :3, 3], dim=0)
    torch.testing.assert_close(-c2w[0, :3, 2], towards)


@pytest.mark.parametrize("fovy", [0.0, 180.0, -10.0])
def test_impossible_fields_of_view(fovy: float) -> None:
    with pytest.raises(ValueError, match="fovy_deg"):
        orbit(0.0, 0.0, fovy_deg=fovy)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="c2w must have shape"):
        Cameras(c2w=torch.eye(4), fovy_deg=torch.tensor([40.0]))
    with pytest.raises(ValueError, match="one angle a camera"):
        Cameras(c2w=torch.eye(4)[None], fovy_deg=torch.tensor(40.0))
    with pytest.raises(ValueError, match="num_views"):
        ring(0)
