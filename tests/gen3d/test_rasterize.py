"""The Warp rasteriser against its torch twin, against PyTorch3D's where that is installed, against exact areas and
against finite differences."""

from __future__ import annotations

import math
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from gen3d.cameras import orbit
from gen3d.render import rasterize as warp_backend
from gen3d.render import rasterize_pytorch3d as pytorch3d_backend
from gen3d.render import rasterize_reference as reference
from gen3d.topology import mesh_edges, weld_index

needs_pytorch3d = pytest.mark.skipif(find_spec("pytorch3d") is None, reason="needs pytorch3d")
BACKENDS = [
    pytest.param(warp_backend, id="warp"),
    pytest.param(reference, id="reference"),
    pytest.param(pytorch3d_backend, id="pytorch3d", marks=needs_pytorch3d),
]


def bumpy_sphere(
    generator: torch.Generator, rows: int = 10, columns: int = 16, bumps: float = 0.2
) -> tuple[Tensor, Tensor]:
    theta = torch.linspace(0.0, math.pi, rows)[1:-1, None]
    phi = torch.arange(columns)[None] * (2.0 * math.pi / columns)
    ring = torch.stack(
        torch.broadcast_tensors(theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()), -1
    )
    vertices = torch.cat([ring.reshape(-1, 3), torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])])
    faces = []
    for i in range(rows - 2):
        for j in range(columns):
            k = (j + 1) % columns
            if i < rows - 3:
                a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
                faces += [[a, c, b], [b, c, d]]
        top, bottom = len(vertices) - 2, len(vertices) - 1
    for j in range(columns):
        k = (j + 1) % columns
        last = (rows - 3) * columns
        faces += [[top, j, k], [bottom, last + k, last + j]]
    radius = 0.7 + bumps * torch.rand(len(vertices), 1, generator=generator)
    return vertices * radius, torch.tensor(faces)


def to_clip(vertices: Tensor, aspect: float = 1.0) -> Tensor:
    cameras = orbit([20.0, 160.0], [15.0, -30.0])
    matrix = cameras.projection(1.0, 6.0, aspect) @ cameras.w2c
    return torch.nn.functional.pad(vertices, (0, 1), value=1.0) @ matrix.transpose(1, 2)


def square(left: float, right: float, bottom: float, top: float, z: float = 0.0) -> Tensor:
    corners = [[left, bottom, z, 1.0], [right, bottom, z, 1.0], [right, top, z, 1.0], [left, top, z, 1.0]]
    return torch.tensor([corners])


SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize("size", [(32, 32), (17, 29), (1, 1)])
def test_backends_agree_forward(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    vertices, faces = bumpy_sphere(generator)
    clip = to_clip(vertices, size[1] / size[0])
    attributes = torch.rand(len(vertices), 5, generator=generator)
    edges = mesh_edges(faces)
    fast, slow = (backend.rasterize(clip, faces, *size) for backend in (warp_backend, reference))
    assert torch.equal(fast.face_id, slow.face_id)
    torch.testing.assert_close(fast.barycentric, slow.barycentric, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(fast.depth, slow.depth, atol=1e-4, rtol=0.0)
    images = [b.interpolate(attributes, r) for b, r in ((warp_backend, fast), (reference, slow))]
    torch.testing.assert_close(*images, atol=1e-4, rtol=0.0)
    smooth = [
        warp_backend.antialias(images[0], fast, clip, edges),
        reference.antialias(images[1], slow, clip, edges),
    ]
    torch.testing.assert_close(*smooth, atol=1e-4, rtol=0.0)


def test_backends_agree_backward() -> None:
    generator = torch.Generator().manual_seed(1)
    vertices, faces = bumpy_sphere(generator)
    edges = mesh_edges(faces)
    inputs = (
        vertices,
        torch.rand(2, len(vertices), 2, generator=generator),
        torch.rand(9, 7, 3, generator=generator),
    )
    weights = torch.rand(2, 33, 30, 4, generator=generator)
    found = []
    for backend in (warp_backend, reference):
        leaves = [value.clone().requires_grad_() for value in inputs]
        clip = to_clip(leaves[0])
        raster = backend.rasterize(clip, faces, 33, 30)
        color = backend.sample_texture(leaves[2], backend.interpolate(leaves[1], raster))
        image = torch.cat([color * raster.mask[..., None], raster.mask[..., None].float()], dim=-1)
        loss = (backend.antialias(image, raster, clip, edges) * weights).sum()
        found.append(torch.autograd.grad(loss, leaves))
    for fast, slow in zip(*found, strict=False):
        assert slow.abs().max() > 0.1
        torch.testing.assert_close(fast, slow, atol=1e-3 * float(slow.abs().max()), rtol=1e-3)


@needs_pytorch3d
@pytest.mark.parametrize("size", [(33, 30), (17, 29), (29, 17)])
def test_pytorch3d_agrees(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(6)
    vertices, faces = bumpy_sphere(generator)
    clip = to_clip(vertices, size[1] / size[0])
    ours, theirs = (backend.rasterize(clip, faces, *size) for backend in (reference, pytorch3d_backend))
    same = ours.face_id == theirs.face_id
    # Ours snaps vertices to a grid, so a pixel centre that an edge nearly meets may fall to the other side.
    assert (~same).sum() <= 0.01 * ours.mask.sum()
    torch.testing.assert_close(theirs.barycentric[same], ours.barycentric[same], atol=1e-4, rtol=0.0)
    torch.testing.assert_close(theirs.depth[same], ours.depth[same], atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_face_wins_and_behind_camera_is_left_out(backend: ModuleType) -> None:
    # The squares' diagonals meet no pixel's centre.
    far, near, behind = (
        square(-0.9, 0.9, -0.9, 0.88, 0.5),
        square(-0.5, 0.5, -0.5, 0.48, -0.5),
        square(-1, 1, -1, 1, -1),
    )
    behind[..., 3] = -1.0
    clip = torch.cat([far, near, behind], dim=1)
    faces = torch.cat([SQUARE_FACES, SQUARE_FACES + 4, SQUARE_FACES + 8])
    raster = backend.rasterize(clip, faces, 20, 20)
    assert raster.face_id[0, 10, 10] in (2, 3)
    assert raster.face_id[0, 2, 10] in (0, 1)
    assert raster.face_id[0, 0, 0] == -1
    assert int(raster.mask.sum()) == 18 * 18


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_cracks_between_faces(backend: ModuleType) -> None:
    generator = torch.Generator().manual_seed(2)
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-2, 2, 12), torch.linspace(-2, 2, 12), indexing="ij"), -1
    )
    grid[1:-1, 1:-1] += 0.1 * torch.randn(10, 10, 2, generator=generator)
    clip = torch.nn.functional.pad(grid.reshape(1, -1, 2), (0, 1), value=0.0)
    clip = torch.nn.functional.pad(clip, (0, 1), value=1.0)
    index = torch.arange(144).reshape(12, 12)
    a, b, c, d = (
        index[:-1, :-1].flatten(),
        index[1:, :-1].flatten(),
        index[1:, 1:].flatten(),
        index[:-1, 1:].flatten(),
    )
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    assert backend.rasterize(clip, faces, 64, 48).mask.all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_interpolation_is_perspective_correct(backend: ModuleType) -> None:
    vertices = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]]) * 0.6
    clip = to_clip(vertices)
    raster = backend.rasterize(clip, SQUARE_FACES, 24, 24)
    cameras = orbit([20.0, 160.0], [15.0, -30.0])
    origins, directions = cameras.rays(24, 24)
    points = backend.interpolate(vertices, raster)
    # Depth along the viewing axis and the pixel's own ray must meet at the interpolated world position.
    forward = -cameras.c2w[:, :3, 2]
    scale = raster.depth / torch.einsum("vhwi,vi->vhw", directions, forward)
    error = (points - (origins + directions * scale[..., None]))[raster.mask].abs().max()
    assert raster.mask.sum() > 100
    assert error < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_antialias_gives_exact_area_and_derivative_of_a_square(backend: ModuleType) -> None:
    size = 16
    shift = torch.tensor(
        [0.3137, -0.2291, 0.4713, 0.1117], requires_grad=True
    )  # pixels: left right bottom top
    edges = mesh_edges(SQUARE_FACES)
    signs = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 1]]).float()
    base = square(-0.5, 0.5, -0.5, 0.5)
    moves = signs * shift * (2.0 / size)
    offset = torch.stack([moves[:, 0] + moves[:, 1], moves[:, 2] + moves[:, 3]], -1)
    clip = base + torch.nn.functional.pad(offset, (0, 2))[None]
    raster = backend.rasterize(clip, SQUARE_FACES, size, size)
    area = backend.antialias(raster.mask[..., None].float(), raster, clip, edges).sum()
    left, right, bottom, top = shift.tolist()
    width, height = 8.0 - left + right, 8.0 - bottom + top
    # Corners are treated by rows and by columns apart: the error is the product of the fractions there.
    assert abs(area.item() - width * height) < 0.5
    (grad,) = torch.autograd.grad(area, shift)
    torch.testing.assert_close(
        grad, torch.tensor([-height, width * 0 + height, -width, width]), atol=0.6, rtol=0.0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_silhouette_gradient_of_tiny_faces_matches_finite_differences(backend: ModuleType) -> None:
    """Faces smaller than a pixel: the mask's moments must still follow the vertices."""
    vertices, faces = bumpy_sphere(torch.Generator().manual_seed(3), rows=24, columns=40, bumps=0.02)
    edges = mesh_edges(faces)
    weight = (
        torch.linspace(-1.0, 1.0, 24)[None, :, None, None] * torch.linspace(0.2, 1.0, 24)[None, None, :, None]
    )

    def moments(parameters: Tensor) -> Tensor:
        clip = to_clip(vertices * (1.0 + parameters[0]) + parameters[1:4])
        raster = backend.rasterize(clip, faces, 24, 24)
        mask = backend.antialias(raster.mask[..., None].float(), raster, clip, edges)
        return torch.stack([mask[0].sum(), (mask * weight).sum()])

    zero = torch.zeros(4)
    jacobian = torch.autograd.functional.jacobian(moments, zero)
    step = 0.02
    differences = torch.stack(
        [(moments(zero + step * e) - moments(zero - step * e)) / (2 * step) for e in torch.eye(4)], dim=1
    )
    # Finite differences average over pixel crossings; the scale of a column is the mean rim motion.
    scale = differences.abs().amax(dim=1, keepdim=True)
    assert ((jacobian - differences).abs() / scale).max() < 0.08, (jacobian, differences)


def test_fitting_a_silhouette_recovers_the_position() -> None:
    vertices, faces = bumpy_sphere(torch.Generator().manual_seed(4), rows=24, columns=40, bumps=0.02)
    edges = mesh_edges(faces)

    def mask(offset: Tensor) -> Tensor:
        clip = to_clip(vertices * 0.7 + offset)
        raster = warp_backend.rasterize(clip, faces, 24, 24)
        return warp_backend.antialias(raster.mask[..., None].float(), raster, clip, edges)

    true = torch.tensor([0.1, -0.08, 0.06])
    target = mask(true)
    offset = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([offset], lr=0.02)
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 60)
        optimizer.zero_grad()
        (mask(offset) - target).square().mean().backward()
        optimizer.step()
    assert (offset.detach() - true).abs().max() < 5e-3


def test_same_input_same_bytes() -> None:
    vertices, faces = bumpy_sphere(torch.Generator().manual_seed(5))
    results = []
    for _ in range(2):
        leaf = vertices.clone().requires_grad_()
        clip = to_clip(leaf)
        raster = warp_backend.rasterize(clip, faces, 40, 40)
        image = warp_backend.interpolate(leaf, raster)
        image = warp_backend.antialias(image, raster, clip, mesh_edges(faces))
        image.square().sum().backward()
        results.append((raster.face_id, image.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=False))


def test_edges_meet_across_seams() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert (mesh_edges(faces)[:, 3] >= 0).sum() == 0
    edges = mesh_edges(faces, weld_index(vertices))
    assert edges.shape == (5, 4)
    assert edges[edges[:, 3] >= 0].tolist() == [[1, 2, 0, 4]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_scenes(backend: ModuleType) -> None:
    clip = square(-0.5, 0.5, -0.5, 0.5)
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    raster = backend.rasterize(clip, nothing, 4, 4)
    assert not raster.mask.any()
    image = backend.antialias(torch.ones(1, 4, 4, 1), raster, clip, mesh_edges(nothing))
    assert torch.equal(image, torch.ones(1, 4, 4, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 4), SQUARE_FACES, 8, 8), r"vertices_clip must have shape \[V, N, 4\]"),
        ((torch.zeros(1, 4, 4).double(), SQUARE_FACES, 8, 8), "must be float32"),
        ((torch.zeros(1, 4, 4), SQUARE_FACES.int(), 8, 8), "faces must be int64"),
        ((torch.zeros(1, 4, 4), SQUARE_FACES, 0, 8), "height must be from 1"),
    ],
)
def test_bad_input(backend: ModuleType, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backend.rasterize(*arguments)
