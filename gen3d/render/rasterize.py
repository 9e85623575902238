"""A differentiable mesh rasteriser on Warp: CPU and CUDA from one source.

Four steps: `rasterize` finds the face of every pixel, `interpolate` carries vertex attributes there,
`sample_texture` looks colours up, `antialias` blends across silhouettes. Gradients reach attributes, textures and
clip-space vertices: inside faces through the barycentric weights, at silhouettes through `antialias`.

Clip space is OpenGL's (y up, z in [-w, w]); pictures have row 0 at the top. float32. On a CPU the same input gives
the same bytes; on CUDA the forward pass does too (but for the order of sums in `antialias`), gradients do not.
`rasterize_reference` has the same functions in plain torch and is the specification.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen3d.render import raster_kernels as kernels
from gen3d.render import silhouette_kernels as silhouettes
from gen3d.render.raster_types import (
    EMPTY_KEY,
    Raster,
    check_attributes,
    check_image,
    check_rasterize_inputs,
)
from gen3d.render.warp_launch import launch

__all__ = ["Raster", "antialias", "interpolate", "rasterize", "sample_texture"]

# Rows of one face that a GPU works on at once; a CPU runs threads one after the other.
_GPU_STRIPS = 8


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
        device, views = clip.device, clip.shape[0]
        strips = _GPU_STRIPS if device.type == "cuda" else 1
        keys = torch.full((views, height, width), EMPTY_KEY, dtype=torch.int64, device=device)
        face_id = torch.empty((views, height, width), dtype=torch.int32, device=device)
        barycentric = torch.zeros((views, height, width, 3), device=device)
        depth = torch.zeros((views, height, width), device=device)
        shape = (clip, wp.vec4), (faces, wp.int32)
        launch(kernels.draw_kernel, (views, len(faces), strips), device, *shape, strips, (keys, wp.int64))
        results = (face_id, wp.int32), (barycentric, wp.vec3), (depth, wp.float32)
        launch(kernels.resolve_kernel, (views, height, width), device, *shape, (keys, wp.int64), *results)
        ctx.save_for_backward(clip, faces, face_id)
        ctx.mark_non_differentiable(face_id, depth, keys)
        return face_id, barycentric, depth, keys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _face: Any, grad_barycentric: Tensor, _depth: Any, _keys: Any) -> tuple[Any, ...]:
        clip, faces, face_id = ctx.saved_tensors
        grad_clip = torch.zeros_like(clip)
        shape = (clip, wp.vec4), (faces, wp.int32), (face_id, wp.int32)
        gradients = (grad_barycentric.contiguous(), wp.vec3), (grad_clip, wp.float32)
        launch(kernels.resolve_backward_kernel, tuple(face_id.shape), clip.device, *shape, *gradients)
        return grad_clip, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, faces: Tensor, face_id: Tensor, barycentric: Tensor) -> Tensor:
        result = attributes.new_zeros(*face_id.shape, attributes.shape[-1])
        ctx.save_for_backward(attributes, faces, face_id, barycentric)
        inputs = _Interpolate._inputs(attributes, faces, face_id, barycentric)
        launch(
            kernels.interpolate_kernel, tuple(face_id.shape), face_id.device, *inputs, (result, wp.float32)
        )
        return result

    @staticmethod
    def _inputs(attributes: Tensor, faces: Tensor, face_id: Tensor, barycentric: Tensor) -> tuple[Any, ...]:
        return (attributes, wp.float32), (faces, wp.int32), (face_id, wp.int32), (barycentric, wp.vec3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        attributes, _, face_id, barycentric = ctx.saved_tensors
        grad_attributes, grad_barycentric = torch.zeros_like(attributes), torch.zeros_like(barycentric)
        launch(
            kernels.interpolate_backward_kernel,
            tuple(face_id.shape),
            grad.device,
            *_Interpolate._inputs(*ctx.saved_tensors),
            (grad.contiguous(), wp.float32),
            (grad_attributes, wp.float32),
            (grad_barycentric, wp.vec3),
        )
        return grad_attributes, None, None, grad_barycentric


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, clip: Tensor, edges: Tensor, keys: Tensor) -> Tensor:
        views, height, width = keys.shape
        pairs = torch.full((views, 2, height, width), EMPTY_KEY, dtype=torch.int64, device=clip.device)
        shape = (clip, wp.vec4), (edges, wp.int32)
        found = (keys, wp.int64), (pairs, wp.int64)
        launch(silhouettes.find_pairs_kernel, (views, len(edges)), clip.device, *shape, *found)
        result = image.clone()
        images = (image, wp.float32), (result, wp.float32)
        launch(silhouettes.blend_kernel, tuple(pairs.shape), clip.device, *shape, (pairs, wp.int64), *images)
        ctx.save_for_backward(image, clip, edges, pairs)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        image, clip, edges, pairs = ctx.saved_tensors
        grad = grad.contiguous()
        grad_image, grad_clip = grad.clone(), torch.zeros_like(clip)
        shape = (clip, wp.vec4), (edges, wp.int32), (pairs, wp.int64)
        images = [(each, wp.float32) for each in (image, grad, grad_image, grad_clip)]
        launch(silhouettes.blend_backward_kernel, tuple(pairs.shape), clip.device, *shape, *images)
        return grad_image, grad_clip, None, None


def rasterize(vertices_clip: Tensor, faces: Tensor, height: int, width: int) -> Raster:
    """The nearest face of every pixel centre. Both sides of a face are drawn; faces reaching behind the camera not.

    vertices_clip: [V, N, 4] float32 clip positions. faces: [M, 3] int64.
    """
    check_rasterize_inputs(vertices_clip, faces, height, width)
    face_id, barycentric, depth, keys = _Rasterize.apply(  # pyright: ignore[reportGeneralTypeIssues]
        vertices_clip.contiguous(), faces.int().contiguous(), height, width
    )
    return Raster(face_id, barycentric, depth, faces, keys)


def interpolate(attributes: Tensor, raster: Raster) -> Tensor:
    """Vertex attributes [N, C] or [V, N, C] at every pixel: [V, H, W, C], 0 where nothing is hit."""
    batched = check_attributes(attributes, raster).contiguous()
    faces = raster.faces.int().contiguous()
    return _Interpolate.apply(batched, faces, raster.face_id, raster.barycentric.contiguous())  # pyright: ignore


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear look-up in a texture [Ht, Wt, C] at uv [V, H, W, 2] (origin top left, clamped): [V, H, W, C]."""
    views, height, width, _ = uv.shape
    grid = (uv * 2.0 - 1.0).reshape(1, views * height, width, 2)
    source = texture.permute(2, 0, 1)[None]
    found = torch.nn.functional.grid_sample(source, grid, padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0).reshape(views, height, width, -1)


def antialias(image: Tensor, raster: Raster, vertices_clip: Tensor, edges: Tensor) -> Tensor:
    """Blend neighbouring pixels across silhouettes by where the edge passes between their centres.

    image: [V, H, W, C] float32, colour and background already put together; any mask is best a channel of it.
    vertices_clip: [V, N, 4], those of the raster. edges: [E, 4] from `gen3d.topology.mesh_edges`.
    Gradients reach the image and, through the position of the edges, the vertices.
    """
    check_image(image, raster)
    return _Antialias.apply(  # pyright: ignore[reportReturnType]
        image.contiguous(), vertices_clip.contiguous(), edges.int().contiguous(), raster.depth_key
    )
