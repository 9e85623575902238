"""Checks that hold for every representation which is rendered through the rasteriser."""

from __future__ import annotations

import torch

from gen3d.cameras import orbit
from gen3d.representations.base import Representation, RepresentationConfig


def gradient_error(config: RepresentationConfig, begun: Representation, name: str, seed: int = 0) -> float:
    """Relative error of the derivative of a weighted sum over images, opacity, depth and normals, along a direction in
    the tensor `name`, against central differences.

    A picture is smooth but where an edge crosses a pixel's centre; of a few steps the one that meets the fewest such
    crossings before rounding sets in counts.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {key: value.clone() for key, value in begun.tensors().items()}
    cameras, size = orbit([20.0, 140.0], 25.0), 32
    weights = torch.rand(2, 8, size, size, generator=generator)

    def value(changed: torch.Tensor) -> torch.Tensor:
        shown = config.load({**tensors, name: changed}).render(
            cameras, size, torch.full((2, 3), 0.3), normals=True
        )
        assert shown.depth is not None
        assert shown.normals is not None
        layers = [shown.images, shown.opacity, 0.3 * shown.depth, shown.normals]
        return (torch.cat(layers, dim=1).double() * weights).sum()

    at = tensors[name].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(at), at)
    aside = torch.randn(at.shape, generator=generator)
    direction = gradient / gradient.norm() + 0.3 * aside / aside.norm()
    expected = float((gradient.double() * direction).sum())
    assert abs(expected) > 1e-3
    errors = []
    for step in (3e-3, 1e-3, 3e-4, 1e-4):
        high, low = (float(value(tensors[name] + sign * step * direction)) for sign in (1, -1))
        errors.append(abs((high - low) / (2.0 * step) / expected - 1.0))
    return min(errors)
