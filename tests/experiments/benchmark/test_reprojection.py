"""Consistency of views: points land where the cameras see them, the world agrees with itself, strangers do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from experiments.benchmark.multiview_scores import TruePictures, true_pictures
from experiments.benchmark.reprojection import common_points, silhouette_iou, view_difference
from gen3d.cameras import Cameras, ring
from gen3d.views import Views

SIZE = 64
CAPTIONS = ("a red mushroom", "a blue cone on a yellow cube")


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return ring(4)


@pytest.fixture(scope="module")
def world(cameras: Cameras) -> list[TruePictures]:
    return [true_pictures(f"{caption}, on a light grey background", cameras, SIZE) for caption in CAPTIONS]


def ball(cameras: Cameras, size: int, radius: float = 0.7) -> tuple[Tensor, Tensor]:
    """Depth [V, S, S] of a ball and pictures of it, coloured by where each point lies in the world, on black."""
    origins, directions = cameras.rays(size, size)
    along = -(origins * directions).sum(-1)
    inside = radius**2 - (origins.square().sum(-1) - along.square())
    depth = torch.where(inside > 0, along - inside.clamp_min(0).sqrt(), 0.0)
    points = origins + directions * depth[..., None]
    images = torch.where((depth > 0)[..., None], 0.5 + 0.4 * points / radius, 0.0)
    return depth, images.permute(0, 3, 1, 2)


@pytest.mark.parametrize("num_views", [4, 6])
def test_points_land_where_the_other_camera_sees_them(num_views: int) -> None:
    cameras = ring(num_views)
    depth, images = ball(cameras, 96)
    row, column, place = common_points(depth, cameras, 0, 1)
    assert len(row) > 200
    expected = images[0][:, row, column]
    found = torch.nn.functional.grid_sample(images[1][None], place[None, None], align_corners=False)[0, :, 0]
    # The colour is the place in the world, so the two can only agree if the geometry is right.
    assert float((expected - found).abs().max()) < 0.02


def test_what_the_other_side_shows_is_not_compared() -> None:
    cameras = ring(2)  # in front and behind: a ball shows them no common point
    depth, images = ball(cameras, 64)
    assert len(common_points(depth, cameras, 0, 1)[0]) == 0
    assert view_difference(depth, cameras, images) is None


def test_colours_fixed_to_the_surface_agree_and_noise_does_not(cameras: Cameras) -> None:
    depth, images = ball(cameras, 96)
    agreeing = view_difference(depth, cameras, images)
    assert agreeing is not None
    assert agreeing < 0.005
    # Each channel of one view off by a known amount, in one of the two pictures of half of the pairs.
    shifted = images.clone()
    shifted[1] += 0.08 * (depth[1] > 0)
    assert view_difference(depth, cameras, shifted) == pytest.approx(0.04, abs=0.012)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert view_difference(depth, cameras, noise) == pytest.approx(1 / 3, abs=0.05)


def test_true_views_are_near_zero_and_swapped_views_much_worse(
    world: list[TruePictures], cameras: Cameras
) -> None:
    for own, other in (world, world[::-1]):
        true = view_difference(own.depth, cameras, own.images)
        turned = view_difference(own.depth, cameras, own.images[[0, 2, 1, 3]])
        mixed = view_difference(own.depth, cameras, own.images, other.images)
        assert true is not None
        assert turned is not None
        assert mixed is not None
        assert true < 0.07
        assert mixed > 4 * true
        assert turned > true


def test_blank_pictures_have_no_score(world: list[TruePictures], cameras: Cameras) -> None:
    assert view_difference(world[0].depth, cameras, torch.full((4, 3, SIZE, SIZE), 0.83)) is None


def test_one_view_has_no_neighbour() -> None:
    depth, images = ball(ring(1), 32)
    assert view_difference(depth, ring(1), images) is None


def test_silhouettes(world: list[TruePictures], cameras: Cameras) -> None:
    first, second = world

    def iou(images: Tensor) -> float:
        return silhouette_iou(first.depth, Views.from_images(images, cameras).masks)

    assert iou(first.images) > 0.9
    assert iou(second.images) < 0.7
    assert iou(torch.full((4, 3, SIZE, SIZE), 0.5)) == 0.0


def test_bad_shapes(cameras: Cameras) -> None:
    with pytest.raises(ValueError, match="images must be"):
        view_difference(torch.zeros(4, 8, 8), cameras, torch.zeros(4, 1, 8, 8))
    with pytest.raises(ValueError, match="depth and cameras"):
        view_difference(torch.zeros(4, 8, 9), cameras, torch.zeros(4, 3, 8, 8))
    with pytest.raises(ValueError, match="4 cameras"):
        view_difference(torch.zeros(2, 8, 8), cameras, torch.zeros(2, 3, 8, 8))


def test_true_views_hit_what_they_show(world: list[TruePictures]) -> None:
    truth = world[0]
    assert truth.images.shape == (4, 3, SIZE, SIZE)
    assert truth.depth.shape == (4, SIZE, SIZE)
    distance = 1.05 / math.sin(math.radians(20))
    seen = truth.depth[truth.depth > 0]
    assert float(seen.min()) > distance - 1.05
    assert float(seen.max()) < distance + 1.05
