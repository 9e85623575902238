"""What a user sets of talking portraits; nothing here needs torch.

The architecture of the talking model is `avatar.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from diffusion.config import SamplerName
from diffusion.limits import check_range

FaceChoice = Literal["auto", "largest", "best", "center"]


Tuning = Literal["none", "attention", "all"]


StageName = Literal["image", "video", "motion"]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """stage: "image" (frames are pictures of their own, no sound), "video" (sound and motion), "motion" (motion, speed
        and blinks alone; what sound does stays as it is).
    min_snr_gamma: weights each clip's error by min-SNR (arXiv 2303.09556); None leaves the errors of v as they are.
        On a schedule that ends in pure noise the last steps get no weight at all, and few-step sampling lives on them.
    noise_offset: share of noise that is one number a channel and clip, which frees the brightness.
    lip_weight: how much more an error in the lips' region counts, 0 for as much as elsewhere (after V-Express, arXiv
        2406.02511); a mouth is a few places of the latents, and what the sound says is all in them.
    freeze_sound: stage "video" leaves the projection of the sound as it is, one that was taught beforehand.
    drop_reference, drop_audio, drop_motion: probability that a clip loses the person, the sound, or the frames before.
    """

    stage: StageName
    min_snr_gamma: float | None = 5.0
    noise_offset: float = 0.05
    lip_weight: float = 0.0
    freeze_sound: bool = False
    drop_reference: float = 0.05
    drop_audio: float = 0.05
    drop_motion: float = 0.2

    def __post_init__(self) -> None:
        if self.stage not in get_args(StageName):
            raise ValueError(f"stage is {self.stage!r}, allowed: {', '.join(get_args(StageName))}")
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0.0:
            raise ValueError(
                f"min_snr_gamma is {self.min_snr_gamma}; it must be above 0, or null for no weighting"
            )
        check_range(self, 0, 100, "lip_weight")
        check_range(self, 0, 1, "noise_offset", "drop_reference", "drop_audio", "drop_motion")
