"""The joint between losses and models: what a model predicts about noisy latents, in every parameterisation.

Nothing here imports torch before it is used, so that all losses can be listed in an instant.

Legend: B objects, V views of each, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gen3d.cameras import Cameras
    from gen3d.priors.base import ScoringPrior

    # Named tensors that a loss keeps over a run.
    Memory = MutableMapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Predictions of `prior` at `noisy [B, V, C, h, w]`, `timestep [B]` (long), by B V `cameras`; each made once.

    together: conditions that are predicted in one pass as soon as one of them is asked for; others follow singly.
    progress: share of the steps that are done, in [0, 1]. lowest, highest: of the timesteps that may be drawn now.
    source: clean latents, in the shape of `noisy`, of what the distillation began with, by the same cameras; for losses
        that ask for it (`Loss.wants`). surface: the points `[B, V, S, S, 3]` that the rendered pictures show, NaN where
        less than half of a pixel is covered; for losses that ask for it.
    """

    prior: ScoringPrior
    noisy: Tensor
    timestep: Tensor
    cameras: Cameras
    together: Sequence[str] = ()
    progress: float = 0.0
    lowest: int = 0
    highest: int | None = None
    source: Tensor | None = None
    surface: Tensor | None = None
    _predicted: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def prediction(self, which: str = "cond") -> Tensor:
        """`[B, V, C, h, w]` in the prior's own parameterisation, for one condition."""
        if which not in self._predicted:
            wanted = list(self.together) if which in self.together else [which]
            wanted = [name for name in wanted if name not in self._predicted]
            made = self.prior.predict(self.noisy, self.timestep, self.cameras, wanted)
            self._predicted.update(zip(wanted, made, strict=True))
        return self._predicted[which]

    def guided_prediction(self, scale: float, toward: str = "cond") -> Tensor:
        """Classifier-free guidance in the prior's own parameterisation: unconditional + scale x direction. toward: the
        condition that takes the place of the prompt."""
        first, *others = self.prior.guidance_conditions(self.cameras)
        if scale == 1.0 and not any(name != "cond" for name in others):
            return self.prediction(toward)
        predictions = {name: self.prediction(toward if name == "cond" else name) for name in (first, *others)}
        return predictions[first] + scale * self.prior.direction(predictions, self.cameras)

    def eps(self, which: str = "cond") -> Tensor:
        """The noise as one condition sees it."""
        return self.prior.schedule.to_eps(self.prediction(which), self.noisy, self.timestep)

    def x0(self, which: str = "cond") -> Tensor:
        """The clean latents as one condition sees them."""
        return self.prior.schedule.to_x0(self.prediction(which), self.noisy, self.timestep)

    def guided_eps(self, scale: float, toward: str = "cond") -> Tensor:
        """The noise under guidance at the standard `scale`, 1 for none."""
        return self.prior.schedule.to_eps(self.guided_prediction(scale, toward), self.noisy, self.timestep)

    def guided_x0(self, scale: float, rescale: float = 0.0) -> Tensor:
        """The clean latents under guidance; of the contrast that it adds, the share `rescale` is undone
        (`diffusion.guidance.rescale`), all views of an object by one factor."""
        from diffusion import guidance

        x0 = self.prior.schedule.to_x0(self.guided_prediction(scale), self.noisy, self.timestep)
        return guidance.rescale(x0, self.x0("cond"), rescale) if rescale else x0

    def alpha(self) -> Tensor:
        """Signal level, broadcastable to the latents."""
        return self.prior.schedule.alpha(self.timestep, self.noisy)

    def sigma(self) -> Tensor:
        """Noise level, broadcastable to the latents."""
        return self.prior.schedule.sigma(self.timestep, self.noisy)

    def at(self, noisy: Tensor, timestep: Tensor, together: Sequence[str] | None = None) -> Scores:
        """What the same prior says elsewhere: losses of two times, of several noises, and inversions."""
        return replace(
            self,
            noisy=noisy,
            timestep=timestep,
            together=self.together if together is None else together,
        )


@dataclass(frozen=True, kw_only=True)
class Loss(ABC):
    """A score-distillation loss: its settings, and its gradient as a pure function of the scores.

    The base of all that `distillation=` can choose; one file each. What a loss keeps over a run is its `memory`: named
    tensors of its own, a part of the State. Only `start` and `before` write there, and the optimiser, so that processes
    that share the objects of a step remember the same. draws_noise: whether its gradient is for the noise that it is
    given; otherwise it has one of its own.
    """

    draws_noise: ClassVar[bool] = True

    def wants(self) -> frozenset[str]:
        """What it needs beside the conditions "cond" and "uncond": of "negative", "source" (conditions of the prior),
        "tuning" (`ScoringPrior.tuned`), "source_latents" (`Scores.source`) and "surface" (`Scores.surface`)."""
        return frozenset()

    def heeds(self) -> frozenset[str]:
        """Which words beside the prompt it follows where there are some: of "negative", which guidance leads away from,
        and "source"."""
        return frozenset({"negative"}) | (self.wants() & {"source"})

    def check(self, prior: ScoringPrior) -> None:  # noqa: B027
        """Refuse, with a ValueError, a prior that cannot give what it will ask for; before any work."""

    def conditions(self, prior: ScoringPrior, cameras: Cameras) -> tuple[str, ...]:
        """What it will ask the prior for at the drawn timestep, so that it is predicted in one pass."""
        return prior.guidance_conditions(cameras)

    def start(  # noqa: B027
        self, memory: Memory, prior: ScoringPrior, shape: tuple[int, ...], generator: torch.Generator
    ) -> None:
        """Put what it keeps over a run into `memory`. shape: (V, C, h, w), of one object's latents."""

    def before(self, memory: Memory, progress: float, generator: torch.Generator) -> None:  # noqa: B027
        """Change what it keeps, before a step, when the share `progress` of the steps is done."""

    @abstractmethod
    def __call__(
        self, scores: Scores, latents: Tensor, noise: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor:
        """The gradient `[B, V, C, h, w]` for clean `latents` that were noised with `noise`, all of that shape, without
        gradients of its own; give it to `gen3d.distillation.inject`."""

    @property
    def looks_at_images(self) -> bool:
        """Whether it has an `image_gradient`."""
        return type(self).image_gradient is not Loss.image_gradient

    def image_gradient(self, scores: Scores, images: Tensor, latents: Tensor) -> Tensor | None:
        """A gradient for the pictures `[B, V, 3, H, W]` in [0, 1] themselves, of which `latents` are, beside that for
        the latents; None for none."""
        return None

    def rates(self) -> dict[str, float]:
        """Learning rates of the tensors in its memory that learn."""
        return {}

    def training_loss(
        self, scores: Scores, latents: Tensor, memory: Memory, generator: torch.Generator
    ) -> Tensor | None:
        """What the tensors of `rates` are trained by in this step: a scalar, differentiable in them; None for none."""
        return None


def check_guidance_scale(name: str, scale: float) -> None:
    """Refuse scales that no sampler survives."""
    if not 0.0 <= scale <= 1000.0:
        raise ValueError(f"{name} guidance_scale must lie in 0..1000, got {scale:g}; 1 is no guidance")
