"""Cameras as MVDream's embedding takes them."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.adapters.camera import camera_condition, camera_labels, has_camera_embedding
from tests.diffusion.models import make_unet, orbit


def test_camera_condition_golden() -> None:
    """In front, at distance 2: MVDream's camera on +X, right is +Y, up is +Z."""
    c2w = orbit(1, 4)
    kept = c2w.clone()
    rows = camera_condition(c2w)
    assert torch.equal(c2w, kept)
    assert rows.shape == (1, 4, 16)
    expected = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]).float()
    torch.testing.assert_close(rows[0, 0].reshape(4, 4), expected)
    # A quarter turn to azimuth 90 (our +X) is MVDream's +Y.
    torch.testing.assert_close(
        rows[0, 1].reshape(4, 4)[:3, 3], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0
    )


def test_camera_condition_ignores_distance_and_survives_the_origin() -> None:
    near, far = orbit(2, 3), orbit(2, 3)
    far[..., :3, 3] *= 7.0
    torch.testing.assert_close(camera_condition(near), camera_condition(far))
    assert camera_condition(torch.eye(4)).isfinite().all()
    rotation = camera_condition(near).reshape(2, 3, 4, 4)[..., :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(2, 3))
    assert math.isclose(float(camera_condition(near)[0, 0].reshape(4, 4)[:3, 3].norm()), 1.0, rel_tol=1e-6)
    with pytest.raises(ValueError, match=r"must have shape \[\.\.\., 4, 4\], got \[2, 3, 3, 4\]"):
        camera_condition(near[..., :3, :])


def test_camera_and_backbone_must_agree() -> None:
    with_camera, plain = make_unet(camera=True), make_unet(camera=False)
    assert has_camera_embedding(with_camera)
    assert not has_camera_embedding(plain)
    assert camera_labels(plain, None) is None
    labels = camera_labels(with_camera, orbit(2, 4))
    assert labels is not None
    assert labels.shape == (8, 16)
    with pytest.raises(ValueError, match="camera is missing"):
        camera_labels(with_camera, None)
    with pytest.raises(ValueError, match="camera was given, but this backbone has no camera embedding"):
        camera_labels(plain, orbit(1, 4))
