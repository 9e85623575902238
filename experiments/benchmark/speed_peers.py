"""Pieces of Galatea beside those of others that do the same, on the same input."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmark.speed_shapes import bumpy_sphere, rays_through, view
from experiments.benchmark.timing import Work, plain
from gen3d.cameras import Cameras
from gen3d.render.rasterize import rasterize
from gen3d.render.rays import render_rays
from gen3d.representations.gaussians import GaussiansConfig
from gen3d.representations.hashgrid import HashgridConfig

OURS = "galatea"
_DENSE = 1e4  # optical density that a cell is said to reach, so that none counts as empty


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Works that do the same, ours and the peer's, where there is one.

    about: what they do. target: how many times as fast ours should be, or within how many seconds it should be done.
    missing: why the peer takes no part. facts: what was found about the work, for the table.
    """

    about: str
    works: dict[str, Work]
    peer: str = ""
    missing: str = ""
    target: float | None = None
    target_seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def rasteriser(size: int, subdivisions: int, device: torch.device, *, target: float | None) -> Comparison:
    """Which face each pixel of one view shows: ours on Warp, and PyTorch3D's `rasterize_meshes`."""
    clip, faces = _in_clip_space(subdivisions, device)
    works = {OURS: plain(lambda: rasterize(clip, faces, size, size))}
    facts: dict[str, Any] = {}
    about = f"rasteriser, {len(faces):,} faces at {size} x {size}, forward"
    missing = _lacks("pytorch3d")
    if not missing:
        from pytorch3d.renderer.mesh.rasterize_meshes import (  # pyright: ignore[reportMissingImports]
            rasterize_meshes,
        )
        from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]

        # x points to the left there, and what has a z below 0 is not drawn.
        points = clip[0, :, :3] / clip[0, :, 3:] * clip.new_tensor([-1.0, 1.0, 1.0]) + clip.new_tensor(
            [0, 0, 2]
        )
        mesh = Meshes(verts=[points], faces=[faces])

        def theirs() -> tuple[Tensor, ...]:
            return rasterize_meshes(
                mesh, image_size=(size, size), blur_radius=0.0, faces_per_pixel=1, perspective_correct=False
            )

        try:
            found = theirs()[0][..., 0] >= 0
        except RuntimeError as error:  # a build without CUDA
            missing = f"pytorch3d: {str(error).splitlines()[0]}"
        else:
            works["pytorch3d"] = plain(theirs)
            mine = rasterize(clip, faces, size, size).mask.bool().view_as(found)
            facts["same_pixels"] = float((found & mine).sum() / (found | mine).sum())
    return Comparison(about=about, works=works, peer="pytorch3d", missing=missing, target=target, facts=facts)


def rasteriser_gradient(size: int, subdivisions: int, device: torch.device) -> Comparison:
    """Our rasteriser with gradients of the vertices."""
    clip, faces = _in_clip_space(subdivisions, device)

    def go() -> None:
        leaf = clip.clone().requires_grad_(True)
        rasterize(leaf, faces, size, size).barycentric.square().sum().backward()

    about = f"rasteriser, {len(faces):,} faces at {size} x {size}, forward and backward"
    return Comparison(about=about, works={OURS: plain(go)})


def _in_clip_space(subdivisions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    vertices, faces = bumpy_sphere(subdivisions)
    camera = view()
    local = F.pad(vertices, (0, 1), value=1.0) @ camera.w2c[0].T
    clip = local @ camera.projection()[0].T
    return clip[None].to(device), faces.to(device)


def hashgrid(
    size: int,
    samples: int,
    hidden_layers: int,
    device: torch.device,
    *,
    target: float | None,
    skipping: bool = False,
) -> Comparison:
    """A training step (no optimiser) of rays through a hash grid as large as nerfstudio's NerfactoField, and of that.

    Neither leaves a sample out, unless `skipping` asks for ours as it begins, which leaves out what is empty; nerfacto
    has other means for that.
    """
    origins, directions = (each.to(device) for each in rays_through(size))
    wanted = torch.rand(len(origins), 3, generator=torch.Generator().manual_seed(0)).to(device)
    settings = HashgridConfig(
        num_levels=16,
        features=2,
        log2_hashmap_size=19,
        base_resolution=16,
        finest_resolution=2048,
        hidden_width=64,
        hidden_layers=hidden_layers,
        num_samples=samples,
    )
    grid = settings.begin(device)
    if not skipping:
        everywhere = torch.tensor([0.0, _DENSE], device=device)
        grid = settings.load(
            {**grid.tensors(), "cell_density": everywhere.repeat(settings.occupancy_resolution**3, 1)}
        )
    learning = [grid.named[name].requires_grad_(True) for name in grid.rates()]
    black = torch.zeros(3, device=device)

    def ours() -> Any:
        for each in learning:
            each.grad = None
        met = render_rays(grid, origins, directions, black, num_samples=samples)
        (met.rgb - wanted).square().mean().backward()
        return met

    met = ours()
    facts: dict[str, Any] = {"samples": len(met.kept)}
    layers = f"{hidden_layers} hidden layer{'s' * (hidden_layers > 1)}"
    about = f"hash grid, {size} x {size} rays x {samples} samples, forward and backward, {layers}"
    if skipping:
        return Comparison(
            about=f"{about}, empty cells left out as it begins", works={OURS: plain(ours)}, facts=facts
        )
    assert len(met.kept) == len(origins) * samples, "a sample was left out"
    missing = _lacks("nerfstudio")
    works = {OURS: plain(ours)}
    if not missing:
        works["nerfacto"] = plain(_nerfacto(origins, directions, met.t, met.step, wanted))
    return Comparison(about=about, works=works, peer="nerfacto", missing=missing, target=target, facts=facts)


def _nerfacto(
    origins: Tensor, directions: Tensor, t: Tensor, step: Tensor, wanted: Tensor
) -> Callable[[], object]:
    """The same step by nerfstudio: its field in torch at the samples `t [N, S]`, `step [N]` long, and its renderer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        from nerfstudio.cameras.rays import Frustums, RaySamples  # pyright: ignore[reportMissingImports]
        from nerfstudio.field_components.field_heads import (  # pyright: ignore[reportMissingImports]
            FieldHeadNames,
        )
        from nerfstudio.fields.nerfacto_field import NerfactoField  # pyright: ignore[reportMissingImports]
        from nerfstudio.model_components.renderers import RGBRenderer  # pyright: ignore[reportMissingImports]

    cube = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    their = NerfactoField(cube, num_images=1, implementation="torch").to(t.device).train()
    renderer = RGBRenderer(background_color="black").train()
    half = (0.5 * step)[:, None, None].expand(*t.shape, 1)
    samples = RaySamples(
        frustums=Frustums(
            origins=origins[:, None].expand(*t.shape, 3),
            directions=directions[:, None].expand(*t.shape, 3),
            starts=t[..., None] - half,
            ends=t[..., None] + half,
            pixel_area=torch.ones_like(half),
        ),
        camera_indices=torch.zeros(*t.shape, 1, dtype=torch.long, device=t.device),
        deltas=2.0 * half,
    )

    def go() -> None:
        for each in their.parameters():
            each.grad = None
        found = their(samples)
        weights = samples.get_weights(found[FieldHeadNames.DENSITY])
        rgb = renderer(rgb=found[FieldHeadNames.RGB], weights=weights)
        (rgb - wanted).square().mean().backward()

    return go


def gaussians(count: int, size: int, device: torch.device, *, target_seconds: float | None) -> Comparison:
    """A picture of splats and its gradients: by Warp, and by gsplat's CUDA kernels."""
    missing = _lacks("gsplat")
    if not missing and device.type != "cuda":
        missing = "gsplat: needs device=cuda"
    works = {OURS: plain(_splats("warp", count, size, device))}
    if not missing:
        works["gsplat"] = plain(_splats("gsplat", count, size, device))
    return Comparison(
        about=f"Gaussian splatting, {count:,} splats at {size} x {size}, forward and backward",
        works=works,
        peer="gsplat",
        missing=missing,
        target_seconds=target_seconds,
    )


def _splats(backend: Any, count: int, size: int, device: torch.device) -> Callable[[], object]:
    cloud = GaussiansConfig(num_points=count, radius=0.8, backend=backend).begin(device)
    learning = [cloud.tensors()[name].requires_grad_(True) for name in cloud.rates()]
    camera: Cameras = view().to(device)
    background = torch.zeros(1, 3, device=device)
    wanted = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)

    def go() -> None:
        for each in learning:
            each.grad = None
        seen = cloud.render(camera, size, background)
        (seen.images - wanted).square().mean().backward()

    return go


def _lacks(package: str) -> str:
    """Why a package takes no part; "" where it is there."""
    return "" if importlib.util.find_spec(package) else f"{package}: not installed"
