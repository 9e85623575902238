"""Pictures of meshes: agreement of backends, shading, antialiasing, gradients."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from gen3d import meshing, metrics
from gen3d.asset import Material, Mesh
from gen3d.cameras import orbit
from gen3d.render.renderer import RendererName, check_renderer, renderer
from gen3d.render.shading import Mode, render_mesh
from gen3d.topology import Topology

needs_pytorch3d = pytest.mark.skipif(find_spec("pytorch3d") is None, reason="needs pytorch3d")


@pytest.fixture(scope="module")
def ball() -> Mesh:
    axis = torch.linspace(-1.0, 1.0, 20)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    mesh = meshing.extract_mesh(points.norm(dim=-1) - 0.8, inside="below")
    return mesh.replace(vertex_colors=mesh.vertices * 0.4 + 0.5)


def test_a_topology_made_once_serves_after_the_vertices_have_moved(ball: Mesh) -> None:
    cameras, topology = orbit([0.0, 100.0], [0.0, 30.0]), Topology.of(ball.vertices, ball.faces)
    moved = ball.replace(vertices=ball.vertices * torch.tensor([1.0, 0.7, 1.1]))
    found, expected = (render_mesh(moved, cameras, 24, 30, topology=each) for each in (topology, None))
    for name in ("images", "mask", "normals", "depth"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("other", ["reference", pytest.param("pytorch3d", marks=needs_pytorch3d)])
@pytest.mark.parametrize("mode", ["albedo", "shaded", "normal"])
def test_renderers_agree(ball: Mesh, mode: Mode, other: RendererName) -> None:
    cameras = orbit([0.0, 100.0], [0.0, 30.0])
    fast = render_mesh(ball, cameras, 24, 30, mode=mode, background=(0.2, 0.4, 0.6))
    with renderer(other):
        slow = render_mesh(ball, cameras, 24, 30, mode=mode, background=(0.2, 0.4, 0.6))
    for name in ("images", "mask", "normals", "depth"):
        differs = (getattr(fast, name) - getattr(slow, name)).abs().amax(dim=1) > 2e-3
        # PyTorch3D does not snap vertices to a grid: a pixel that an edge nearly meets may show the other side's face.
        assert differs.float().mean() <= (0.01 if other == "pytorch3d" else 0.0)
    assert fast.images.shape == (2, 3, 24, 30)
    assert fast.mask.shape == (2, 1, 24, 30)


def test_ball_has_the_right_disc_colors_and_depth(ball: Mesh) -> None:
    cameras = orbit(90.0, 0.0, fovy_deg=40.0)
    found = render_mesh(ball, cameras, 64, 64, mode="albedo", background=(0.0, 1.0, 0.0))
    distance = float(cameras.positions.norm())
    radius = 32 * 0.8 / (distance**2 - 0.8**2) ** 0.5 / torch.tan(torch.deg2rad(torch.tensor(20.0))).item()
    assert float(found.mask.sum()) == pytest.approx(3.14159 * radius**2, rel=0.01)
    assert float(found.depth[0, 0, 32, 32]) == pytest.approx(distance - 0.8, abs=0.02)
    # From +X: the middle shows x = 0.8, the picture's right is -Z, its top +Y.
    torch.testing.assert_close(
        found.images[0, :, 32, 32], torch.tensor([0.82, 0.5, 0.5]), atol=0.03, rtol=0.0
    )
    assert found.images[0, 2, 32, 50] < 0.4
    assert found.images[0, 1, 14, 32] > 0.6
    torch.testing.assert_close(found.images[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(
        found.normals[0, :, 32, 32], torch.tensor([1.0, 0.0, 0.0]), atol=0.05, rtol=0.0
    )


def test_shading_keeps_the_base_color_in_the_light_and_shows_form(ball: Mesh) -> None:
    gray = ball.replace(vertex_colors=None, material=Material(base_color=(0.6, 0.3, 0.2)))
    image = render_mesh(gray, orbit(0.0, 0.0), 64, 64, mode="shaded").images[0]
    lit = image[:, 20, 26]
    torch.testing.assert_close(lit, torch.tensor([0.6, 0.3, 0.2]), atol=0.06, rtol=0.0)
    assert image[0, 50, 40] < 0.85 * lit[0]


def test_supersampling_smooths(ball: Mesh) -> None:
    cameras = orbit(30.0, 20.0)
    target = torch.nn.functional.avg_pool2d(render_mesh(ball, cameras, 256, 256).images, 8)
    plain = metrics.psnr(render_mesh(ball, cameras, 32, 32).images, target)
    twice = metrics.psnr(render_mesh(ball, cameras, 32, 32, supersample=2).images, target)
    assert plain > 24.0
    assert twice > plain


def test_render_reaches_vertices_colors_and_texture(ball: Mesh) -> None:
    vertices = ball.vertices.clone().requires_grad_()
    colors = torch.full((ball.num_vertices, 3), 0.5, requires_grad=True)
    mesh = ball.replace(vertices=vertices, vertex_colors=colors)
    render_mesh(
        mesh, orbit([0.0, 90.0], 0.0), 32, 32, background=torch.rand(2, 3)
    ).images.square().sum().backward()
    for leaf in (vertices, colors):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
        assert float(leaf.grad.abs().max()) > 0
    texture = torch.full((8, 8, 3), 0.5, requires_grad=True)
    mesh = ball.replace(uvs=ball.vertices[:, :2] * 0.5 + 0.5, material=Material(texture))
    render_mesh(mesh, orbit(0.0, 0.0), 32, 32, mode="albedo").images.sum().backward()
    assert texture.grad is not None
    assert float(texture.grad[3:5, 3:5].min()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "flat"}, "mode must be"),
        ({"supersample": 3}, "supersample must be"),
        ({"background": torch.zeros(3, 3)}, "background must be"),
    ],
)
def test_bad_input(ball: Mesh, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_mesh(ball, orbit([0.0, 90.0], 0.0), 8, 8, **options)


def test_a_renderer_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="renderer is 'gl'; it must be one of warp, pytorch3d, reference"):
        check_renderer("gl")
    monkeypatch.setattr("gen3d.render.renderer.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "galatea\[pytorch3d\]", or use warp'):
        check_renderer("pytorch3d")
    check_renderer("warp")


def test_a_renderer_holds_for_its_block_only(ball: Mesh) -> None:
    cameras = orbit(0.0, 0.0)
    before = render_mesh(ball, cameras, 24, 24)
    with pytest.raises(KeyError), renderer("reference"):
        raise KeyError
    assert torch.equal(render_mesh(ball, cameras, 24, 24).images, before.images)
