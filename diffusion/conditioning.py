"""What a denoiser is given besides noisy latents and their timestep.

Shapes: B objects, V views of an object (or frames of a clip), L text tokens of width E, D width of the CLIP space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffusion.adapters.bank import KVBank
from diffusion.attention import LayerAdapter

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditioning:
    """Encoded prompts, or what stands in their place.

    embeds: [rows, L, E], the tokens that cross-attention reads, one row per prompt.
    pooled: [rows, D], one vector per prompt; None where there is none, as for tokens that come from no text.
    """

    embeds: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Conditioning:
        return self._each(lambda value: value[rows])

    def repeat(self, count: int) -> Conditioning:
        """Every row `count` times in a row: [count rows, ...]."""
        return self._each(lambda value: value.repeat_interleave(count, 0))

    def mixed(self, shares: Sequence[float]) -> Conditioning:
        """One row: the sum of all, each times its share."""
        return self._each(
            lambda value: torch.stack([share * row for share, row in zip(shares, value, strict=True)]).sum(0)[
                None
            ]
        )

    def to(self, device: torch.device | str) -> Conditioning:
        return self._each(lambda value: value.to(device))

    @staticmethod
    def cat(items: Sequence[Conditioning]) -> Conditioning:
        """The rows of all, one after another."""
        return cat_fields(items)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(
            embeds=change(self.embeds), pooled=None if self.pooled is None else change(self.pooled)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What one call of a denoiser is given besides latents and timestep.

    Every denoiser reads `conditioning`. What else it can read it names in `takes`; it refuses the rest. None: absent.

    conditioning: one row (for all), B rows (one per object) or B V rows (one per view).
    camera: [B, V, 4, 4] c2w, glTF camera (x right, y up, looks down -z), world +Y up.
    domain: [B, V] long, what each view shows, an index into `diffusion.domains.DOMAINS`; None is colours.
    features: [B, V or 1, C0, h, w], added to the C0 channels that the network's first convolution makes.
    bank: pictures of the B objects that self-attention reads besides its own tokens.
    record: takes what self-attention sees, under the layer's name; how a bank is made.
    after_attention: runs after each attention layer, on what the layer gives.
    """

    conditioning: Conditioning
    camera: Tensor | None = None
    domain: Tensor | None = None
    features: Tensor | None = None
    bank: KVBank | None = None
    record: dict[str, Tensor] | None = None
    after_attention: LayerAdapter | None = None

    @property
    def given(self) -> frozenset[str]:
        """The names of what is there besides `conditioning`."""
        names = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        return frozenset(names - {"conditioning"})

    def for_objects(self, count: int) -> Inputs:
        """The same for `count` objects, with at least one row of `conditioning` for each."""
        if len(self.conditioning) != 1 or count == 1:
            return self
        return replace(self, conditioning=self.conditioning.repeat(count))

    @staticmethod
    def cat(items: Sequence[Inputs]) -> Inputs:
        """The objects of several calls, one after another; all must have the same parts, sizes and number of objects.

        Where one has a row of `conditioning` for each view and another one for each object, all get one for each view.
        `record` and `after_attention` belong to one call alone.

        Raises:
            ValueError: a part is there in some and not in others, belongs to one call alone, or does not fit.
        """
        alone = {"record", "after_attention"} & frozenset().union(*(item.given for item in items))
        if alone:
            raise ValueError(f"{' and '.join(sorted(alone))} of one call cannot be joined with another's")
        rows = max(len(item.conditioning) for item in items)
        if any(rows % len(item.conditioning) for item in items):
            raise ValueError(
                "conditionings must have as many rows as each other, or one for each view beside one for each object, "
                f"got {[len(item.conditioning) for item in items]}"
            )
        return cat_fields(
            [
                replace(item, conditioning=item.conditioning.repeat(rows // len(item.conditioning)))
                for item in items
            ]
        )


def cat_fields(items: Sequence[T]) -> T:
    """One dataclass of the fields of several of its kind: the rows of tensors and of banks one after another, what is
    no tensor as it is, if it is the same in all.

    Raises:
        ValueError: a field is None in some and not in others, or differs where it cannot be joined.
    """
    merged: dict[str, Any] = {}
    for field in fields(items[0]):  # pyright: ignore[reportArgumentType]
        values = [getattr(item, field.name) for item in items]
        absent = [value is None for value in values]
        if any(absent) and not all(absent):
            raise ValueError(f"{field.name} must be given in all conditions or in none")
        merged[field.name] = None if all(absent) else _cat(field.name, values)
    return type(items[0])(**merged)


def _cat(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, (Conditioning, KVBank)):
        return first.cat(values)
    if isinstance(first, dict):
        return {key: torch.cat([value[key] for value in values]) for key in first}
    if any(value != first for value in values):
        raise ValueError(f"{name} must be the same in all conditions, got {values}")
    return first
