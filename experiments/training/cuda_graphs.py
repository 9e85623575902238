"""A step's loss and gradients as CUDA graphs: recorded once, replayed with other numbers in the same places.

A small model's step is thousands of small kernels, and Python takes longer to ask for each than the GPU to run it; a
graph asks for all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_WARM_UPS = 3  # so that whatever the first calls set up is there before one is recorded


@runtime_checkable
class Drawing(Protocol):
    """A recipe that draws all that is random first, as tensors of few shapes, and then computes its loss from them."""

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]: ...

    def loss_of(self, *drawn: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    drawn: Sequence[Tensor]
    loss: Tensor
    grads: Sequence[Tensor | None]


class CudaGraphs:
    """Loss and gradients of `recipe` by its `weights`; a graph for each shape of what is drawn."""

    def __init__(self, recipe: Drawing, weights: Sequence[nn.Parameter], *, bf16: bool) -> None:
        self.recipe, self.weights, self.bf16 = recipe, weights, bf16
        self.device = weights[0].device
        self._recorded: dict[tuple[torch.Size, ...], _Recorded] = {}

    def backward(self, drawn: Sequence[Tensor]) -> Tensor:
        """The loss; the gradients are put into the weights, and stand there until the next call."""
        shapes = tuple(each.shape for each in drawn)
        if shapes not in self._recorded:
            self._recorded[shapes] = self._record([each.to(self.device, copy=True) for each in drawn])
        recorded = self._recorded[shapes]
        for place, each in zip(recorded.drawn, drawn, strict=True):
            place.copy_(each)
        recorded.graph.replay()
        for p, grad in zip(self.weights, recorded.grads, strict=True):
            p.grad = grad
        return recorded.loss

    def _record(self, drawn: Sequence[Tensor]) -> _Recorded:
        # On a stream of its own, as recording wants it.
        aside = torch.cuda.Stream(self.device)
        aside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._compute(drawn)
        torch.cuda.current_stream(self.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._compute(drawn)
        return _Recorded(graph, drawn, loss, [p.grad for p in self.weights])

    def _compute(self, drawn: Sequence[Tensor]) -> Tensor:
        for p in self.weights:
            p.grad = None
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16):
            loss = self.recipe.loss_of(*drawn)
        loss.backward()
        return loss.detach()
