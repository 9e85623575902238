"""Geometry scores against exact volumes, distances and colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3d import meshing, metrics
from gen3d.asset import Material, Mesh


def sphere_sdf(radius: float, x: float = 0.0) -> object:
    return lambda points: (points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1) - radius


def sphere_mesh(radius: float, x: float = 0.0, resolution: int = 64) -> Mesh:
    axis = torch.linspace(-1.0, 1.0, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return meshing.extract_mesh((points - torch.tensor([x, 0.0, 0.0])).norm(dim=-1) - radius, inside="below")


def box_mesh(half: float) -> Mesh:
    corners = torch.tensor([[x, y, z] for x in (-half, half) for y in (-half, half) for z in (-half, half)])
    faces = [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
    ]
    faces += [[0, 6, 4], [1, 5, 7], [1, 7, 3]]
    return Mesh(corners.float(), torch.tensor(faces))


@pytest.mark.parametrize(("ours", "truth"), [(0.5, 0.8), (0.8, 0.5), (0.7, 0.7)])
def test_iou_of_concentric_spheres_is_the_ratio_of_volumes(ours: float, truth: float) -> None:
    expected = (min(ours, truth) / max(ours, truth)) ** 3
    assert metrics.volume_iou(sphere_mesh(ours), sphere_sdf(truth), resolution=96) == pytest.approx(
        expected, abs=0.01
    )  # pyright: ignore


def test_iou_of_shifted_spheres_is_the_lens() -> None:
    radius, distance = 0.5, 0.4
    lens = math.pi * (4 * radius + distance) * (2 * radius - distance) ** 2 / 12
    expected = lens / (2 * 4 / 3 * math.pi * radius**3 - lens)
    found = metrics.volume_iou(sphere_mesh(radius, 0.2), sphere_sdf(radius, -0.2), resolution=96)  # pyright: ignore
    assert found == pytest.approx(expected, abs=0.01)


def test_iou_takes_an_occupancy_function() -> None:
    found = metrics.volume_iou(lambda points: points.norm(dim=-1) < 0.4, sphere_sdf(0.8), resolution=64)  # pyright: ignore
    assert found == pytest.approx(0.125, abs=0.01)


def test_occupancy_is_exact_for_a_box_on_cell_borders_and_centres() -> None:
    # 0.5 is a border between cells of a grid of 32; 0.53125 is a cell centre, where columns meet edges.
    for half in (0.5, 0.53125):
        inside = metrics.mesh_occupancy(box_mesh(half), 32)
        centres = np.abs((np.arange(32) + 0.5) / 16.0 - 1.0)
        sure = centres < half - 1e-3
        unsure = np.abs(centres - half) <= 1e-3
        expected = sure[:, None, None] & sure[None, :, None] & sure[None, None, :]
        doubtful = unsure[:, None, None] | unsure[None, :, None] | unsure[None, None, :]
        assert np.array_equal(inside[~doubtful], expected[~doubtful])


def test_occupancy_joins_overlapping_pieces_and_cuts_at_the_bounds() -> None:
    one, two = sphere_mesh(0.4, 0.1), sphere_mesh(0.4, -0.1)
    both = Mesh(torch.cat([one.vertices, two.vertices]), torch.cat([one.faces, two.faces + one.num_vertices]))
    union = metrics.mesh_occupancy(one, 48) | metrics.mesh_occupancy(two, 48)
    assert np.array_equal(metrics.mesh_occupancy(both, 48), union)
    assert metrics.mesh_occupancy(box_mesh(3.0), 16).all()


def test_open_mesh_has_no_inside() -> None:
    mesh = box_mesh(0.5)
    with pytest.raises(ValueError, match="watertight"):
        metrics.volume_iou(mesh.replace(faces=mesh.faces[1:]), sphere_sdf(0.5))  # pyright: ignore


def test_chamfer_and_fscore_golden() -> None:
    line = torch.stack([torch.linspace(0.0, 1.0, 101), torch.zeros(101), torch.zeros(101)], dim=1)
    shifted = line + torch.tensor([0.0, 0.03, 0.0])
    assert metrics.chamfer(line, shifted) == pytest.approx(0.03, abs=1e-6)
    assert metrics.fscore(line, shifted) == 0.0
    assert metrics.fscore(line, shifted, threshold=0.031) == 1.0
    half = line[:51]
    # Everything of the half is right; the whole has 51 points on it and the next two within 0.02.
    assert metrics.fscore(half, line, threshold=0.0205) == pytest.approx(2 * (53 / 101) / (1 + 53 / 101))
    with pytest.raises(ValueError, match="second point set"):
        metrics.chamfer(line, torch.zeros(0, 3))
    with pytest.raises(ValueError, match="threshold"):
        metrics.fscore(line, line, threshold=0.0)


def test_surface_samples_are_even_seeded_and_on_the_surface() -> None:
    mesh = box_mesh(0.5)
    draw = [metrics.sample_surface(mesh, 6000, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    points, index, weights = draw[0]
    assert torch.equal(points, draw[1][0])
    torch.testing.assert_close(points.abs().amax(-1), torch.full((6000,), 0.5))
    assert torch.bincount(index, minlength=12).tolist() == pytest.approx([500] * 12, abs=2)
    torch.testing.assert_close((mesh.vertices[mesh.faces[index]] * weights[..., None]).sum(1), points)
    with pytest.raises(ValueError, match="no area"):
        metrics.sample_surface(mesh.replace(vertices=mesh.vertices * 0.0), 5, generator=torch.Generator())


def test_albedo_error_is_linear_light() -> None:
    mesh = box_mesh(0.5).replace(material=Material(base_color=(0.5, 0.0, 1.0)))

    def truth(points: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0, 1.0]).expand_as(points)

    generator = torch.Generator().manual_seed(0)
    expected = (1.0 - ((0.5 + 0.055) / 1.055) ** 2.4) / 3.0
    assert metrics.albedo_error(mesh, truth, generator=generator, num_samples=100) == pytest.approx(
        expected, abs=1e-5
    )
    colored = mesh.replace(vertex_colors=mesh.vertices + 0.5)
    by_position = metrics.albedo_error(
        colored, lambda points: points + 0.5, generator=generator, num_samples=500
    )
    assert by_position < 1e-5


def test_psnr_golden() -> None:
    image = torch.zeros(1, 3, 4, 4)
    assert metrics.psnr(image, image) == math.inf
    assert metrics.psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 0, 0] = True
    other = image.clone()
    other[..., 0, 0] = 0.1
    assert metrics.psnr(image, other, mask) == pytest.approx(20.0, abs=1e-4)
    with pytest.raises(ValueError, match="at least one pixel"):
        metrics.psnr(image, other, mask & False)
