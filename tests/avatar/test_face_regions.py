from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avatar.config import TINY
from avatar.face_box import FaceBox
from avatar.face_regions import face_mask, regions
from diffusion.adapters.audio import mask_pyramid

_BOX = FaceBox(32, 32, 64)


def test_each_branch_has_its_region() -> None:
    assert TINY.audio.branches == ("pose", "face", "lip")
    pose, face, lip = regions(_BOX, 128)
    assert pose.shape == (128, 128)
    assert pose.dtype == torch.float32
    mouth, eyes, corner = (80, 64), (55, 64), (3, 3)
    assert lip[mouth] > 0.9
    assert face[mouth] < 0.1
    assert face[eyes] > 0.9
    assert lip[eyes] < 0.05
    assert pose[eyes] < 0.1
    assert pose[corner] > 0.99
    # Left and right are alike.
    assert torch.allclose(face, face.flip(1), atol=1e-6)
    # The lips' region holds the mouth of any face: about the face's middle, in its lower half, not beyond it.
    rows, columns = torch.nonzero(lip > 0.5, as_tuple=True)
    assert rows.float().mean() > 70
    assert int(rows.min()) > 60
    assert columns.float().mean() == pytest.approx(63.5)
    assert 40 < len(columns.unique()) < 64


@settings(deadline=None, max_examples=60)
@given(st.floats(-40, 120), st.floats(-40, 120), st.floats(1, 200), st.integers(1, 96), st.booleans())
def test_regions_share_the_picture(x: float, y: float, side: float, size: int, two: bool) -> None:
    box = FaceBox(x, y, side)
    masks = regions([box, FaceBox(y, x, side)] if two else box, size)
    assert masks.shape == (3, size, size)
    assert bool(torch.isfinite(masks).all())
    assert 0.0 <= float(masks.min()) <= float(masks.max()) <= 1.0
    assert torch.allclose(masks.sum(0), torch.ones(size, size), atol=1e-6)
    mask = face_mask(box, size)
    assert mask.shape == (1, size, size)
    assert 0.0 <= float(mask.min()) <= float(mask.max()) <= 1.0


def test_regions_scale_and_move_with_the_box() -> None:
    small = regions(_BOX, 128)
    assert torch.allclose(torch.nn.functional.avg_pool2d(regions(_BOX.scaled(2), 256), 2), small, atol=0.01)
    moved = regions(FaceBox(_BOX.x + 7, _BOX.y - 5, _BOX.size), 128)
    assert torch.allclose(moved[:, :123, 7:], small[:, 5:, :121], atol=1e-6)


def test_the_mask_covers_what_the_soft_face_covers() -> None:
    mask, (pose, _, _) = face_mask(_BOX, 128)[0], regions(_BOX, 128)
    assert bool(((pose < 0.5) == (mask > 0.5)).float().mean() > 0.98)
    assert mask.sum().item() == pytest.approx(1.2**2 * 0.86 * 1.04 * 64**2, rel=1e-4)
    assert mask[64, 64] == 1.0
    assert mask[2, 2] == 0.0


def test_several_boxes_make_a_union() -> None:
    one, other = FaceBox(10, 30, 50), FaceBox(50, 30, 50)
    union = torch.maximum(face_mask(one, 128), face_mask(other, 128))
    assert torch.equal(face_mask([one, other], 128), union)
    assert torch.equal(face_mask([one, one], 128), face_mask(one, 128))
    assert bool((regions([one, other], 128)[0] <= regions(one, 128)[0]).all())


def test_they_fit_the_audio_branches() -> None:
    pyramid = mask_pyramid(regions(_BOX, 128)[None], 32, 32, 3)
    assert pyramid[8, 8].shape == (1, 1, 3, 64)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least one face box, got none"):
        regions([], 64)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        face_mask(_BOX, 0)
