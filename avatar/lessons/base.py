"""The joint between training and lessons: what a talking model is taught at a time. EMO calls them stages (arXiv
2402.17485, section 3.3); in here a stage is a part of a recipe. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from diffusion.limits import check_range

T = TypeVar("T", bound="Lesson")


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Settings of a lesson; the base of all that `lesson=` can choose.

    trains: the groups of parameters that learn, of `avatar.trainable.GROUPS`. still: frames are pictures of their own,
    without sound and without frames before them. steered: speed and blinks are told.

    min_snr_gamma: weights each clip's error by min-SNR (arXiv 2303.09556); None leaves the errors of v as they are.
        On a schedule that ends in pure noise the last steps get no weight at all, and few-step sampling lives on them.
    noise_offset: share of noise that is one number a channel and clip, which frees the brightness.
    lip_weight: how much more an error in the lips' region counts, 0 for as much as elsewhere (after V-Express, arXiv
        2406.02511); a mouth is a few places of the latents, and what the sound says is all in them.
    drop_reference: probability that a clip loses the person.
    """

    trains: ClassVar[tuple[str, ...]] = ()
    still: ClassVar[bool] = False
    steered: ClassVar[bool] = False

    min_snr_gamma: float | None = 5.0
    noise_offset: float = 0.05
    lip_weight: float = 0.0
    drop_reference: float = 0.05

    def __post_init__(self) -> None:
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0.0:
            raise ValueError(
                f"min_snr_gamma is {self.min_snr_gamma}; it must be above 0, or null for no weighting"
            )
        check_range(self, 0, 100, "lip_weight")
        check_range(self, 0, 1, "noise_offset", *self._drops())

    def groups(self) -> tuple[str, ...]:
        """The groups of parameters that learn with these settings."""
        return self.trains

    def frames(self) -> int:
        """How many frames of each clip are learned from at a time, those before them not counted."""
        return 1

    def dropped(self) -> tuple[float, float, float]:
        """Probabilities that a clip loses the person, the sound, and the frames before."""
        return self.drop_reference, 0.0, 0.0

    def undisturbed(self: T) -> T:
        """The same for a measurement: nothing is dropped, no noise is offset, and timesteps count alike."""
        changed: dict[str, Any] = dict.fromkeys(self._drops(), 0.0)
        return replace(self, min_snr_gamma=None, noise_offset=0.0, **changed)

    def _drops(self) -> list[str]:
        return [field.name for field in fields(self) if field.name.startswith("drop_")]
