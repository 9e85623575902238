"""Marching tetrahedra against analytic shapes, and the representation made of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.cameras import orbit
from gen3d.meshing import is_watertight, num_components, volume
from gen3d.metrics import volume_iou
from gen3d.render.lamp import near_camera
from gen3d.representations.base import load, load_field
from gen3d.representations.tet_grid import CASES, EDGES, tet_grid
from gen3d.representations.tet_surface import TetSurface
from gen3d.representations.tetmesh import MAX_OFFSET, TetMesh
from gen3d.stages.config import ExtractConfig
from gen3d.state import State
from gen3d.topology import closed_edges
from tests.gen3d.rendering import gradient_error

PLAIN = ExtractConfig(level=None, smooth=0, target_faces=10**6, min_fraction=0.0, min_extent=0.0)


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.7


def torus(points: Tensor) -> Tensor:
    ring = points[..., [0, 2]].norm(dim=-1) - 0.55
    return torch.stack([ring, points[..., 1]], dim=-1).norm(dim=-1) - 0.25


def surface_of(sdf: Callable[[Tensor], Tensor], **settings: Any) -> TetSurface:
    own = TetMesh(**{"resolution": 24, "smoothing": 0, **settings})
    grid = tet_grid(own.resolution)
    zeros = torch.zeros_like(grid.points)
    return TetSurface(own, sdf(grid.points) / grid.spacing, zeros, zeros.clone())


def noisy(seed: int = 0, **settings: Any) -> TetSurface:
    """A ball with noise on everything: pieces, holes and slivers."""
    generator = torch.Generator().manual_seed(seed)
    made = TetMesh(**{"resolution": 12, "smoothing": 1, **settings}).begin()
    for tensor, size in ((made.sdf, 0.4), (made.offsets, 2.0), (made.colors, 1.0)):
        tensor.add_(size * torch.randn(tensor.shape, generator=generator))
    return made


def mesh_of(surface: TetSurface) -> Mesh:
    return Mesh(surface.vertices().detach(), surface.cut.faces)


def test_the_grid_fills_its_cube_with_congruent_tetrahedra() -> None:
    grid = tet_grid(10)
    sides = (grid.points[grid.tets[:, 1:]] - grid.points[grid.tets[:, :1]]).double()
    volumes = torch.linalg.det(sides) / 6.0
    torch.testing.assert_close(volumes, torch.full_like(volumes, grid.spacing**3 / 12.0), rtol=1e-4, atol=0)
    inner = grid.points[~grid.border].abs().amax(dim=0)
    torch.testing.assert_close(inner, torch.ones(3))
    assert len(torch.unique(grid.edges, dim=0)) == len(grid.edges)
    ends = grid.edges[grid.tet_edges]
    for number, (a, b) in enumerate(EDGES):
        wanted = grid.tets[:, [a, b]].sort(dim=1).values
        assert torch.equal(ends[:, number], wanted)
    # A face belongs to two tetrahedra, or lies on the border.
    faces = torch.cat([grid.tets[:, list(each)] for each in itertools.combinations(range(4), 3)])
    kinds, counts = torch.unique(faces.sort(dim=1).values, dim=0, return_counts=True)
    assert int(counts.max()) == 2
    assert bool(grid.border[kinds[counts == 1]].all())


@pytest.mark.parametrize("case", range(16))
def test_each_case_parts_inside_from_outside(case: int) -> None:
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    inside = torch.tensor([bool(case >> corner & 1) for corner in range(4)])
    crossed = {number for number, (a, b) in enumerate(EDGES) if inside[a] != inside[b]}
    triangles = CASES[case]
    assert {edge for triangle in triangles for edge in triangle} == crossed
    assert len(triangles) == {0: 0, 3: 1, 4: 2}[len(crossed)]
    for triangle in triangles:
        a, b, c = (corners[list(EDGES[edge])].mean(dim=0) for edge in triangle)
        normal = torch.linalg.cross(b - a, c - a)
        outwards = corners[~inside].mean(dim=0) - corners[inside].mean(dim=0)
        assert float(normal @ outwards) > 0
    if len(triangles) == 2:  # they share one edge, walked both ways
        first, second = ({(t[i], t[(i + 1) % 3]) for i in range(3)} for t in triangles)
        assert len(first & {(b, a) for a, b in second}) == 1


@pytest.mark.parametrize(("sdf", "euler", "solid"), [(sphere, 2, 1.4368), (torus, 0, 0.6785)])
def test_analytic_shapes(sdf: Callable[[Tensor], Tensor], euler: int, solid: float) -> None:
    surface = surface_of(sdf, resolution=32)
    mesh = mesh_of(surface)
    assert is_watertight(mesh)
    assert num_components(mesh) == 1
    edges = closed_edges(mesh.faces)
    assert mesh.num_vertices - len(edges) + mesh.num_faces == euler
    assert volume(mesh) == pytest.approx(solid, rel=0.02)  # positive: faces look outwards
    assert float(sdf(mesh.vertices).abs().max()) < 0.08 * surface.grid.spacing
    corners = mesh.vertices[mesh.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(dim=1)
    ahead = sdf(middle + 1e-3 * torch.nn.functional.normalize(normals, dim=-1)) - sdf(middle)
    assert float((ahead > 0).float().mean()) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_noise_still_gives_a_closed_surface(seed: int) -> None:
    mesh = mesh_of(noisy(seed))
    assert is_watertight(mesh)
    grid = noisy(seed).grid
    moved = noisy(seed, max_offset=MAX_OFFSET)
    moved.offsets.mul_(1e3)  # as far as they may
    points = moved.grid_points()[grid.tets]
    assert float(torch.linalg.det(points[:, 1:] - points[:, :1]).min()) > 0


def test_distances_of_zero_are_no_trouble() -> None:
    for value in (0.0, -1e-30, 1e-30):
        surface = surface_of(lambda p, v=value: torch.where(p.norm(dim=-1) < 0.5, v, 1.0).float())
        surface.sdf.requires_grad_()
        assert is_watertight(mesh_of(surface))
        surface.vertices().sum().backward()
        assert surface.sdf.grad is not None
        assert float(surface.sdf.grad.abs().max()) < 1e4


def test_where_nothing_is_inside_a_bubble_is_left() -> None:
    surface = surface_of(lambda p: (p - torch.tensor([0.3, 0.0, 0.0])).norm(dim=-1) + 0.5)
    mesh = mesh_of(surface)
    assert is_watertight(mesh)
    assert 0 < volume(mesh) < 0.01
    assert float((mesh.vertices.mean(dim=0) - torch.tensor([0.3, 0.0, 0.0])).norm()) < 0.1
    surface.sdf.requires_grad_()
    shown = surface.render(orbit(0.0, 0.0), 32, torch.ones(1, 3))
    shown.opacity.sum().backward()
    assert surface.sdf.grad is not None
    assert float(surface.sdf.grad.abs().max()) > 0
    full = surface_of(lambda p: p.norm(dim=-1) - 9.0)
    assert is_watertight(mesh_of(full))  # the border is outside


@pytest.mark.parametrize("name", ["sdf", "offsets", "colors"])
def test_gradients_match_finite_differences(name: str) -> None:
    made = noisy(1)
    assert gradient_error(made.settings, made, name) < 1e-3


def test_smoothing_spreads_a_gradient_and_keeps_what_is_even() -> None:
    grid = tet_grid(12)
    one = torch.zeros(len(grid.points), 1)
    one[len(one) // 4] = 1.0
    assert torch.equal(grid.smooth(one, 0), one)
    spread = grid.smooth(one, 2)
    assert float(spread.sum()) == pytest.approx(1.0, abs=1e-5)
    assert 10 < int((spread > 0).sum()) < 100
    torch.testing.assert_close(grid.smooth(torch.ones_like(one), 3), torch.ones_like(one))
    linear = grid.points[:, :1]
    inner = grid.points.abs().amax(dim=1) < 0.7
    torch.testing.assert_close(grid.smooth(linear, 2)[inner], linear[inner], atol=1e-5, rtol=0)


def test_depth_and_normals_of_a_ball() -> None:
    surface = surface_of(sphere, resolution=32)
    camera = orbit(30.0, 20.0)
    shown = surface.render(camera, 65, torch.zeros(1, 3), normals=True)
    assert shown.depth is not None
    assert shown.normals is not None
    distance = float(camera.positions.norm())
    assert float(shown.depth[0, 0, 32, 32]) == pytest.approx(distance - 0.7, abs=5e-3)
    towards = torch.nn.functional.normalize(camera.positions[0], dim=0)
    assert float(shown.normals[0, :, 32, 32] @ towards) > 0.999
    assert float((shown.normals.norm(dim=1) - shown.opacity[:, 0]).max()) < 1e-5
    lamp = near_camera(camera, torch.Generator().manual_seed(0), ambient=0.1, textureless=True)
    lit = surface.render(camera, 65, torch.zeros(1, 3), shade=lamp)
    assert float(lit.images[0, :, 32, 32].min()) > 0.5
    assert float(lit.images[0, 0].max()) > 0.95


@pytest.mark.parametrize("sdf", [sphere, torus])
def test_a_mesh_comes_back(sdf: Callable[[Tensor], Tensor]) -> None:
    mesh = mesh_of(surface_of(sdf, resolution=48))
    colors = (mesh.vertices[:, :1] > 0).float() * torch.tensor([0.6, 0.2, 0.1]) + 0.2
    mesh = mesh.replace(vertex_colors=colors)
    own = TetMesh()
    begun = own.begin_from(mesh)
    before = begun.sdf.clone()
    begun.refresh()
    assert torch.equal(begun.sdf, before)
    again = begun.to_mesh(dataclasses.replace(PLAIN, target_faces=10**5), None)
    assert is_watertight(again)
    assert volume_iou(again, sdf) > 0.95
    assert again.vertex_colors is not None
    side = again.vertices[:, 0] > 0.2
    assert float((again.vertex_colors[side] - torch.tensor([0.8, 0.4, 0.3])).abs().max()) < 0.02
    with pytest.raises(ValueError, match="not closed"):
        own.begin_from(mesh.replace(faces=mesh.faces[1:]))


def test_hollows_that_nobody_sees_are_filled() -> None:
    shell = surface_of(lambda p: (p.norm(dim=-1) - 0.5).abs() - 0.2)
    assert volume(mesh_of(shell)) < 1.35
    assert volume(shell.to_mesh(PLAIN, None)) == pytest.approx(4.19 * 0.7**3, rel=0.03)


def test_what_is_ahead_of_the_surface_gets_its_colours() -> None:
    surface = surface_of(sphere)
    surface.colors[surface.cut.ends.reshape(-1)] = torch.tensor([2.0, -1.0, 0.5])
    surface.sdf.mul_(5.0)
    surface.refresh()
    assert float(surface.sdf.abs().max()) == surface.settings.band
    surface.sdf.add_(0.8)  # a layer farther in
    fresh = surface.settings.load(surface.tensors())
    assert float((fresh.vertices_and_colors()[1][:, 0] - torch.sigmoid(torch.tensor(2.0))).abs().max()) < 1e-4


def test_regularisers_prefer_what_is_smooth() -> None:
    weights = {"sign_consistency": 1.0, "normal_consistency": 1.0, "laplacian": 1.0, "resolution": 12}
    generator = torch.Generator().manual_seed(0)
    rough, even = noisy(0, **weights), TetMesh(**weights, smoothing=1).begin()
    high, low = rough.regularisers(generator), even.regularisers(generator)
    assert set(high) == {"sign_consistency", "normal_consistency", "laplacian"}
    assert all(float(high[name]) > float(low[name]) > 0 for name in high)
    assert noisy(0, normal_consistency=0.0).regularisers(generator) == {}


def test_a_state_gives_it_back() -> None:
    made, state = noisy(2), State()
    made.save(state)
    again = load(made.settings, State.from_tensors(state.tensors()))
    view = (orbit(10.0, 20.0), 24, torch.ones(1, 3))
    assert torch.equal(made.render(*view).images, again.render(*view).images)
    with pytest.raises(ValueError, match="needs a field"):
        load_field(made.settings, state)
    with pytest.raises(ValueError, match="missing: \\['colors'\\]"):
        made.settings.load({"sdf": made.sdf, "offsets": made.offsets})
    with pytest.raises(ValueError, match="resolution 16 needs sdf of shape"):
        TetMesh(resolution=16).load(made.tensors())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 4}, "resolution must lie in 8..256"),
        ({"ball_radius": 2.0}, "ball_radius"),
        ({"max_offset": 0.5}, "turn inside out"),
        ({"band": 0.0}, "band"),
        ({"smoothing": -1}, "smoothing"),
        ({"laplacian": -1.0}, "it is a weight"),
        ({"sdf_rate": -1.0}, "sdf_rate"),
        ({"max_offset": 0.0, "offset_rate": 2.0}, "no effect while max_offset is 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TetMesh(**settings)


def test_settings_of_a_surface_that_have_no_effect() -> None:
    from gen3d.distillation.x0 import X0
    from gen3d.priors.config import TextPriorConfig
    from gen3d.stages.base import Chosen
    from gen3d.stages.config import DistillConfig, ReconstructConfig

    chosen = Chosen(prior=TextPriorConfig(), representation=TetMesh(), distillation=X0())
    ExtractConfig(level=None).check(chosen)
    with pytest.raises(ValueError, match="set it to null"):
        ExtractConfig().check(chosen)
    with pytest.raises(ValueError, match="resolution is 64, which has no effect"):
        ExtractConfig(level=None, resolution=64).check(chosen)
    with pytest.raises(ValueError, match=r"distortion is 0\.1, which has no effect"):
        DistillConfig(distortion=0.1).check(chosen)
    with pytest.raises(ValueError, match="needs a field, which representation 'tetmesh' is not"):
        ReconstructConfig().check(chosen)
    with pytest.raises(ValueError, match=r"ball_radius is 0\.5, which has no effect while it begins"):
        TetMesh(ball_radius=0.5).check_beginning("it begins with a mesh")


def test_what_is_not_taken_is_refused_with_the_way_to_go() -> None:
    source = TetMesh(resolution=8).begin()
    assert not TetMesh(resolution=8).takes(source.settings)
    with pytest.raises(
        ValueError, match="TetMesh cannot be made of a TetSurface directly; go by way of a mesh"
    ):
        TetMesh(resolution=8).begin_as(source)
