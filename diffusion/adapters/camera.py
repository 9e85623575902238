"""Camera embedding in MVDream's layout, read by a UNet built with `class_embed_type="projection"`.

The last four of its 16 numbers are the same for every camera, so that two of them can tell what a view shows besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffusion.domains import DOMAINS

CAMERA_DIM = 16
_BOTTOM_ROW = 12  # where the matrix's last row, (0, 0, 0, 1), begins

# MVDream's world has +Z up and the object's face on +X; ours has +Y up and the face on +Z. Turning the axes
# here lets its public weights take our cameras as they are.
_OUR_AXES_IN_MVDREAM_ORDER = [2, 0, 1]


def camera_condition(c2w: torch.Tensor, domain: torch.Tensor | None = None) -> torch.Tensor:
    """Flattens cameras to the 16 numbers that MVDream's embedding takes.

    The camera's distance is removed (position scaled to unit length), so only its direction counts.

    Args:
        c2w: [..., 4, 4] camera-to-world, glTF camera (x right, y up, looks down -z), world +Y up; unchanged.
        domain: [...] long, what each view shows, an index into `DOMAINS`; None is colours.

    Returns:
        [..., 16] the row-major matrix in MVDream's world axes (+Z up, the object faces +X). A view of depth has a 1 as
        the first number of the matrix's last row, one of normals as the second, one of colours neither.
    """
    if c2w.shape[-2:] != (4, 4):
        raise ValueError(f"c2w must have shape [..., 4, 4], got {list(c2w.shape)}")
    top = c2w[..., _OUR_AXES_IN_MVDREAM_ORDER, :]
    position = top[..., 3:]
    position = position / (torch.linalg.vector_norm(position, dim=-2, keepdim=True) + 1e-8)
    matrix = torch.cat([torch.cat([top[..., :3], position], dim=-1), c2w[..., 3:, :]], dim=-2)
    numbers = matrix.flatten(-2)
    if domain is None:
        return numbers
    if domain.shape != numbers.shape[:-1]:
        raise ValueError(
            f"domain must be {list(numbers.shape[:-1])} as the cameras are, got {list(domain.shape)}"
        )
    for index in range(1, len(DOMAINS)):
        numbers[..., _BOTTOM_ROW + index - 1] += domain.to(numbers.device) == index
    return numbers


def has_camera_embedding(unet: UNet2DConditionModel) -> bool:
    """True when `unet` takes the 16 numbers of `camera_condition` as `class_labels`."""
    return reads_cameras(unet.config)


def reads_cameras(config: Mapping[str, Any]) -> bool:
    """`has_camera_embedding`, by the UNet's config."""
    return (
        config["class_embed_type"] in ("projection", "simple_projection")
        and config["projection_class_embeddings_input_dim"] == CAMERA_DIM
    )


def camera_labels(
    unet: UNet2DConditionModel, camera: torch.Tensor | None, domain: torch.Tensor | None = None
) -> torch.Tensor | None:
    """The `class_labels` [(B V), 16] of `unet` for cameras [B, V, 4, 4] and, as `camera_condition` takes them, domains
    [B, V]; None for a UNet that takes none.

    Raises:
        ValueError: when cameras are given to a UNet without a camera embedding, or missing for one with it.
    """
    if has_camera_embedding(unet):
        if camera is None:
            raise ValueError(
                "camera is missing: this backbone has a camera embedding; give camera=c2w [B, V, 4, 4]"
            )
        return camera_condition(camera, domain).flatten(0, -2)
    if camera is not None:
        raise ValueError(
            "camera was given, but this backbone has no camera embedding (class_embed_type='projection' with "
            f"{CAMERA_DIM} inputs); leave camera out or load a multiview backbone such as 'tiny'"
        )
    return None
