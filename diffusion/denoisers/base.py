"""What a denoiser is, and the folding of views and frames into a batch, which happens nowhere else.

Shapes: B objects (or clips), V views (or frames), C latent channels, h = H / downscale; rows = B V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion.conditioning import Conditioning, Inputs


class Denoiser(Protocol):
    """A network that predicts what is noise in latents, whatever its family."""

    @property
    def in_channels(self) -> int:
        """C of the latents that it takes and gives back."""
        ...

    @property
    def takes(self) -> frozenset[str]:
        """The names of the parts of `Inputs`, besides `conditioning`, that it can read."""
        ...

    def __call__(self, latents: Tensor, timestep: Tensor | int, inputs: Inputs) -> Tensor:
        """The prediction in the network's own parameterisation (the schedule converts), of `latents`' shape and dtype.

        Args:
            latents: [B, V, C, h, w]; or [B, C, h, w], one view each.
            timestep: int, [], [B] or [B, V], long.
            inputs: of the same B objects and V views.

        Raises:
            ValueError: something has another shape than these, or `inputs` holds what is not in `takes`.
        """
        ...


def check_inputs(denoiser: Denoiser, inputs: Inputs) -> None:
    """Refuse, by a ValueError, parts of `inputs` that `denoiser` would ignore."""
    if not inputs.given:
        return
    takes = denoiser.takes
    surplus = sorted(inputs.given - takes)
    if surplus:
        raise ValueError(
            f"this denoiser cannot read {' and '.join(surplus)}; besides conditioning it takes "
            f"{', '.join(sorted(takes)) or 'nothing'}"
        )


@dataclass(frozen=True)
class Folding:
    """How latents of several views become rows of a batch, view after view of one object, then the next object's.

    lead: (B, V), or (B,) where every object has one view and no axis for it.
    """

    lead: tuple[int, ...]

    @staticmethod
    def of(latents: Tensor, channels: int) -> Folding:
        """The folding of latents [B, V, C, h, w] or [B, C, h, w]; ValueError for other shapes, or another C."""
        if latents.ndim not in (4, 5):
            raise ValueError(f"latents must be [B, V, C, h, w] or [B, C, h, w], got {list(latents.shape)}")
        if latents.shape[-3] != channels:
            raise ValueError(f"latents must have {channels} channels, got {list(latents.shape)}")
        return Folding(tuple(latents.shape[:-3]))

    @property
    def num_views(self) -> int:
        """V"""
        return self.lead[1] if len(self.lead) == 2 else 1

    @property
    def rows(self) -> int:
        """B V"""
        return self.lead[0] * self.num_views

    def fold(self, name: str, value: Tensor) -> Tensor:
        """[B, V, ...] (or [B, 1, ...] for all views) -> [rows, ...]; `name` is for the error."""
        if len(self.lead) == 1:
            if value.shape[:1] != self.lead:
                raise ValueError(
                    f"{name} must be [{self.lead[0]}, ...] for these latents, got {list(value.shape)}"
                )
            return value
        batch, views = self.lead
        if value.ndim < 2 or value.shape[0] != batch or value.shape[1] not in (1, views):
            raise ValueError(
                f"{name} must be [{batch}, {views} or 1, ...] for these latents, got {list(value.shape)}"
            )
        return value.expand(batch, views, *value.shape[2:]).flatten(0, 1)

    def unfold(self, rows: Tensor) -> Tensor:
        """[rows, ...] -> [B, V, ...], or as it is where there is no axis of views; the inverse of `fold`."""
        return rows.unflatten(0, self.lead)

    def timesteps(self, timestep: Tensor | int, device: torch.device) -> Tensor:
        """int, [], [B] or [B, V] -> [] or [rows]."""
        t = torch.as_tensor(timestep, device=device)
        if t.ndim == 0:
            return t
        if tuple(t.shape) != self.lead[: t.ndim]:
            allowed = " or ".join(f"{list(self.lead[:count])}" for count in range(len(self.lead) + 1))
            raise ValueError(f"timestep must be {allowed}, got {list(t.shape)}")
        return t.reshape(-1).repeat_interleave(self.rows // t.numel())

    def check_conditioning(self, conditioning: Conditioning) -> None:
        """ValueError unless there is one row for all, for each object, or for each view."""
        if len(conditioning) not in (1, self.lead[0], self.rows):
            raise ValueError(
                f"conditioning must have 1, {self.lead[0]} or {self.rows} rows, got {len(conditioning)}"
            )

    def check_camera(self, camera: Tensor | None) -> None:
        """ValueError unless there is one camera for each view."""
        if camera is not None and tuple(camera.shape[:-2]) != self.lead:
            raise ValueError(
                f"camera must be {[*self.lead, 4, 4]} for these latents, got {list(camera.shape)}"
            )
