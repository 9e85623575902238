"""Pieces are joined where nobody can tell that they are apart, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3d import meshing
from gen3d.bridging import bridge_pieces

SIZE = 48


def two_rods(gap: float) -> np.ndarray:
    """A rod along y of radius 0.15, cut at y = 0; positive inside."""
    axis = np.linspace(-1.0, 1.0, SIZE)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    rod = 0.15 - np.sqrt(x**2 + z**2)
    ends = np.minimum(0.7 - np.abs(y), np.abs(y) - gap / 2)
    return np.minimum(rod, ends).astype(np.float32)


def anywhere(points: Tensor) -> Tensor:
    return torch.ones(len(points), dtype=torch.bool)


def pieces(field: np.ndarray) -> int:
    return meshing.num_components(meshing.extract_mesh(field, level=0.0))


def test_a_hidden_gap_is_closed_across_the_whole_section() -> None:
    field = two_rods(0.1)
    assert pieces(field) == 2
    joined = bridge_pieces(field, 0.0, anywhere)
    assert pieces(joined) == 1
    middle = joined[:, SIZE // 2] > 0.0
    rod = field[:, SIZE // 4] > 0.0
    assert (middle & rod).sum() >= 0.5 * rod.sum()
    assert (middle & ~rod).sum() <= rod.sum()


@pytest.mark.parametrize(
    ("gap", "unseen", "settings"),
    [
        (0.5, anywhere, {}),
        (0.1, lambda points: torch.zeros(len(points), dtype=torch.bool), {}),
        (0.1, lambda points: points[:, 1] > 0.0, {}),
        (0.1, anywhere, {"max_gap": 0.01}),
    ],
    ids=["far apart", "seen through", "half seen through", "not asked for"],
)
def test_what_stays_apart(gap: float, unseen: Callable[[Tensor], Tensor], settings: dict[str, float]) -> None:
    field = two_rods(gap)
    assert np.array_equal(bridge_pieces(field, 0.0, unseen, **settings), field)


def test_specks_and_single_pieces_are_left_alone() -> None:
    field = two_rods(0.0)
    assert bridge_pieces(field, 0.0, anywhere) is field
    field[24 + 7, 24, 24] = 0.05
    assert np.array_equal(bridge_pieces(field, 0.0, anywhere, min_fraction=0.05), field)


def test_it_is_asked_about_places_in_the_gap() -> None:
    asked: list[Tensor] = []

    def remember(points: Tensor) -> Tensor:
        asked.append(points)
        return anywhere(points)

    bridge_pieces(two_rods(0.1), 0.0, remember)
    assert len(asked) == 1
    assert float(asked[0][:, 1].abs().max()) < 0.1
    assert float(asked[0][:, [0, 2]].norm(dim=1).max()) < 0.25


def test_bad_shape() -> None:
    with pytest.raises(ValueError, match=r"\[R, R, R\]"):
        bridge_pieces(np.zeros((3, 3, 4), dtype=np.float32), 0.0, anywhere)
