"""What the stages ask of a prior's rules."""

from __future__ import annotations

from gen3d.priors.base import Rules


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
