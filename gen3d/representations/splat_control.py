"""Adaptive control of a cloud's density: splats are doubled where the pictures pull at them, and go where they are not
seen (arXiv 2308.04079, section 5). Changes a dictionary of tensors, those of `splat_cloud.SplatCloud`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gen3d.render.splats import rotation_matrices

if TYPE_CHECKING:
    from gen3d.representations.gaussians import GaussiansConfig

_SMALLER = 1.6  # than a long splat are the two that it is parted into
_ROWS: tuple[str, ...] = ("means", "features", "opacities", "scales", "rotations", "probe", "pulls")


def control(
    tensors: dict[str, Tensor], settings: GaussiansConfig, progress: float, generator: torch.Generator
) -> dict[str, Tensor] | None:
    """What is due after `tensors["steps"]` steps, when the share `progress` of a run is done; for each tensor that was
    replaced the old row of each new one, -1 for a fresh one; None if none was."""
    steps = int(tensors["steps"])
    rows = None
    if (
        settings.densify_every
        and steps % settings.densify_every == 0
        and settings.densify_from <= progress <= settings.densify_until
    ):
        rows = _densify(tensors, settings, generator)
    changed: dict[str, Tensor] = {} if rows is None else dict.fromkeys(_ROWS, rows)
    if settings.reset_every and steps % settings.reset_every == 0:
        most = torch.tensor(2.0 * settings.prune_opacity).logit().to(tensors["opacities"])
        tensors["opacities"] = tensors["opacities"].clamp_max(most)
        changed["opacities"] = torch.full_like(tensors["opacities"], -1, dtype=torch.int64)
    return changed or None


def _densify(
    tensors: dict[str, Tensor], settings: GaussiansConfig, generator: torch.Generator
) -> Tensor | None:
    """Double and prune; the old row of each new one, -1 for a fresh one, None where all stayed as they were."""
    count = len(tensors["means"])
    device = tensors["means"].device
    pull = tensors["pulls"][:, 0] / tensors["pulls"][:, 1].clamp_min(1.0)
    tensors["pulls"].zero_()
    lengths = tensors["scales"].exp()
    longest = lengths.amax(dim=1)
    keep = (tensors["opacities"].sigmoid() >= settings.prune_opacity) & (longest <= settings.prune_scale)
    pulled = keep & (pull > settings.densify_above * pull[keep].mean())
    room = settings.max_points - int(keep.sum())
    ranked = torch.where(pulled, pull, -1.0).argsort(descending=True, stable=True)[:room]
    doubled = torch.zeros_like(pulled)
    doubled[ranked] = True
    doubled &= pulled
    split = doubled & (longest > settings.split_above)
    stay = (keep & ~split).nonzero()[:, 0]
    if not bool(keep.any()) or (len(stay) == count and not bool(doubled.any())):
        return None  # a cloud without splats would never come back
    clones = (doubled & ~split).nonzero()[:, 0]
    halves = split.nonzero()[:, 0].repeat(2)
    source = torch.cat([stay, clones, halves])
    fresh = len(stay) + len(clones)
    for name in _ROWS:
        tensors[name] = tensors[name][source]
    drawn = torch.randn(len(halves), 3, generator=generator, device=generator.device).to(device)
    offset = rotation_matrices(tensors["rotations"][fresh:]) @ (drawn * lengths[halves])[..., None]
    tensors["means"][fresh:] += offset[..., 0]
    tensors["scales"][fresh:] -= torch.tensor(_SMALLER, device=device).log()
    return torch.cat([stay, torch.full((len(source) - len(stay),), -1, device=device)])
