"""The rasteriser of PyTorch3D (arXiv 2007.08501) in the place of our own: the faces it finds, everything else as ours.

Needs the package pytorch3d (extra `pytorch3d`). On a CPU it tries every face at every pixel, which is hundreds of
times slower than Warp's kernels; on CUDA it sorts faces into bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gen3d.render.raster_types import (
    DEPTH_STEPS,
    EMPTY_KEY,
    MIN_W,
    Raster,
    check_rasterize_inputs,
    depth_step,
)
from gen3d.render.rasterize import antialias, interpolate, sample_texture
from gen3d.render.rasterize_reference import raster_of

__all__ = ["Raster", "antialias", "interpolate", "rasterize", "sample_texture"]


def rasterize(vertices_clip: Tensor, faces: Tensor, height: int, width: int) -> Raster:
    """As `gen3d.render.rasterize.rasterize`, but that a pixel whose centre lies exactly on an edge stays empty, and so
    does one whose nearest face is beyond the near or far plane."""
    check_rasterize_inputs(vertices_clip, faces, height, width)
    with torch.no_grad():
        face_id, z = _visible(vertices_clip, faces, height, width)
        step = depth_step(z)
        hit = (face_id >= 0) & (step >= 0) & (step <= DEPTH_STEPS)
        keys = torch.where(hit, step * (1 << 32) + face_id, EMPTY_KEY)
    return raster_of(keys, vertices_clip, faces)


def _visible(clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The nearest face of every pixel, int64 and -1 where there is none, and its NDC depth there: [V, H, W] each."""
    from pytorch3d.renderer.mesh.rasterize_meshes import (  # pyright: ignore[reportMissingImports]
        rasterize_meshes,
    )
    from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]

    w = clip[..., 3:]
    kept = [each.nonzero()[:, 0] for each in (w[:, faces, 0] >= MIN_W).all(-1)]
    of_packed = torch.cat(kept)
    if not len(of_packed):
        empty = torch.full((len(clip), height, width), -1, device=clip.device)
        return empty, torch.zeros(empty.shape, device=clip.device)
    # There the shorter side of a picture is 2 long, x points to the left, and what has a z below 0 is not drawn.
    short = min(height, width)
    scale = torch.tensor([-width / short, height / short, 1.0], device=clip.device)
    points = clip[..., :3] / w.clamp_min(MIN_W) * scale + torch.tensor([0.0, 0.0, 2.0], device=clip.device)
    found, depth, _, _ = rasterize_meshes(
        Meshes(verts=list(points), faces=[faces[each] for each in kept]),
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=False,
        cull_backfaces=False,
    )
    index = found[..., 0]
    return torch.where(index >= 0, of_packed[index.clamp_min(0)], -1), depth[..., 0] - 2.0
