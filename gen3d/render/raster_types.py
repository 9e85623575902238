"""What both rasteriser backends share: the raster and the checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Depth is compared as an integer so that every backend and every run picks the same face.
DEPTH_STEPS = 1 << 30
# Vertices snap to this fraction of a pixel for coverage: integer edge functions leave no cracks.
SUBPIXELS = 256
# Snapped coordinates are clamped to this many pixels from the picture's corner.
MAX_PIXELS = 1 << 16
# Faces that reach behind the camera (clip w below this) are left out as a whole.
MIN_W = 1e-6
EMPTY_KEY = (1 << 63) - 1


@dataclass(frozen=True, eq=False)
class Raster:
    """Which face each pixel of V pictures shows. Row 0 is the top; M faces.

    face_id: [V, H, W] int32, -1 where nothing is hit.
    barycentric: [V, H, W, 3] float32, perspective-correct weights of the face's corners; 0 where nothing is hit.
        Carries gradients to the clip-space vertices.
    depth: [V, H, W] float32 distance along the viewing axis in world units (clip w), 0 where nothing is hit. No
        gradient: interpolate clip w for that.
    faces: [M, 3] int64, as given. depth_key: [V, H, W] int64, quantised depth and face packed for comparisons.
    """

    face_id: Tensor
    barycentric: Tensor
    depth: Tensor
    faces: Tensor
    depth_key: Tensor

    @property
    def mask(self) -> Tensor:
        """[V, H, W] bool, True where a face is hit (hard edges)."""
        return self.face_id >= 0


def depth_step(z: Tensor) -> Tensor:
    """Quantised depth, int64, of NDC depth: 0 ... DEPTH_STEPS between the near and the far plane."""
    return ((z * 0.5 + 0.5) * DEPTH_STEPS + 0.0).floor().clamp(-1.0, 2.0 * DEPTH_STEPS).long()


def check_rasterize_inputs(vertices_clip: Tensor, faces: Tensor, height: int, width: int) -> None:
    if vertices_clip.ndim != 3 or vertices_clip.shape[-1] != 4:
        raise ValueError(f"vertices_clip must have shape [V, N, 4], got {list(vertices_clip.shape)}")
    if vertices_clip.dtype != torch.float32:
        raise ValueError(
            f"vertices_clip must be float32, got {vertices_clip.dtype}. Convert it with .float()"
        )
    if faces.ndim != 2 or faces.shape[-1] != 3 or faces.dtype != torch.int64:
        raise ValueError(f"faces must be int64 of shape [M, 3], got {faces.dtype} {list(faces.shape)}")
    if faces.device != vertices_clip.device:
        raise ValueError(
            f"faces are on {faces.device}, vertices_clip on {vertices_clip.device}; use one device"
        )
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value <= 16384:
            raise ValueError(f"{name} must be from 1 to 16384 pixels, got {value}")


def check_attributes(attributes: Tensor, raster: Raster) -> Tensor:
    """[N, C] or [V, N, C] -> [1 or V, N, C], checked."""
    batched = attributes[None] if attributes.ndim == 2 else attributes
    views = raster.face_id.shape[0]
    if batched.ndim != 3 or batched.shape[0] not in (1, views):
        raise ValueError(
            f"attributes must have shape [N, C] or [{views}, N, C], got {list(attributes.shape)}"
        )
    if batched.dtype != torch.float32:
        raise ValueError(f"attributes must be float32, got {batched.dtype}. Convert them with .float()")
    return batched


def check_image(image: Tensor, raster: Raster) -> None:
    if image.ndim != 4 or image.shape[:3] != raster.face_id.shape or image.dtype != torch.float32:
        wanted = list(raster.face_id.shape)
        raise ValueError(
            f"image must be float32 of shape {wanted} + [C], got {image.dtype} {list(image.shape)}"
        )
