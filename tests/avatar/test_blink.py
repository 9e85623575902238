"""When lids close, and that a trained model hears of it."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch

from avatar.blink import blink_times, lids_at, lids_of_frames
from tests.avatar.talking import FRAMES, clips, make_conditions, make_model


def test_blinks_come_as_often_as_asked() -> None:
    times = blink_times(600.0, 17.0, generator=torch.Generator().manual_seed(0))
    assert len(times) / 10 == pytest.approx(17.0, rel=0.15)
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))
    assert blink_times(60.0, 0.0, generator=torch.Generator()) == []
    with pytest.raises(ValueError, match="blinks per minute"):
        blink_times(60.0, -1.0, generator=torch.Generator())


def test_a_blink_shuts_the_eye_for_a_frame_at_least() -> None:
    for start in torch.linspace(0.2, 0.24, 9).tolist():
        lids = lids_of_frames([start], 0, 25, Fraction(25))
        assert float(lids.max()) == pytest.approx(1.0, abs=1e-4)
        assert float(lids[:4].max()) == 0.0
        assert float(lids[14:].max()) == 0.0


def test_frames_see_the_same_blink_whoever_asks() -> None:
    whole = lids_of_frames([0.1, 0.9], 0, 40, Fraction(30000, 1001))
    pieces = [lids_of_frames([0.1, 0.9], i, i + 8, Fraction(30000, 1001)) for i in range(0, 40, 8)]
    assert torch.equal(torch.cat(pieces), whole)
    assert not lids_at(torch.zeros(0, dtype=torch.float64), torch.arange(3.0)).any()


def test_blinks_reach_the_frames_they_belong_to() -> None:
    from dataclasses import replace

    model = make_model()
    conditions = replace(make_conditions(model), blink=None)
    open_eyes = replace(conditions, blink=torch.zeros(2, FRAMES))
    lids = torch.zeros(2, FRAMES)
    lids[0, 1] = 1.0
    with torch.no_grad():
        change = model(clips(), 500, replace(conditions, blink=lids)) - model(clips(), 500, open_eyes)
        same = model(clips(), 500, open_eyes) - model(clips(), 500, conditions)
    assert not same.any()  # open eyes are what nothing said means
    assert float(change[0].abs().max()) > 1e-4
    assert not change[1].any()
