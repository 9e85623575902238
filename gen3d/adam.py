"""Adam on tensors of a State, with its moments in the State, so that a restored run goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from diffusion.finite import NonFiniteError, is_finite
from gen3d.state import State

GROUP = "adam"


@dataclass(frozen=True, kw_only=True)
class Adam:
    """betas: decay of the two moments. eps: added to the root of the second; a tensor that has hardly any gradient
    must not jump by a full step, for which a mesh needs a larger one than a grid. max_norm: the gradients of a step,
    all together, are scaled down to this norm; 0 leaves them as they are."""

    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-15
    max_norm: float = 0.0


def gradients_of(state: State, names: Mapping[str, float]) -> dict[str, Tensor]:
    """Those of the named tensors that have one. One with NaN or infinity raises `NonFiniteError`."""
    found: dict[str, Tensor] = {}
    for name in names:
        gradient = state[name].grad
        if gradient is None:
            continue
        if not is_finite(gradient):
            raise NonFiniteError(f"the gradient of {name!r} holds NaN or infinity")
        found[name] = gradient
    return found


@torch.no_grad()
def adam_step(state: State, learning_rates: Mapping[str, float], settings: Adam) -> None:
    """One step on those tensors of `state` in `learning_rates` that have gradients, which stay for who looks at them.

    The moments are kept in the state under `adam/`. A gradient with NaN or infinity raises `NonFiniteError` before
    anything changes.
    """
    gradients = gradients_of(state, learning_rates)
    if settings.max_norm:
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        for gradient in gradients.values():
            gradient.mul_((settings.max_norm / norm.clamp_min(1e-12)).clamp_max(1.0))
    for name, gradient in gradients.items():
        parameter, moments = state[name].detach(), f"{GROUP}/{name}"
        if f"{moments}/step" not in state:
            state[f"{moments}/exp_avg"] = torch.zeros_like(parameter)
            state[f"{moments}/exp_avg_sq"] = torch.zeros_like(parameter)
            state[f"{moments}/step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adam(
            [parameter],
            [gradient],
            [state[f"{moments}/exp_avg"]],
            [state[f"{moments}/exp_avg_sq"]],
            [],
            [state[f"{moments}/step"]],
            fused=True,
            amsgrad=False,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            lr=learning_rates[name],
            weight_decay=0.0,
            eps=settings.eps,
            maximize=False,
        )


@torch.no_grad()
def follow_rows(state: State, name: str, rows: Tensor) -> None:
    """The moments of a tensor whose rows were replaced: `rows [R]` (int64) tells which old row each new one comes from,
    -1 a fresh one, whose moments are zero."""
    fresh = rows < 0
    for moment in ("exp_avg", "exp_avg_sq"):
        key = f"{GROUP}/{name}/{moment}"
        if key in state:
            moved = state[key][rows.clamp_min(0)]
            moved[fresh] = 0.0
            state[key] = moved
