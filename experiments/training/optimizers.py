"""The optimisers a recipe can be trained with: AdamW, or Muon for the matrices with AdamW for everything else.

Muon (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon) makes each update of a matrix nearly orthogonal; its
rate is scaled to AdamW's step size (arXiv 2502.16982). On the small UNet it reached a given error in about half the
steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import (
    Tensor,
    _foreach_add_,  # pyright: ignore[reportPrivateImportUsage]
    _foreach_lerp_,  # pyright: ignore[reportPrivateImportUsage]
    _foreach_mul_,  # pyright: ignore[reportPrivateImportUsage]
    nn,
)

# First and last layers and the embeddings of time and camera: not the hidden matrices that Muon is meant for.
_NOT_HIDDEN = ("conv_in", "conv_out", "embedding", "logit_scale")


class KernelMuon(torch.optim.Muon):
    """torch's Muon with two differences: a convolution's kernel [O, I, h, w] is the matrix [O, I h w] too, and matrices
    of one shape are stepped together, for one small matrix at a time keeps a GPU waiting for its orders.

    Rates are AdamW's: torch's `adjust_lr_fn="match_rms_adamw"`.
    """

    def __init__(self, weights: list[nn.Parameter], **settings: float) -> None:
        self._weights = weights
        # These share their memory with the weights, so that a step on them is a step on the weights.
        self.matrices = [nn.Parameter(p.detach().flatten(1)) for p in weights]
        super().__init__(self.matrices, **settings)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        (settings,) = self.param_groups
        rate, keep = settings["lr"], settings["momentum"]
        alike: dict[torch.Size, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
        for weight, matrix in zip(self._weights, self.matrices, strict=True):
            if weight.grad is not None:
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                alike[matrix.shape].append(
                    (matrix.detach(), weight.grad.flatten(1), state["momentum_buffer"])
                )
        for shape, of_shape in alike.items():
            matrices, grads, momenta = (list(each) for each in zip(*of_shape, strict=True))
            _foreach_lerp_(momenta, grads, 1 - keep)
            ahead = torch.stack(grads).lerp_(torch.stack(momenta), keep)  # Nesterov's
            updates = _orthogonal(ahead, settings["ns_coefficients"], settings["ns_steps"], settings["eps"])
            _foreach_mul_(matrices, 1 - rate * settings["weight_decay"])
            _foreach_add_(matrices, updates.unbind(), alpha=-0.2 * math.sqrt(max(shape)) * rate)


def _orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices [K, M, N] nearly orthogonalised by Newton-Schulz iterations, in the precision that they bear."""
    x = matrices.bfloat16()
    if x.shape[1] > x.shape[2]:
        return _orthogonal(matrices.mT, coefficients, steps, eps).mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    linear, cubic, quintic = coefficients
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return x.to(matrices.dtype)


class Optimizers:
    """Steps all weights at one rate; its state goes by the weights' names."""

    def __init__(
        self, weights: Mapping[str, nn.Parameter], *, muon_scale: float | None, weight_decay: float
    ) -> None:
        """muon_scale: rate of the matrices over that of the other weights; None trains all by AdamW."""
        hidden = [n for n, p in weights.items() if muon_scale is not None and is_hidden_matrix(n, p)]
        rest = [n for n in weights if n not in set(hidden)]
        self._scales: list[float] = []
        self._parts: list[tuple[torch.optim.Optimizer, dict[str, Tensor]]] = []
        if rest:
            adam = torch.optim.AdamW([weights[n] for n in rest], weight_decay=weight_decay, betas=(0.9, 0.99))
            self._parts.append((adam, {n: weights[n] for n in rest}))
            self._scales.append(1.0)
        if hidden:
            muon = KernelMuon([weights[n] for n in hidden], weight_decay=weight_decay)
            self._parts.append((muon, dict(zip(hidden, muon.matrices, strict=True))))
            self._scales.append(float(muon_scale or 1.0))

    def step(self, rate: float) -> None:
        for (optimizer, _), scale in zip(self._parts, self._scales, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Tensors named `<weight>.<key>`."""
        return {
            f"{name}.{key}": value
            for optimizer, tensors in self._parts
            for name, tensor in tensors.items()
            for key, value in optimizer.state[tensor].items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`."""
        for optimizer, tensors in self._parts:
            for name, tensor in tensors.items():
                optimizer.state[tensor] = {
                    # The count of steps stays on the CPU; copies, since these may be another process's memory.
                    key.removeprefix(f"{name}."): value.clone().to(
                        "cpu" if value.ndim == 0 else tensor.device
                    )
                    for key, value in state.items()
                    if key.startswith(f"{name}.")
                }


def is_hidden_matrix(name: str, weight: Tensor) -> bool:
    """True for the weights that Muon takes: linear layers and convolutions between the first and the last layer."""
    return weight.ndim >= 2 and not any(part in name for part in _NOT_HIDDEN)
