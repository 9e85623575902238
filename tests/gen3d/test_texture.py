"""Unwrapping and baking: the texture shows the colour of the surface, seams included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d import meshing, metrics, texture
from gen3d.asset import Mesh


@pytest.fixture(scope="module")
def torus() -> Mesh:
    axis = torch.linspace(-1.0, 1.0, 40)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    ring = torch.stack([points[..., (0, 2)].norm(dim=-1) - 0.6, points[..., 1]], dim=-1).norm(dim=-1) - 0.25
    mesh = meshing.decimate(meshing.extract_mesh(ring, inside="below"), 1500)
    return texture.unwrap(meshing.with_normals(mesh), size=256)


def rainbow(points: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sin(3.0 * points + torch.tensor([0.0, 1.0, 2.0]))


def test_unwrap_keeps_the_surface(torus: Mesh) -> None:
    assert torus.uvs is not None
    assert torus.normals is not None
    assert meshing.is_watertight(torus)
    assert torus.uvs.min() >= 0.0
    assert torus.uvs.max() <= 1.0
    assert not meshing.is_watertight(torus.replace(vertices=torus.vertices + torus.uvs.mean(1, keepdim=True)))
    torch.testing.assert_close(torus.normals.norm(dim=-1), torch.ones(torus.num_vertices))


def test_charts_do_not_overlap(torus: Mesh) -> None:
    assert torus.uvs is not None
    a, b, c = (torus.uvs[torus.faces[:, i]].double() for i in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs().sum() / 2.0
    covered, _ = texture.texel_points(torus, 512)
    assert float(covered.float().mean()) == pytest.approx(float(area), abs=0.03)
    assert area > 0.4


def test_unwrap_is_deterministic(torus: Mesh) -> None:
    again = [texture.unwrap(meshing.merge_positions(torus), size=256) for _ in range(2)]
    assert torch.equal(again[0].vertices, again[1].vertices)
    assert torch.equal(again[0].uvs, again[1].uvs)  # pyright: ignore[reportArgumentType]


def test_baked_colors_match_everywhere_on_the_surface(torus: Mesh) -> None:
    baked = texture.bake(torus, rainbow, size=256)
    points, index, weights = metrics.sample_surface(baked, 5000, generator=torch.Generator().manual_seed(0))
    error = (texture.surface_colors(baked, index, weights) - rainbow(points)).abs()
    assert error.mean() < 5e-3
    # The worst is at chart borders, where half of a texel's footprint is padding.
    assert error.max() < 0.08


def test_padding_reaches_as_far_as_asked(torus: Mesh) -> None:
    white = texture.bake(torus, torch.ones_like, size=128).material.base_color_texture
    some = texture.bake(torus, torch.ones_like, size=128, padding=2).material.base_color_texture
    assert white is not None
    assert some is not None
    assert bool((white == 1.0).all())
    covered, _ = texture.texel_points(torus, 128)
    grown = torch.nn.functional.max_pool2d(covered[None].float(), 3, 1, 1)[0] > 0
    assert bool((some[grown] == 1.0).all())
    assert bool((some == 0.0).any())


def test_dilate_golden() -> None:
    image, covered = torch.zeros(1, 5, 1), torch.zeros(1, 5, dtype=torch.bool)
    image[0, 0], image[0, 4] = 1.0, 3.0
    covered[0, 0] = covered[0, 4] = True
    assert texture.dilate(image, covered, padding=1)[0, :, 0].tolist() == [1.0, 1.0, 0.0, 3.0, 3.0]


def test_texture_becomes_vertex_colors(torus: Mesh) -> None:
    colored = texture.texture_to_vertex_colors(texture.bake(torus, rainbow, size=256))
    assert colored.vertex_colors is not None
    assert colored.uvs is None
    assert (colored.vertex_colors - rainbow(torus.vertices)).abs().mean() < 0.01


def test_spread_keeps_what_is_known_and_carries_it_on(torus: Mesh) -> None:
    mesh = meshing.merge_positions(torus)
    wanted = rainbow(mesh.vertices)
    assert (texture.spread(mesh, wanted, torch.ones(mesh.num_vertices)) - wanted).abs().mean() < 0.02
    known = (mesh.vertices[:, 0] > 0.0).float()
    constant = torch.full((mesh.num_vertices, 3), 0.4)
    found = texture.spread(mesh, torch.where(known[:, None] > 0.0, constant, 0.9), known)
    torch.testing.assert_close(found, constant, atol=0.02, rtol=0.0)
    # Nothing is known: everything stays, save for what smoothing does.
    none = texture.spread(mesh, constant, torch.zeros(mesh.num_vertices))
    torch.testing.assert_close(none, constant, atol=1e-4, rtol=0.0)


def test_bad_input(torus: Mesh) -> None:
    with pytest.raises(ValueError, match="has no faces"):
        texture.unwrap(torus.replace(faces=torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="padding must be"):
        texture.unwrap(torus, size=64, padding=40)
    with pytest.raises(ValueError, match="has no uvs"):
        texture.bake(torus.replace(uvs=None), rainbow)
    with pytest.raises(ValueError, match=r"return \[N, 3\]"):
        texture.bake(torus, lambda points: points[:, :2], size=64)
    with pytest.raises(ValueError, match="NaN or Inf"):
        texture.bake(torus, lambda points: points / 0.0, size=64)
    with pytest.raises(ValueError, match="size must be"):
        texture.bake(torus, rainbow, size=0)
