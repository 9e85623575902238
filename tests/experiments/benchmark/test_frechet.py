"""Frechet distance: the closed form where it is known, a metric's laws, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from experiments.benchmark.frechet import frechet_distance, gaussian

Gaussian = tuple[Tensor, Tensor]


def random_gaussian(seed: int, size: int = 5, rank: int = 5) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(size, rank, generator=generator, dtype=torch.float64)
    return torch.randn(size, generator=generator, dtype=torch.float64), factor @ factor.T


def test_diagonal_gaussians_have_a_closed_form() -> None:
    first = (torch.tensor([0.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 9.0]).double()))
    second = (torch.tensor([3.0, 4.0]).double(), torch.diag(torch.tensor([1.0, 25.0]).double()))
    # |m1 - m2|^2 and, for commuting covariances, the sum of (s1 - s2)^2.
    assert frechet_distance(first, second) == pytest.approx(25.0 + 1.0 + 4.0, rel=1e-9)


def test_agrees_with_the_root_of_the_product() -> None:
    (m1, c1), (m2, c2) = random_gaussian(0), random_gaussian(1)
    root = np.real(sqrtm((c1 @ c2).numpy()))
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace()) - 2 * float(np.trace(root))
    assert frechet_distance((m1, c1), (m2, c2)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rank", [5, 2])
def test_is_symmetric_and_zero_only_for_itself(rank: int) -> None:
    first, second = random_gaussian(2, rank=rank), random_gaussian(3, rank=rank)
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)
    assert frechet_distance(first, second) > 0.1


def test_finds_the_distance_of_what_it_was_drawn_from() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20_000, 4, generator=generator)
    second = 2 * torch.randn(20_000, 4, generator=generator) + 1
    assert frechet_distance(gaussian(first), gaussian(second)) == pytest.approx(4 * 1 + 4 * 1, rel=0.03)


def test_fewer_samples_than_dimensions_are_regularised() -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(6, 64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    mean, covariance = gaussian(rows)
    assert torch.linalg.eigvalsh(covariance).min() > 0
    assert frechet_distance((mean, covariance), (mean, covariance)) == pytest.approx(0.0, abs=1e-9)
    shifted = frechet_distance(gaussian(rows), gaussian(rows + 0.1))
    assert shifted == pytest.approx(64 * 0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (torch.zeros(1, 4), "at least 2 rows"),
        (torch.zeros(4), r"\[N, D\]"),
        (torch.full((3, 2), torch.nan), "finite"),
    ],
)
def test_bad_embeddings(rows: Tensor, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        gaussian(rows)


def test_gaussians_of_two_dimensions() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        frechet_distance(random_gaussian(0, 5), random_gaussian(0, 4))
