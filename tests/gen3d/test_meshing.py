"""Meshes from grids: closed, right in size, cleaned, decimated, smoothed, with normals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from gen3d import meshing
from gen3d.asset import Material, Mesh


def grid(function: Callable[[np.ndarray], np.ndarray], resolution: int = 48) -> np.ndarray:
    axis = np.linspace(-1.0, 1.0, resolution)
    return function(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)).astype(np.float32)


def ball(center: tuple[float, float, float], radius: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: np.linalg.norm(points - np.array(center), axis=-1) - radius


def test_sphere_is_closed_outward_and_of_the_right_size() -> None:
    mesh = meshing.extract_mesh(grid(ball((0.1, 0.2, -0.05), 0.6)), inside="below")
    assert meshing.is_watertight(mesh)
    assert meshing.num_components(mesh) == 1
    assert meshing.volume(mesh) == pytest.approx(4.0 / 3.0 * math.pi * 0.6**3, rel=0.01)
    torch.testing.assert_close(mesh.vertices.mean(0), torch.tensor([0.1, 0.2, -0.05]), atol=5e-3, rtol=0.0)


def test_axes_are_x_y_z() -> None:
    mesh = meshing.extract_mesh(
        grid(lambda p: np.abs(p / np.array([0.8, 0.5, 0.2])).max(-1) - 1.0), inside="below"
    )
    extent = mesh.vertices.max(0).values - mesh.vertices.min(0).values
    torch.testing.assert_close(extent, torch.tensor([1.6, 1.0, 0.4]), atol=0.03, rtol=0.0)


def test_surface_that_leaves_the_grid_is_closed_at_its_border() -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 1.2)), inside="below")
    assert meshing.is_watertight(mesh)
    assert mesh.vertices.abs().max() < 1.05


def test_samples_exactly_at_the_level_do_no_harm() -> None:
    rounded = np.round(grid(ball((0.0, 0.0, 0.0), 0.6)) * 4.0) / 4.0
    mesh = meshing.extract_mesh(rounded, inside="below")
    assert (rounded == 0.0).any()
    assert meshing.is_watertight(mesh)
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    assert area.min() > 0.0


@pytest.mark.parametrize("seed", range(3))
def test_automatic_level_finds_a_soft_noisy_object(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(48, 48, 48)), 1.5)
    noise /= noise.std()
    radius = 0.65
    edge = 1.0 / (1.0 + np.exp(grid(ball((0.0, 0.0, 0.0), radius)) * 30.0))
    density = 40.0 * edge * np.exp(0.5 * noise) + 0.2 * np.abs(noise)
    mesh = meshing.extract_mesh(density)
    assert meshing.is_watertight(mesh)
    assert meshing.volume(mesh) ** (1 / 3) == pytest.approx(
        (4.0 / 3.0 * math.pi) ** (1 / 3) * radius, rel=0.15
    )
    # The level follows the scale of the densities.
    assert meshing.stable_level(density * 1000.0) == pytest.approx(
        1000.0 * meshing.stable_level(density), rel=1e-3
    )


def test_components_and_cavities() -> None:
    def scene(points: np.ndarray) -> np.ndarray:
        shell = np.abs(ball((-0.3, 0.0, 0.0), 0.5)(points)) - 0.12
        return np.minimum(
            np.minimum(shell, ball((0.6, 0.0, 0.0), 0.25)(points)), ball((0.6, 0.7, 0.0), 0.08)(points)
        )

    values = grid(scene, 64)
    assert meshing.num_components(meshing.extract_mesh(values, inside="below", min_fraction=0.02)) == 2
    assert meshing.num_components(meshing.extract_mesh(values, inside="below", min_fraction=0.0)) == 3
    solid = meshing.extract_mesh(values, inside="below", max_components=1)
    assert meshing.num_components(solid) == 1
    assert meshing.volume(solid) == pytest.approx(4.0 / 3.0 * math.pi * 0.62**3, rel=0.02)
    hollow = meshing.extract_mesh(values, inside="below", max_components=1, fill_cavities=False)
    assert meshing.num_components(hollow) == 2
    assert meshing.volume(hollow) == pytest.approx(4.0 / 3.0 * math.pi * (0.62**3 - 0.38**3), rel=0.03)


@pytest.mark.parametrize("values", [np.zeros((8, 8, 8)), np.full((8, 8, 8), -1.0)])
def test_empty_surface_says_what_to_try(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="lower `level`, more optimisation steps or another seed"):
        meshing.extract_mesh(values)
    with pytest.raises(meshing.EmptySurfaceError, match="inside level 5"):
        meshing.extract_mesh(values, level=5.0)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((8, 8)), {}, "shape"),
        (np.full((4, 4, 4), np.nan), {}, "NaN"),
        (np.ones((4, 4, 4)), {"inside": "within"}, "inside must be"),
        (np.ones((4, 4, 4)), {"max_components": 0}, "max_components"),
    ],
)
def test_extract_bad_input(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meshing.extract_mesh(values, **options)


def test_small_pieces_go_and_thin_ones_stay() -> None:
    house, speck = ball((-0.4, 0.0, 0.0), 0.4), ball((0.0, 0.8, 0.0), 0.12)
    middle, half = np.array([0.6, 0.0, 0.0]), np.array([0.08, 0.6, 0.08])

    def sword(points: np.ndarray) -> np.ndarray:
        return (np.abs(points - middle) - half).max(-1)

    shapes = grid(lambda p: np.minimum(np.minimum(house(p), speck(p)), sword(p)), 64)
    mesh = meshing.extract_mesh(shapes, inside="below", min_fraction=0.0)
    assert meshing.num_components(mesh) == 3
    kept = meshing.drop_small_pieces(mesh, min_fraction=0.01, min_extent=0.4)
    assert meshing.num_components(kept) == 2
    assert float(kept.vertices[:, 1].max()) < 0.65
    assert meshing.num_components(meshing.drop_small_pieces(mesh, min_fraction=0.3, min_extent=0.0)) == 1
    assert meshing.drop_small_pieces(kept, min_fraction=0.01, min_extent=0.4).num_faces == kept.num_faces


def test_decimation_stays_closed_and_keeps_the_volume() -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 0.8)), inside="below")
    small = meshing.decimate(mesh, 1000)
    assert small.num_faces <= 1100
    assert meshing.is_watertight(small)
    assert meshing.volume(small) == pytest.approx(meshing.volume(mesh), rel=0.01)
    assert meshing.decimate(small, 5000) is small


def test_decimation_of_a_bumpy_surface_stays_closed() -> None:
    random = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(random.normal(size=(48, 48, 48)), 1.2)
    values = -grid(ball((0.0, 0.0, 0.0), 0.7)) + 0.25 * (noise / noise.std()).astype(np.float32)
    mesh = meshing.extract_mesh(values, level=0.0)
    small = meshing.decimate(mesh, mesh.num_faces // 8)
    assert small.num_faces <= mesh.num_faces // 7
    assert meshing.is_watertight(small)


def test_smoothing_keeps_the_volume_and_calms_the_surface() -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 0.7)), inside="below")
    generator = torch.Generator().manual_seed(0)
    rough = mesh.replace(
        vertices=mesh.vertices + 0.01 * torch.randn(mesh.vertices.shape, generator=generator)
    )
    calm = meshing.smooth(rough, 10)
    assert calm.vertices.norm(dim=-1).std() < 0.5 * rough.vertices.norm(dim=-1).std()
    assert meshing.volume(calm) == pytest.approx(meshing.volume(mesh), rel=0.02)


@pytest.mark.parametrize("weighting", ["angle", "area"])
def test_normals_of_a_sphere_point_outwards(weighting: str) -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 0.7)), inside="below")
    normals = meshing.vertex_normals(mesh.vertices, mesh.faces, weighting=weighting)  # pyright: ignore
    outward = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    assert (normals * outward).sum(-1).min() > 0.97
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)))


def test_normals_have_finite_gradients_at_collapsed_faces() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], requires_grad=True)
    normals = meshing.vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    normals.square()[:, 0].sum().backward()
    assert vertices.grad is not None
    assert bool(torch.isfinite(vertices.grad).all())


def test_merge_positions_welds_seams_only() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [-0.0, 1, 0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), vertex_colors=torch.rand(6, 3))
    welded = meshing.merge_positions(mesh)
    assert welded.num_vertices == 4
    assert welded.faces.tolist() == [[0, 1, 2], [1, 3, 2]]
    assert not meshing.is_watertight(mesh)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(3, 2)}, r"vertices must have shape \[\*, 3\]"),
        ({"vertices": torch.full((3, 3), float("nan"))}, "NaN or Inf"),
        ({"faces": torch.tensor([[0, 1, 3]])}, "index 3 vertices"),
        ({"faces": torch.tensor([[0, 1, 2]]).int()}, "int64"),
        ({"uvs": torch.zeros(2, 2)}, r"uvs must have shape \[3, 2\]"),
        ({"material": Material(torch.zeros(2, 2, 3))}, "needs uvs"),
    ],
)
def test_mesh_is_checked(change: dict, message: str) -> None:
    fields = {"vertices": torch.eye(3), "faces": torch.tensor([[0, 1, 2]])} | change
    with pytest.raises(ValueError, match=message):
        Mesh(**fields)


def _copies(mesh: Mesh) -> dict[str, Mesh]:
    """The same surface, written in ways in which no edge joins two faces."""
    v, f = mesh.vertices, mesh.faces
    return {
        "twice": Mesh(v, torch.cat([f, f])),
        "from another corner": Mesh(v, torch.cat([f, f.roll(1, dims=1)])),
        "three times": Mesh(v, torch.cat([f, f, f.roll(2, dims=1)])),
        "some twice": Mesh(v, torch.cat([f, f[::3]])),
        "no vertex shared": Mesh(v[f].reshape(-1, 3), torch.arange(f.numel()).reshape(-1, 3)),
    }


@pytest.mark.parametrize(
    "how", ["twice", "from another corner", "three times", "some twice", "no vertex shared"]
)
def test_decimation_knows_a_surface_whose_faces_are_doubled(how: str) -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 0.8)), inside="below")
    small = meshing.decimate(_copies(mesh)[how], 1000)
    assert 900 < small.num_faces <= 1100
    assert meshing.is_watertight(small)
    assert meshing.volume(small) == pytest.approx(meshing.volume(mesh), rel=0.01)
    assert meshing.decimate(_copies(mesh)[how], mesh.num_faces).num_faces == mesh.num_faces


def test_decimation_of_a_surface_with_a_back_keeps_both_sides() -> None:
    mesh = meshing.extract_mesh(grid(ball((0.0, 0.0, 0.0), 0.8)), inside="below")
    for faces in (mesh.faces, mesh.faces[: mesh.num_faces // 2]):
        small = meshing.decimate(Mesh(mesh.vertices, torch.cat([faces, faces.flip(1)])), 1000)
        assert 500 < small.num_faces <= 1100
        assert float(small.vertices.norm(dim=-1).min()) > 0.7
