"""Sharpness over the truth's: what blurring, noise and plain pictures score."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from avatar.face_box import FaceBox
from experiments.benchmark.sharpness import in_box, laplacian_variance, sharpness


def pictures(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_picture_is_as_sharp_as_itself_and_a_blurred_one_is_not() -> None:
    sharp = pictures()
    blurred = F.avg_pool2d(F.pad(sharp, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    assert sharpness(sharp, sharp) == 1.0
    assert sharpness(blurred, sharp) < 0.2
    assert sharpness(sharp, blurred) > 5.0
    # One truth for all, and each picture counts alike, however much contrast it has.
    assert sharpness(torch.cat([sharp[:1], blurred[:1]]), sharp[:1]) < 0.6
    faint = torch.cat([sharp[:1], 0.01 * sharp[1:2]])
    assert sharpness(torch.cat([blurred[:1], 0.01 * sharp[1:2]]), faint) > 0.5
    # Contrast counts as its square, a shift of brightness not at all.
    assert sharpness(0.5 * sharp + 0.25, sharp) == pytest.approx(0.25, rel=1e-4)


def test_the_laplacian_of_a_ramp_is_nothing_and_that_of_a_dot_is_known() -> None:
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    assert float(laplacian_variance(ramp)) < 1e-12
    plain = torch.full((1, 3, 16, 16), 0.5)
    assert math.isnan(sharpness(pictures(1, 16), plain))
    # What is plain in truth says nothing about the others.
    both = torch.cat([pictures(1, 16), plain])
    assert sharpness(both, both) == 1.0
    dot = torch.zeros(1, 3, 8, 8)
    dot[..., 4, 4] = 1.0
    values = torch.tensor([-4.0, 1.0, 1.0, 1.0, 1.0] + [0.0] * 31)  # the other pixels of 6 x 6
    assert float(laplacian_variance(dot)) == pytest.approx(float(values.var()), rel=1e-6)


def test_a_face_box_cuts_what_lies_in_it() -> None:
    images = pictures(2)
    assert torch.equal(in_box(images, FaceBox(4.2, 8.4, 16.0)), images[..., 8:24, 4:20])
    assert torch.equal(in_box(images, FaceBox(-3.0, 20.0, 16.0)), images[..., 20:, :13])
