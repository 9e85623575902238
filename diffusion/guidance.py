"""Guidance: pure functions on predictions of any shape [B, ...] and any parameterisation, and how these are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import torch

from diffusion.conditioning import Inputs


class Joinable(Protocol):
    """What a denoiser is given besides latents and timestep: `Inputs`, or a model's own conditions."""

    @staticmethod
    def cat(items: Sequence[Any]) -> Any:
        """The objects of several, one after another."""
        ...


Given = TypeVar("Given", bound=Joinable)
# (latents, timestep, what is given) -> prediction: a `Denoiser`, `Backbone.denoise`, a talking model
Predict = Callable[[torch.Tensor, "torch.Tensor | int", Given], torch.Tensor]


def predict_together(
    predict: Predict[Given],
    latents: torch.Tensor,
    timestep: torch.Tensor | int,
    given: Sequence[Given],
    *,
    at_once: int | None = None,
) -> list[torch.Tensor]:
    """What `predict` says of the same noisy latents when given each of K things: K predictions, in that order.

    Several are made in one forward pass over as many copies of the B objects, which a GPU does in less time than one
    pass after another, and in more memory. The numbers of a pass depend a little, in the last bits, on its size.

    Args:
        predict: the model, called as (latents, timestep, one of `given` or several of them joined).
        latents: [B, ...].
        timestep: int, [], [B] or [B, V], long.
        given: K of the same kind and for the same B objects. Of `Inputs`, one row of words may serve all objects.
        at_once: how many to put into one forward pass; None puts all into one, 1 joins nothing.
    """
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once must be at least 1, or None for all, got {at_once}")
    t = torch.as_tensor(timestep, device=latents.device)
    size = at_once or max(1, len(given))
    predictions: list[torch.Tensor] = []
    for start in range(0, len(given), size):
        chunk = given[start : start + size]
        if len(chunk) == 1:
            predictions.append(predict(latents, timestep, chunk[0]))
            continue
        # In a joined batch, one row for all objects would be a row for all of the others' objects too.
        parts: list[Any] = [
            each.for_objects(len(latents)) if isinstance(each, Inputs) else each for each in chunk
        ]
        copies = len(parts)
        times = torch.cat([t] * copies) if t.ndim else timestep
        output = predict(torch.cat([latents] * copies), times, parts[0].cat(parts))
        predictions += output.chunk(copies)
    return predictions


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


def check_guidance(guidance_scale: float, guidance_rescale: float) -> None:
    """ValueError for a scale that is no finite number, or a rescale outside [0, 1]."""
    if not math.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale must be a finite number, got {guidance_scale}")
    if not 0.0 <= guidance_rescale <= 1.0:
        raise ValueError(f"guidance_rescale must lie in [0, 1], got {guidance_rescale}")


def rescale(
    guided: torch.Tensor, cond: torch.Tensor, factor: float, counted: torch.Tensor | None = None
) -> torch.Tensor:
    """Undoes the growth in contrast that guidance brings (Lin et al., arXiv 2305.08891, section 3.4).

    The standard deviation is taken over all axes but the first. With latents [B, 4, h, w] that is the paper's
    rule; with views, [B, V, 4, h, w], all views of an object share one factor, as in MVDream's x_0 loss,
    which is this function applied to the two x_0.

    factor: 0 leaves `guided` unchanged, 1 gives it the standard deviation of `cond`.
    counted: [B, V] bool, the views that the deviations are taken of, at least one of each object; None for all.
    """
    if factor == 0.0:
        return guided
    ratio = (_deviation(cond, counted) + 1e-8) / (_deviation(guided, counted) + 1e-8)
    return guided * (factor * ratio + (1.0 - factor))


def _deviation(values: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """Standard deviation [B, 1, ...] of values [B, ...], or of those counted."""
    dims = tuple(range(1, values.ndim))
    if counted is None:
        return values.std(dims, keepdim=True)
    counts = counted.view(*counted.shape, *[1] * (values.ndim - counted.ndim)).expand_as(values)
    number = counts.sum(dims, keepdim=True)
    mean = (values * counts).sum(dims, keepdim=True) / number
    return (((values - mean).square() * counts).sum(dims, keepdim=True) / (number - 1)).sqrt()


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
