"""The talking model's architecture at two sizes: `TINY` for the embedded backbone, `SD15` with Hallo's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_type_hints

from avatar.identity import IdentityConfig
from avatar.locator import LocatorConfig
from avatar.settings import Tuning
from avatar.speed import SpeedConfig
from diffusion.adapters.audio import AudioConfig, AudioProjectionConfig
from diffusion.adapters.motion import MotionConfig
from diffusion.limits import check_least


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is put on a UNet to make it talk.

    reference_net: "shared" uses the denoiser's own UNet for the reference pass; "copy" a copy that trains apart.
    reference_expansion: hidden width of the trainable refinement of reference tokens, relative to the layer's
        channels; 0 leaves it out.
    tune_unet: "attention" and "all" work on a copy of the UNet; the weights of its attention layers, or all, train
        and are saved with the adapters. With "none" the UNet stays as it is on disk and may be shared with other
        models in memory.
    use_speed: whether motion modules take the head's speed and the lids.
    """

    reference_net: Literal["shared", "copy"] = "shared"
    reference_expansion: float = 1.0
    tune_unet: Tuning = "none"
    use_speed: bool = True
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    locator: LocatorConfig = field(default_factory=LocatorConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    audio_projection: AudioProjectionConfig = field(default_factory=AudioProjectionConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)

    def __post_init__(self) -> None:
        if self.reference_net not in ("shared", "copy"):
            raise ValueError(f"reference_net must be 'shared' or 'copy', got {self.reference_net!r}")
        if self.tune_unet not in get_args(Tuning):
            raise ValueError(
                f"tune_unet must be one of {', '.join(get_args(Tuning))}, got {self.tune_unet!r}"
            )
        check_least(self, 0, "reference_expansion")

    def tunes(self, name: str) -> bool:
        """Whether a weight of the UNet, by its name there, is a copy that trains."""
        return self.tune_unet == "all" or (self.tune_unet == "attention" and ".attentions." in name)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON takes them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The inverse of `to_dict`; ValueError names an unknown key."""
        return _build(Config, values, "config")


TINY = Config()

SD15 = Config(
    reference_net="copy",
    reference_expansion=0.0,
    tune_unet="all",
    use_speed=False,
    identity=IdentityConfig(embedding=512, tokens=4),
    locator=LocatorConfig(channels=(3, 16, 32, 64, 128)),
    audio=AudioConfig(heads=8, transformer=True, width="input"),
    audio_projection=AudioProjectionConfig(window=5, features=12 * 768, hidden=512, tokens=32, width=768),
    motion=MotionConfig(heads=8, attentions=2, ff_mult=4, motion_frames=2, max_frames=32),
)


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a mapping, got {type(values).__name__}")
    hints = get_type_hints(kind)
    known = {entry.name for entry in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where} has no key {unknown[0]!r}; its keys are {', '.join(sorted(known))}")
    arguments = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = _build(hints[name], value, f"{where}.{name}")
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)
