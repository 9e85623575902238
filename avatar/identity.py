"""Identity tokens: an embedding of the person's picture becomes what the denoiser reads in place of text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from diffusion.limits import check_least


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityConfig:
    """embedding: width of the picture's embedding (CLIP or a face recogniser); tokens: how many it becomes."""

    embedding: int = 128
    tokens: int = 4

    def __post_init__(self) -> None:
        check_least(self, 1, "embedding", "tokens")


class IdentityProjection(nn.Module):
    """Embeddings [B, E] -> tokens [B, T, D] of the UNet's cross-attention. A row of zeros is nobody."""

    def __init__(self, width: int, config: IdentityConfig):
        super().__init__()
        self.config = config
        self.proj = nn.Linear(config.embedding, config.tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.config.embedding:
            raise ValueError(
                f"identity must be [B, {self.config.embedding}], an embedding per clip, got {list(embeddings.shape)}"
            )
        tokens = self.proj(embeddings.to(self.proj.weight))
        return self.norm(tokens.unflatten(-1, (self.config.tokens, self.norm.normalized_shape[0])))
