"""Scores with known answers: shifts that were put in are found, a static picture scores nothing."""

from __future__ import annotations

import math

import pytest
import torch

from avatar.metrics import boundary_jump, closure_recall, moves, offset, pearson, static_psnr, stillness


def _track(frames: int = 80) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(frames + 4, generator=generator)
    return 0.05 + 0.03 * torch.nn.functional.avg_pool1d(steps[None], 5, 1)[0]


def test_correlation() -> None:
    truth = _track()
    assert pearson(truth, truth) == pytest.approx(1.0)
    assert pearson(0.3 - 2 * truth, truth) == pytest.approx(-1.0)
    assert pearson(torch.full_like(truth, 0.04), truth) == 0.0
    assert abs(pearson(_track().flip(0), truth)) < 0.5
    assert moves(truth)
    assert not moves(torch.full_like(truth, 0.04))


@pytest.mark.parametrize("shift", [-7, -1, 0, 1, 4])
def test_an_injected_shift_is_found(shift: int) -> None:
    whole = _track(120)
    assert offset(whole[20 - shift : 100 - shift], whole[20:100]) == shift


def test_closures() -> None:
    track = torch.tensor([0.1, 0.01, 0.1, 0.1, 0.05, 0.1, 0.0])
    assert closure_recall(track, [(1, 2), (3, 5), (6, 7)], opened=0.12) == pytest.approx(2 / 3)
    assert math.isnan(closure_recall(track, [], opened=0.12))
    assert math.isnan(closure_recall(track, [(9, 12)], opened=0.12))


def test_stillness() -> None:
    silent = torch.zeros(80, dtype=torch.bool)
    silent[:20] = True
    track = _track()
    assert stillness(torch.where(silent, 0.0, track), silent) == 0.0
    assert stillness(torch.where(silent, track[0] + 0.5 * (track - track[0]), track), silent) > 0.02
    assert math.isnan(stillness(torch.zeros(80), silent))


def test_static_regions_are_compared_and_moving_ones_are_not() -> None:
    truth = torch.full((4, 3, 8, 8), 0.5)
    truth[1::2, :, :4] = 1.0  # the upper half moves
    made = truth.clone()
    made[:, :, :4] = 0.0
    assert static_psnr(made, truth) == pytest.approx(100.0)
    made[:, :, 4:] += 0.1
    assert static_psnr(made, truth) == pytest.approx(20.0, abs=1e-3)
    assert math.isnan(
        static_psnr(torch.rand(4, 3, 8, 8), torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8))
    )


def test_a_jump_where_clips_meet() -> None:
    smooth = torch.arange(12.0).view(-1, 1, 1, 1).expand(12, 3, 4, 4) / 100
    assert boundary_jump(smooth, [0, 4, 8]) == pytest.approx(1.0, rel=1e-4)
    broken = smooth.clone()
    broken[4:] += 0.09
    assert boundary_jump(broken, [0, 4]) == pytest.approx(10.0, rel=1e-3)
    assert math.isnan(boundary_jump(smooth, [0]))


def test_tracks_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[3\] and \[4\]"):
        pearson(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="reach"):
        offset(_track(8), _track(8))
