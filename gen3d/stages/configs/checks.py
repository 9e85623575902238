"""What the stages ask of a prior's rules, and of a representation."""

from __future__ import annotations

from gen3d.priors.base import Rules
from gen3d.representations.base import RepresentationConfig


def check_multiple(name: str, count: int, num_views: int) -> None:
    """Refuse a number of views that the prior cannot see in whole sets."""
    if count % num_views:
        raise ValueError(
            f"{name} must be a multiple of the {num_views} views that the prior sees together, got {count}"
        )


def check_start(name: str, timestep: int | None, rules: Rules) -> None:
    """Refuse a timestep that the prior cannot start from."""
    try:
        rules.check_start(timestep)
    except ValueError as error:
        raise ValueError(f"{name} does not go with the prior: {error}") from None


def check_colors(name: str, representation: RepresentationConfig) -> None:
    """Refuse latents where a stage has colours to give."""
    if representation.latents:
        raise ValueError(
            f"{name} has colours to give, and the representation's are a model's latents; give it colors: rgb"
        )


def check_latents(channels: int, of_prior: int) -> None:
    """Refuse colours that are latents of another number of channels than a prior's."""
    if channels != of_prior:
        raise ValueError(
            f"the representation has latents of {channels} channels, but the prior's have {of_prior}; give it "
            f"latent_channels: {of_prior}"
        )
