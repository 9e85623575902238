"""Guidance: pure functions on predictions of any shape [B, ...] and any parameterisation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch


def cfg(uncond: torch.Tensor, cond: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): uncond + scale (cond - uncond).

    `scale` is the standard one: 1 is no guidance. `uncond` comes from the empty or the negative prompt.
    """
    return uncond + scale * (cond - uncond)


def compose(uncond: torch.Tensor, conds: Sequence[torch.Tensor], scales: Sequence[float]) -> torch.Tensor:
    """Several prompts at once (arXiv 2206.01714): uncond + sum of scale_i (cond_i - uncond).

    A negative scale steers away from its prompt while `uncond` stays that of the empty prompt.
    """
    if len(conds) != len(scales):
        raise ValueError(f"conds and scales must be as many, got {len(conds)} and {len(scales)}")
    guided = uncond
    for cond, scale in zip(conds, scales, strict=True):
        guided = guided + scale * (cond - uncond)
    return guided


def rescale(guided: torch.Tensor, cond: torch.Tensor, factor: float) -> torch.Tensor:
    """Undoes the growth in contrast that guidance brings (Lin et al., arXiv 2305.08891, section 3.4).

    The standard deviation is taken over all axes but the first. With latents [B, 4, h, w] that is the paper's
    rule; with views, [B, V, 4, h, w], all views of an object share one factor, as in MVDream's x_0 loss,
    which is this function applied to the two x_0.

    factor: 0 leaves `guided` unchanged, 1 gives it the standard deviation of `cond`.
    """
    if factor == 0.0:
        return guided
    dims = tuple(range(1, guided.ndim))
    ratio = (cond.std(dims, keepdim=True) + 1e-8) / (guided.std(dims, keepdim=True) + 1e-8)
    return guided * (factor * ratio + (1.0 - factor))


def nested_weights(scales: Sequence[float]) -> tuple[float, ...]:
    """How much each prediction counts in `nested`: (1 - s_1, s_1 - s_2, ..., s_n), which sum to 1.

    A prediction of weight 0 need not be computed: with equal scales those in the middle, with s_1 = 1 the first.
    """
    chain = (1.0, *scales)
    return (*(before - after for before, after in pairwise(chain)), chain[-1])


def nested(predictions: Sequence[torch.Tensor | None], scales: Sequence[float]) -> torch.Tensor:
    """Guidance along a chain of growing conditions: p_0 + sum of scale_i (p_i - p_(i-1)).

    With p_0 unconditional, p_1 given a reference picture and p_2 given picture and sound, it is the two-scale
    guidance of talking portraits (after InstructPix2Pix, arXiv 2211.09800, eq. 3). Equal scales s give
    `cfg(p_0, p_n, s)`.

    Args:
        predictions: one more than `scales`, same shape; None is allowed where `nested_weights` is 0.
        scales: 1 for all is no guidance.
    """
    weights = nested_weights(scales)
    if len(predictions) != len(weights):
        raise ValueError(
            f"predictions must be one more than scales, got {len(predictions)} and {len(scales)}"
        )
    guided: torch.Tensor | None = None
    for index, (weight, prediction) in enumerate(zip(weights, predictions, strict=True)):
        if weight == 0.0:
            continue
        if prediction is None:
            raise ValueError(f"prediction {index} counts with weight {weight:g} and cannot be None")
        guided = weight * prediction if guided is None else guided + weight * prediction
    assert guided is not None  # the weights sum to 1
    return guided
