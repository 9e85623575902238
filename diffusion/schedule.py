"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) noise, and what a model predicts about it.

Four parameterisations, all converted into one another here and nowhere else:

    epsilon        noise
    sample         x_0
    v_prediction   alpha noise - sigma x_0     (Salimans and Ho, arXiv 2202.00512)
    flow           noise - x_0                 (rectified flow)

`v_prediction` and `flow` stay finite at both ends. `epsilon` says nothing about x_0 where alpha is 0 (zero
terminal SNR, arXiv 2305.08891) and `sample` nothing about the noise where sigma is 0: asking raises.

Shapes: latents are [B, ...]; `t` (long, 0 <= t < T) is an int, [], [B] or more leading axes such as [B, V].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
Timestep = torch.Tensor | int


def _check_type(prediction_type: str) -> PredictionType:
    if prediction_type == "flow_prediction":  # diffusers' name for it
        return "flow"
    if prediction_type not in get_args(PredictionType):
        allowed = ", ".join(get_args(PredictionType))
        raise ValueError(f"prediction_type is {prediction_type!r}, allowed: {allowed}")
    return cast(PredictionType, prediction_type)


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Noise levels per timestep and the model's parameterisation; immutable.

    alphas, sigmas: [T] float64; the signal-to-noise ratio falls strictly with t.
    """

    alphas: torch.Tensor
    sigmas: torch.Tensor
    prediction_type: PredictionType = "epsilon"

    def __post_init__(self) -> None:
        _check_type(self.prediction_type)
        if self.alphas.ndim != 1 or self.alphas.shape != self.sigmas.shape or len(self.alphas) == 0:
            raise ValueError(
                "alphas and sigmas must both have shape [T], "
                f"got {list(self.alphas.shape)} and {list(self.sigmas.shape)}"
            )
        if not (torch.isfinite(self.alphas).all() and torch.isfinite(self.sigmas).all()):
            raise ValueError("alphas and sigmas must be finite numbers")
        if not bool(((self.alphas >= 0) & (self.sigmas >= 0) & (self.alphas + self.sigmas > 0)).all()):
            raise ValueError("alphas and sigmas must not be negative, nor both 0 at one timestep")
        angles = torch.atan2(self.sigmas, self.alphas)
        if not bool((angles.diff() > 0).all()):
            raise ValueError(
                "the signal-to-noise ratio must fall strictly with t: alphas_cumprod must decrease"
            )
        # Known here once, so that a conversion on a GPU needs no synchronisation to find out.
        object.__setattr__(self, "_zero_alpha", bool((self.alphas == 0).any()))
        object.__setattr__(self, "_zero_sigma", bool((self.sigmas == 0).any()))

    @staticmethod
    def from_alphas_cumprod(alphas_cumprod: torch.Tensor, prediction_type: str = "epsilon") -> Schedule:
        """Variance-preserving: alpha^2 = alphas_cumprod, sigma^2 = 1 - alphas_cumprod; [T] in [0, 1]."""
        cumprod = alphas_cumprod.detach().to("cpu", torch.float64)
        if not bool(((cumprod >= 0) & (cumprod <= 1)).all()):
            raise ValueError("alphas_cumprod must lie in [0, 1]")
        return Schedule(
            alphas=cumprod.sqrt(), sigmas=(1.0 - cumprod).sqrt(), prediction_type=_check_type(prediction_type)
        )

    @staticmethod
    def flow(num_timesteps: int = 1000) -> Schedule:
        """Rectified flow: sigma = t / num_timesteps, alpha = 1 - sigma; t = 0 is clean, the last is noise."""
        sigmas = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        return Schedule(alphas=1.0 - sigmas, sigmas=sigmas, prediction_type="flow")

    @staticmethod
    def from_scheduler(scheduler: Any) -> Schedule:
        """Reads a diffusers scheduler with `alphas_cumprod` (DDIM, DDPM, ...) or for flow matching."""
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            return Schedule.flow(scheduler.config["num_train_timesteps"])
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"scheduler {type(scheduler).__name__} has no alphas_cumprod; use DDIMScheduler's layout"
            )
        return Schedule.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.config.prediction_type)

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas)

    @property
    def zero_terminal_snr(self) -> bool:
        """True when the last timestep is pure noise."""
        return float(self.alphas[-1]) == 0.0

    def to(self, device: torch.device | str) -> Schedule:
        return replace(self, alphas=self.alphas.to(device), sigmas=self.sigmas.to(device))

    def alpha(self, t: Timestep, like: torch.Tensor | None = None) -> torch.Tensor:
        """Signal level, float32 of t's shape; with `like`, broadcastable to it (and float64 if it is)."""
        return self._look_up(self.alphas, t, like)

    def sigma(self, t: Timestep, like: torch.Tensor | None = None) -> torch.Tensor:
        """Noise level, as `alpha`."""
        return self._look_up(self.sigmas, t, like)

    def snr(self, t: Timestep) -> torch.Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2, float32 of t's shape; infinite where sigma is 0."""
        return (self._gather(self.alphas, t) / self._gather(self.sigmas, t)).square().float()

    def min_snr_weight(self, t: Timestep, gamma: float = 5.0) -> torch.Tensor:
        """Weights of the squared error of the model's own prediction that amount to min(SNR, gamma) on x_0.

        Min-SNR, arXiv 2303.09556: min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v.
        """
        alpha, sigma = self._gather(self.alphas, t), self._gather(self.sigmas, t)
        clipped = (alpha / sigma).square().clamp(max=gamma)
        if self.prediction_type == "epsilon":
            weight = (gamma * (sigma / alpha).square()).clamp(max=1.0)
        elif self.prediction_type == "v_prediction":
            weight = clipped * (sigma / (alpha.square() + sigma.square())).square()
        elif self.prediction_type == "flow":
            weight = clipped * (sigma / (alpha + sigma)).square()
        else:
            weight = clipped
        return weight.float()

    def sample_timesteps(
        self, count: int, *, generator: torch.Generator, low: int = 0, high: int | None = None
    ) -> torch.Tensor:
        """Uniform timesteps [count], long, low <= t < high (all by default), on the generator's device."""
        high = self.num_timesteps if high is None else high
        if not 0 <= low < high <= self.num_timesteps:
            raise ValueError(
                f"timesteps must satisfy 0 <= low < high <= {self.num_timesteps}, got {low} and {high}"
            )
        return torch.randint(low, high, (count,), generator=generator, device=generator.device)

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, t: Timestep) -> torch.Tensor:
        """x_t = alpha(t) x_0 + sigma(t) noise, in x0's dtype."""
        return (self.alpha(t, x0) * x0 + self.sigma(t, x0) * noise).to(x0.dtype)

    def target(self, x0: torch.Tensor, noise: torch.Tensor, t: Timestep) -> torch.Tensor:
        """What the model should predict at x_t, in its own parameterisation."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        if self.prediction_type == "flow":
            return noise - x0
        return (self.alpha(t, x0) * noise - self.sigma(t, x0) * x0).to(x0.dtype)

    def to_x0(self, prediction: torch.Tensor, latents: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The model's prediction at `latents` = x_t as clean latents x_0."""
        return self._to_x0(prediction, latents, t, self.prediction_type)

    def to_eps(self, prediction: torch.Tensor, latents: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The model's prediction as noise."""
        return self.convert(prediction, latents, t, self.prediction_type, "epsilon")

    def to_v(self, prediction: torch.Tensor, latents: torch.Tensor, t: Timestep) -> torch.Tensor:
        """The model's prediction as v."""
        return self.convert(prediction, latents, t, self.prediction_type, "v_prediction")

    def from_x0(self, x0: torch.Tensor, latents: torch.Tensor, t: Timestep) -> torch.Tensor:
        """Clean latents x_0 as a prediction in the model's parameterisation; the inverse of `to_x0`."""
        return self.convert(x0, latents, t, "sample", self.prediction_type)

    def from_eps(self, eps: torch.Tensor, latents: torch.Tensor, t: Timestep) -> torch.Tensor:
        """Noise as a prediction in the model's parameterisation; the inverse of `to_eps`."""
        return self.convert(eps, latents, t, "epsilon", self.prediction_type)

    def convert(
        self,
        prediction: torch.Tensor,
        latents: torch.Tensor,
        t: Timestep,
        source: PredictionType,
        to: PredictionType,
    ) -> torch.Tensor:
        """A prediction at `latents` = x_t in another parameterisation, in the prediction's dtype."""
        if source == to:
            return prediction
        if to == "sample":
            return self._to_x0(prediction, latents, t, source)
        eps = self._to_eps(prediction, latents, t, source)
        if to == "epsilon":
            return eps
        x0 = self._to_x0(prediction, latents, t, source)
        if to == "flow":
            return eps - x0
        return (self.alpha(t, latents) * eps - self.sigma(t, latents) * x0).to(prediction.dtype)

    def _to_x0(
        self, prediction: torch.Tensor, latents: torch.Tensor, t: Timestep, source: PredictionType
    ) -> torch.Tensor:
        if source == "sample":
            return prediction
        alpha, sigma = self.alpha(t, latents), self.sigma(t, latents)
        if source == "epsilon":
            self._refuse_zero(
                alpha, "_zero_alpha", "x_0 from a noise prediction where alpha(t) = 0 (pure noise)"
            )
            x0 = (latents - sigma * prediction) / alpha
        elif source == "flow":
            x0 = (latents - sigma * prediction) / (alpha + sigma)
        else:
            x0 = (alpha * latents - sigma * prediction) / (alpha.square() + sigma.square())
        return x0.to(prediction.dtype)

    def _to_eps(
        self, prediction: torch.Tensor, latents: torch.Tensor, t: Timestep, source: PredictionType
    ) -> torch.Tensor:
        if source == "epsilon":
            return prediction
        alpha, sigma = self.alpha(t, latents), self.sigma(t, latents)
        if source == "sample":
            self._refuse_zero(
                sigma, "_zero_sigma", "noise from an x_0 prediction where sigma(t) = 0 (no noise)"
            )
            eps = (latents - alpha * prediction) / sigma
        elif source == "flow":
            eps = (latents + alpha * prediction) / (alpha + sigma)
        else:
            eps = (sigma * latents + alpha * prediction) / (alpha.square() + sigma.square())
        return eps.to(prediction.dtype)

    def _refuse_zero(self, level: torch.Tensor, flag: str, what: str) -> None:
        if getattr(self, flag) and bool((level == 0).any()):
            raise ValueError(
                f"cannot compute {what}; keep t away from that end or use a v_prediction or flow model"
            )

    def _gather(self, table: torch.Tensor, t: Timestep) -> torch.Tensor:
        if not isinstance(t, torch.Tensor):
            return table[t]
        if t.is_floating_point():
            raise ValueError(f"t must hold whole timesteps (int64), got {t.dtype}")
        return table.to(t.device)[t]

    def _look_up(self, table: torch.Tensor, t: Timestep, like: torch.Tensor | None) -> torch.Tensor:
        level = self._gather(table, t)
        if like is None:
            return level.float()
        if level.ndim and level.shape != like.shape[: level.ndim]:
            raise ValueError(
                f"t has shape {list(level.shape)}, which does not lead the latents' {list(like.shape)}"
            )
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        level = level.to(like.device, dtype)
        return level.reshape(*level.shape, *[1] * (like.ndim - level.ndim))
