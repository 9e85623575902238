"""Depth and normals become pictures and come back."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gen3d.cameras import ring
from gen3d.domain_pictures import depth_of, depth_picture, normals_of, normals_picture
from video.pixels import from_uint8, to_uint8


@given(seed=st.integers(0, 1000), fovy=st.floats(20, 90))
def test_depth_survives_eight_bits(seed: int, fovy: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    cameras = ring(3, fovy_deg=fovy)
    distance = torch.linalg.vector_norm(cameras.positions, dim=-1).view(-1, 1, 1, 1)
    depth = distance + 2 * torch.rand(3, 1, 8, 8, generator=generator) - 1
    mask = (torch.rand(3, 1, 8, 8, generator=generator) > 0.3).float()
    picture = depth_picture(depth, mask, cameras)
    assert picture.shape == (3, 3, 8, 8)
    assert torch.equal(picture.clamp(0, 1), picture)
    back = depth_of(from_uint8(to_uint8(picture)), cameras)
    assert torch.equal(back > 0, mask > 0)
    assert ((back - depth).abs() * mask).max() < 0.006  # half a step of 191 over two units


@given(seed=st.integers(0, 1000))
def test_normals_survive_eight_bits(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(3, 3, 8, 8, generator=generator), dim=1)
    mask = (torch.rand(3, 1, 8, 8, generator=generator) > 0.3).float()
    back = normals_of(from_uint8(to_uint8(normals_picture(3 * normals, mask))))
    assert torch.equal((back != 0).any(1, keepdim=True), mask > 0)
    assert torch.rad2deg(torch.acos((back * normals).sum(1).clamp(-1, 1)))[mask[:, 0] > 0].max() < 1.0


def test_what_is_beyond_the_unit_sphere_is_shown_at_its_edge() -> None:
    cameras = ring(1)
    far = torch.full((1, 1, 2, 2), 100.0)
    near = torch.full((1, 1, 2, 2), 0.1)
    full = torch.ones(1, 1, 2, 2)
    assert depth_picture(far, full, cameras).eq(0.25).all()
    assert depth_picture(near, full, cameras).eq(1.0).all()
