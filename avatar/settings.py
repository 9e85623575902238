"""What a user sets of talking portraits; nothing here needs torch.

The architecture of the talking model is `avatar.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffusion.config import SamplerName
from diffusion.limits import check_range

FaceChoice = Literal["auto", "largest", "best", "center"]


Tuning = Literal["none", "attention", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateConfig:
    """How a portrait is made to speak.

    num_steps: steps of the sampler, per clip. clip_frames: frames made together.
    guidance_scale_reference, guidance_scale_audio: 1 is no guidance; each other value costs a pass a step, and two
        equal ones cost one (see `predict_guided`).
    pose_weight, face_weight, lip_weight: factors of the audio branches; 0 leaves a branch out.
    head_speed: how fast the head turns, in degrees a second; None leaves it to the sound and to chance.
    blinks_per_minute: how often the eyes blink, on average; None leaves blinks to chance.
    blink_strength: how far lids close, 0 to 1.
    batched: the passes of a step as one batch: faster on a GPU, more memory.
    """

    num_steps: int = 4
    clip_frames: int = 12
    guidance_scale_reference: float = 1.0
    guidance_scale_audio: float = 2.0
    pose_weight: float = 1.0
    face_weight: float = 1.0
    lip_weight: float = 1.0
    head_speed: float | None = 6.0
    blinks_per_minute: float | None = 17.0
    blink_strength: float = 1.0
    sampler: SamplerName = "ddim"
    batched: bool = False

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "num_steps", "clip_frames")
        check_range(self, 0, 20, "guidance_scale_reference", "guidance_scale_audio", hint="1 is no guidance")
        check_range(self, 0, 5, "pose_weight", "face_weight", "lip_weight", hint="1 is as trained")
        if self.head_speed is not None:
            check_range(self, 0, 90, "head_speed", hint="in degrees a second")
        if self.blinks_per_minute is not None:
            check_range(self, 0, 60, "blinks_per_minute")
        check_range(self, 0, 1, "blink_strength")

    def branch_weights(self, branches: tuple[str, ...]) -> tuple[float, ...]:
        """One factor for each audio branch of a model; branches of other names count as trained."""
        own = {"pose": self.pose_weight, "face": self.face_weight, "lip": self.lip_weight}
        return tuple(own.get(name, 1.0) for name in branches)
