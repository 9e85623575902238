"""Frechet distance between two sets of embeddings, each taken for a Gaussian.

With the Inception network's pool features this is the FID (arXiv 1706.08500). Here the embeddings are those of a
backbone's own CLIP image tower, so the numbers are no FID and may be compared only with others of the same tower.
From few samples the distance comes out too large, the more so the fewer there are: compare sets of one size.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Added to the covariances' diagonal: with fewer samples than dimensions they are singular.
REGULARISATION = 1e-6


def gaussian(embeddings: Tensor, regularisation: float = REGULARISATION) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of embeddings [N, D] in float64, `regularisation` added to the diagonal."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings must be [N, D] with at least 2 rows, got {list(embeddings.shape)}")
    if not bool(embeddings.isfinite().all()):
        raise ValueError("embeddings must be finite, got some that are not")
    rows = embeddings.double()
    identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return rows.mean(0), torch.cov(rows.T).reshape_as(identity) + regularisation * identity


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) of two Gaussians, each mean [D] and covariance [D, D]."""
    (mean1, covariance1), (mean2, covariance2) = first, second
    if mean1.shape != mean2.shape:
        raise ValueError(
            f"both Gaussians must have one dimension, got {list(mean1.shape)} and {list(mean2.shape)}"
        )
    root = _root(covariance1)
    # tr of a root is the sum of the roots of the eigenvalues. This form is symmetric, unlike C1 C2.
    eigenvalues = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp_min(0.0)
    spread = covariance1.trace() + covariance2.trace() - 2.0 * eigenvalues.sqrt().sum()
    return max(float((mean1 - mean2).square().sum() + spread), 0.0)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
