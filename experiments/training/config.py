"""Settings of the recipes that train the embedded model; nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from diffusion.limits import check_least, check_range
from gen3d.limits import check_fovy, check_unused

Weighting = Literal["pixels", "equal"]


IMAGE_SIZE = 128
DOWNSCALE = 8
LATENT_CHANNELS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long and how fast to learn.

    learning_rate: the peak; it rises over `warmup` steps and falls to a twentieth along a cosine.
    optimizer: `adamw`, or `muon` for the matrices, at `muon_scale` times the rate, with AdamW for the rest.
    processes: how many share each batch, on the CPU; they divide the run's `threads` among them. Under `accelerate
        launch` or `torchrun` they are those that it started.
    ema_decay: how much of the averaged weights, which are what is kept, each step leaves. bf16: the forward pass is
        computed in bfloat16 where that is safe.
    cuda_graphs: on a GPU, record what a step computes once for each shape of its batch and replay it: the same numbers,
        without the time Python takes to ask for each of them. Of recipes that draw first and compute then, as
        `train/tiny_multiview` does.
    validate_every: steps between held-out measurements (and at the end).
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_scale: float = 2.0
    processes: int = 1
    grad_clip: float = 1.0
    ema_decay: float = 0.998
    bf16: bool = True
    cuda_graphs: bool = False
    validate_every: int = 500

    def __post_init__(self) -> None:
        check_least(self, 1, "steps", "batch_size", "validate_every", "processes")
        check_range(self, 0, 10, "learning_rate", ends="(]")
        check_range(self, 0, 1000, "muon_scale", ends="(]")
        check_range(self, 0, 1e6, "grad_clip", ends="(]")
        check_least(self, 0, "warmup")
        check_range(self, 0, 10, "weight_decay")
        if self.batch_size % self.processes:
            raise ValueError(
                f"batch_size is {self.batch_size}, which {self.processes} processes cannot share evenly; "
                "make it a multiple of processes"
            )
        if self.optimizer != "muon":
            check_unused("loop", self, ("muon_scale",), f"loop optimizer is {self.optimizer}")
        check_range(self, 0, 1, "ema_decay", ends="[)")

    def rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return self.learning_rate * rise * (0.05 + 0.95 * fall)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """What the UNet learns to predict, and of what noise.

    prediction_type: "v_prediction" or "epsilon". zero_terminal_snr: the last timestep is pure noise, as the first one
        of sampling is (arXiv 2305.08891); a prediction of epsilon says nothing there, so it needs False.
    min_snr_gamma: weighs timesteps by Min-SNR (arXiv 2303.09556); None weighs the squared errors all alike.
    """

    prediction_type: Literal["v_prediction", "epsilon"] = "v_prediction"
    zero_terminal_snr: bool = True
    min_snr_gamma: float | None = None

    def __post_init__(self) -> None:
        if self.prediction_type == "epsilon" and self.zero_terminal_snr:
            raise ValueError(
                "noise.prediction_type is epsilon, which says nothing about a picture of pure noise; "
                "give noise.zero_terminal_snr=false with it"
            )
        if self.min_snr_gamma is not None and not self.min_snr_gamma > 0:
            raise ValueError(f"noise.min_snr_gamma is {self.min_snr_gamma}; it must be above 0, or null")


@dataclass(frozen=True, kw_only=True)
class SetsConfig:
    """Which pictures of a scene the UNet sees together, and which of them are given. As it is, its views in colours.

    domains: share of sets that show depth and normals beside colours, some by the same cameras, some by others. Data
        must have them.
    given: share of sets in which some pictures are given, most often one: they are clean, and the others are learned
        beside them. given_drop_text: share of those whose caption is left out. given_any: share of those in which depth
        and normals may be given, not colours alone.
    guests: share of given pictures of colours in whose place there is a guest, a picture of the same scene by another
        camera, perhaps in another light and before another background. Data must have them.
    set_views: pictures in a set, drawn anew for each step, which has accordingly fewer sets; none is as many as there
        are views. Larger ones, up to three times as many, always show depth and normals too.
    """

    domains: float = 0.0
    given: float = 0.0
    given_drop_text: float = 0.7
    given_any: float = 0.15
    guests: float = 0.0
    set_views: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = ("domains", "given", "given_drop_text", "given_any", "guests")
        check_range(self, 0, 1, *names, of="sets")
        if self.given == 0:
            check_unused("sets", self, ("given_drop_text", "given_any", "guests"), "sets given is 0")
        if self.domains == 0:
            check_unused("sets", self, ("given_any", "set_views"), "sets domains is 0")

    def check_data(self, num_views: int, has_domains: bool, num_guests: int) -> None:
        """Refuse, with a ValueError, to ask for what the pictures of a data set are not."""
        if self.domains and not has_domains:
            raise ValueError(
                f"sets.domains is {self.domains:g}, but the pictures come without depth and normals; give "
                "data.domains=true, or leave it at 0"
            )
        if self.guests and not num_guests:
            raise ValueError(
                f"sets.guests is {self.guests:g}, but the scenes have none; give data.num_guests=2, or leave it at 0"
            )
        if (self.given or self.domains) and num_views == 1:
            raise ValueError(
                "sets of one view have nothing beside it; give data.num_views=4, or leave sets alone"
            )
        if any(not num_views <= size <= 3 * num_views for size in self.set_views):
            raise ValueError(
                f"sets.set_views must lie in {num_views}..{3 * num_views} for {num_views} views a scene, got "
                f"{list(self.set_views)}"
            )


def check_channels(channels: tuple[int, ...]) -> None:
    """Refuse channels that no UNet for the latents of `tiny` can have."""
    most = (IMAGE_SIZE // DOWNSCALE).bit_length()  # each level but the last halves them
    if not 1 <= len(channels) <= most or any(c < 32 or c % 32 for c in channels):
        raise ValueError(
            f"channels must be multiples of 32, one a level, for 1 to {most} levels, got {tuple(channels)}"
        )


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What the decoder learns from.

    pyramid_weight: how much the error of edges counts beside the mean absolute error of pixels. critic_weight: how
        much the critic's opinion counts, from step critic_from on; it learns from the first step. 0 leaves it out.
    portrait_share: share of a batch that are portraits; of the rest, three in ten are close-ups and the others scenes.
    made_share: share of a batch whose latents are as the UNet and the talking model make them. made_weight: how much
        their errors count beside those of encoded latents, for a model is never quite right. made_scenes: how many
        scenes the UNet makes some of.
    closeups: how many scenes are seen from near beside the others, fovy_deg the range of their cameras, degrees.
    """

    pyramid_weight: float = 2.0
    critic_weight: float = 0.05
    critic_from: int = 60
    portrait_share: float = 0.4
    made_share: float = 0.4
    made_weight: float = 0.5
    made_scenes: int = 150
    closeups: int = 150
    fovy_deg: tuple[float, float] = (16.0, 28.0)

    def __post_init__(self) -> None:
        check_range(self, 0, 1000, "pyramid_weight", "critic_weight", "made_weight", of="decoder")
        check_least(self, 0, "critic_from", of="decoder")
        check_least(self, 1, "made_scenes", "closeups", of="decoder")
        check_range(self, 0, 1, "portrait_share", "made_share", ends="[)", of="decoder")
        if self.made_share == 0:
            check_unused("decoder", self, ("made_weight", "made_scenes"), "decoder made_share is 0")
        check_fovy("decoder.fovy_deg", self.fovy_deg)
        low, high = self.fovy_deg
        if low > high:
            raise ValueError(f"decoder.fovy_deg must rise, got {low:g} ... {high:g}")
