"""What self-attention saw of some pictures, for others to read (see `diffusion.adapters.reference`).

Shapes: B objects, R pictures of an object, N tokens of a picture, C channels of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class KVBank:
    """What self-attention layers may read besides their own tokens.

    tokens: name of an attn1 layer -> [B, R, N, C], its inputs (outputs of norm1) for the R pictures of B objects.
    keep: B flags; an object whose flag is False reads its own tokens only. None: all read.
    """

    tokens: Mapping[str, torch.Tensor]
    keep: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        shapes = {tuple(value.shape[:2]) for value in self.tokens.values() if value.ndim == 4}
        if len(shapes) != 1 or any(value.ndim != 4 for value in self.tokens.values()):
            got = {name: list(value.shape) for name, value in self.tokens.items()}
            raise ValueError(f"tokens must be [B, R, N, C] with the same B and R in every layer, got {got}")
        if self.keep is not None and len(self.keep) != len(self):
            raise ValueError(f"keep must have one flag for each of {len(self)} objects, got {len(self.keep)}")

    def __len__(self) -> int:
        """B, the number of objects."""
        return next(iter(self.tokens.values())).shape[0]

    @property
    def num_images(self) -> int:
        """R, the number of pictures of an object."""
        return next(iter(self.tokens.values())).shape[1]

    @property
    def flags(self) -> tuple[bool, ...]:
        """`keep` written out: B flags."""
        return self.keep if self.keep is not None else (True,) * len(self)

    def drop(self, rows: Sequence[bool]) -> KVBank:
        """The same bank, read no more by the objects whose entry in `rows` [B] is True."""
        if len(rows) != len(self):
            raise ValueError(f"rows must have {len(self)} flags, got {len(rows)}")
        keep = tuple(flag and not row for flag, row in zip(self.flags, rows, strict=True))
        return replace(self, keep=None if all(keep) else keep)

    def layer(self, name: str) -> torch.Tensor:
        """The tokens [B, R, N, C] of a layer; ValueError when the bank was filled by another UNet."""
        if name not in self.tokens:
            raise ValueError(
                f"the bank has no tokens for layer {name!r}; it holds {len(self.tokens)} layers of another UNet: "
                "fill it with a ReferenceNet of the denoiser's architecture"
            )
        return self.tokens[name]

    def detach(self) -> KVBank:
        return replace(self, tokens={name: value.detach() for name, value in self.tokens.items()})

    @staticmethod
    def cat(banks: Sequence[KVBank]) -> KVBank:
        """The objects of several banks, one after another; all must have the same layers and sizes."""
        first = banks[0]
        tokens = {name: torch.cat([bank.layer(name) for bank in banks]) for name in first.tokens}
        keep = tuple(flag for bank in banks for flag in bank.flags)
        return KVBank(tokens, None if all(keep) else keep)
