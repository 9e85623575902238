from __future__ import annotations

import pytest
import torch

from experiments.world.behaviour import (
    BEHAVIOUR_CHANNELS,
    Behaviour,
    BehaviourConfig,
    behave,
    head_speed,
)  # fmt: skip
from experiments.world.head_shape import Rig

BLINK, BROW, GAZE, HEAD = 0, 2, slice(3, 5), slice(5, 8)


def _behave(seed: int = 0, duration: float = 60.0, stresses: tuple[float, ...] = (), **settings) -> Behaviour:
    generator = torch.Generator().manual_seed(seed)
    return behave(duration, stresses, BehaviourConfig(**settings), generator=generator)


def _times(duration: float, fps: float = 25.0) -> torch.Tensor:
    return (torch.arange(int(duration * fps), dtype=torch.float64) + 0.5) / fps


def test_every_frame_is_a_pose_of_the_rig() -> None:
    values = _behave(stresses=tuple(range(60)), head_motion=3.0, glances=2.0, brows=2.0).at(_times(60))
    assert values.shape == (1500, len(BEHAVIOUR_CHANNELS))
    for row in values[::7]:
        Rig(**dict(zip(BEHAVIOUR_CHANNELS, row.tolist(), strict=True)))


def test_seeds_and_frame_rates() -> None:
    one, again, other = _behave(1), _behave(1), _behave(2)
    t = _times(60)
    assert torch.equal(one.at(t), again.at(t))
    assert not torch.equal(one.at(t), other.at(t))
    # Every fifth frame at 125 a second begins its middle where one at 25 has its own.
    assert torch.allclose(one.at(t), one.at(_times(60, 125))[2::5], atol=1e-6)


def test_blinks_come_at_their_rate_and_close_the_eyes() -> None:
    counts = []
    for seed in range(8):
        lids = _behave(seed, blinks_per_minute=20).at(_times(60))[:, BLINK]
        shut = lids > 0.9
        counts.append(int((shut[1:] & ~shut[:-1]).sum()))
        lasting = shut.float().mean() * 60 / max(counts[-1], 1)
        assert 0.04 <= lasting <= 0.25  # seconds shut a blink
    assert 14 <= sum(counts) / 8 <= 26
    assert not _behave(blinks_per_minute=0).at(_times(60))[:, BLINK].any()


def test_a_still_head_is_still() -> None:
    still = _behave(head_motion=0, glances=0, brows=0, stresses=(1.0, 2.0), rest_deg=(5.0, -3.0, 2.0)).at(
        _times(60)
    )
    assert not still[:, BROW].any()
    assert not still[:, GAZE].any()
    assert torch.allclose(still[:, HEAD], torch.tensor([5.0, -3.0, 2.0]).expand(1500, 3))
    assert not head_speed(still[:, HEAD], 25).gt(1e-3).any()


def test_motion_grows_with_its_setting() -> None:
    def speed(motion: float) -> float:
        runs = [_behave(s, head_motion=motion).at(_times(60))[:, HEAD] for s in range(4)]
        return float(torch.stack([head_speed(run, 25) for run in runs]).mean())

    slow, usual, fast = speed(0.2), speed(1.0), speed(2.0)
    assert usual == pytest.approx(5 * slow, rel=0.02)
    assert fast == pytest.approx(2 * usual, rel=0.02)
    assert 3 < usual < 20  # degrees a second: lively, not shaking


def test_stress_moves_brows_and_nods() -> None:
    stresses = tuple(i + 0.5 for i in range(60))
    quiet, lively = (_behave(3, stresses=s) for s in ((), stresses))
    assert not quiet.at(_times(60))[:, BROW].any()
    brows = lively.at(_times(60))[:, BROW]
    at_stress = lively.at(torch.tensor(stresses, dtype=torch.float64))[:, BROW]
    assert 5 <= int((at_stress > 0.25).sum()) <= 30
    assert at_stress.mean() > 2 * brows.mean()


def test_head_speed_of_known_turns() -> None:
    turn = torch.zeros(50, 3)
    turn[:, 0] = torch.arange(50) * 0.4  # 0.4 degrees a frame
    assert torch.allclose(head_speed(turn, 25), torch.full((50,), 10.0), atol=1e-3)
    roll = turn[:, [1, 1, 0]] + torch.tensor([30.0, 0.0, 0.0])
    assert torch.allclose(head_speed(roll, 30), torch.full((50,), 12.0), atol=1e-3)
    assert not head_speed(torch.zeros(1, 3), 25).any()


def test_bad_settings() -> None:
    for bad in (
        {"blinks_per_minute": 100.0},
        {"glances": -1.0},
        {"head_motion": 9.0},
        {"rest_deg": (50.0, 0.0, 0.0)},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BehaviourConfig(**bad)  # type: ignore[arg-type]
