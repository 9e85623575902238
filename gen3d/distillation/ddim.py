"""Deterministic steps between noise levels (DDIM, arXiv 2010.02502): denoising one way, inversion the other.

Legend: B objects, V views of each, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion.schedule import Schedule
    from gen3d.distillation.base import Scores


def ddim(schedule: Schedule, prediction: Tensor, noisy: Tensor, timestep: Tensor, to: Tensor) -> Tensor:
    """`noisy [B, V, C, h, w]` taken from `timestep [B]` to the timesteps `to [B]`, above or below, along what the model
    predicts there: alpha(to) x0 + sigma(to) eps.

    prediction: in the parameterisation of `schedule`. Exact at pure noise too, where that says what x0 is.
    """
    x0 = schedule.to_x0(prediction, noisy, timestep)
    return schedule.add_noise(x0, schedule.to_eps(prediction, noisy, timestep), to)


def along(
    scores: Scores,
    times: Sequence[Tensor],
    predict: Callable[[Scores], Tensor],
    after: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Scores:
    """The scores at the last of `times`, each `[B]`, when what is noisy is taken there step by step.

    predict: of scores on the way, the prediction to follow, in the prior's own parameterisation. after: called with
    what a step has made, and from and to which timesteps; gives what takes its place.
    """
    for there in times:
        here = scores.timestep
        noisy = ddim(scores.prior.schedule, predict(scores), scores.noisy, here, there)
        scores = scores.at(noisy if after is None else after(noisy, here, there), there)
    return scores


def strides(start: int, stop: Tensor, stride: int) -> list[Tensor]:
    """Timesteps `[B]` on the way from `start`, itself left out, to each object's `stop [B]`, up or down by `stride`.
    An object that has arrived stays. All must go the same way."""
    far = stop - start
    down = bool((far < 0).any())
    assert stride > 0
    assert not (down and bool((far > 0).any()))
    longest = int(far.abs().max())
    times = []
    for way in range(stride, longest, stride):
        at = stop.new_full(stop.shape, start - way if down else start + way)
        times.append(at.maximum(stop) if down else at.minimum(stop))
    return [*times, stop] if longest else []
