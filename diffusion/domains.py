"""What a picture can show of a scene: colours, distances or normals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Domain = Literal["color", "depth", "normals"]
DOMAINS: tuple[Domain, ...] = ("color", "depth", "normals")


def domain_indices(domains: Sequence[Domain]) -> torch.Tensor:
    """One index into `DOMAINS` each, [len(domains)] long.

    Raises:
        ValueError: a name is none of `DOMAINS`.
    """
    import torch

    check_domains(domains)
    return torch.tensor([DOMAINS.index(domain) for domain in domains], dtype=torch.long)


def check_domains(domains: Sequence[Domain], allowed: Sequence[Domain] = DOMAINS) -> None:
    """Refuse, with a ValueError, domains that are not among those `allowed`."""
    for domain in domains:
        if domain not in allowed:
            raise ValueError(f"domain is {domain!r}, allowed: {', '.join(allowed)}")
