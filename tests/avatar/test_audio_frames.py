from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avatar.audio_frames import num_frames, read_track, read_windows, track_places, window_indices

RATES = [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60), Fraction(12)]
rates = st.one_of(
    st.sampled_from(RATES), st.builds(Fraction, st.integers(1000, 120_000), st.integers(1000, 1010))
)


def test_number_of_frames() -> None:
    assert num_frames(Fraction(10), Fraction(25)) == 250
    assert num_frames(Fraction(10) + Fraction(1, 16000), Fraction(25)) == 251
    assert num_frames(Fraction(1, 16000), 25) == 1
    assert num_frames(3600, Fraction(30000, 1001)) == 107893  # 107892.107...
    for seconds, fps in ((0, 25), (1, 0), (-1, 25)):
        with pytest.raises(ValueError, match="above 0"):
            num_frames(seconds, fps)
    with pytest.raises(ValueError, match="Fraction"):
        num_frames(1, 29.97)  # type: ignore[arg-type]


@given(samples=st.integers(1, 10**9), fps=rates)
def test_frames_cover_the_sound_by_less_than_one_frame(samples: int, fps: Fraction) -> None:
    seconds = Fraction(samples, 16000)
    frames = num_frames(seconds, fps)
    assert frames / fps >= seconds > (frames - 1) / fps


@given(
    start=st.integers(0, 40 * 3600 * 60),
    fps=rates,
    per_frame=st.integers(1, 6),
    rate=st.sampled_from([50, 100]),
)
def test_places_never_drift(start: int, fps: Fraction, per_frame: int, rate: int) -> None:
    step, share = track_places(start, start + 3, fps, rate=rate, per_frame=per_frame)
    assert step.shape == share.shape == (3, per_frame)
    for i in range(3):
        for j in range(per_frame):
            exact = (start + i + Fraction(j, per_frame)) * rate / fps
            assert int(step[i, j]) == floor(exact)
            assert abs(float(share[i, j]) - float(exact - floor(exact))) < 1e-6


def test_an_hour_at_ntsc_rate() -> None:
    fps = Fraction(30000, 1001)
    last = num_frames(3600, fps) - 1
    step, share = track_places(last, last + 1, fps, rate=100, per_frame=1)
    # Frame 107892 of the hour begins 3599.9964 s into it; at 30 a second it would be at 3596.4.
    assert (float(step[0, 0]) + float(share[0, 0])) / 100 == pytest.approx(107892 * 1001 / 30000, abs=1e-6)


def test_at_25_frames_a_second_places_are_hops() -> None:
    step, share = track_places(7, 9, Fraction(25), rate=100, per_frame=4)
    assert step.tolist() == [[28, 29, 30, 31], [32, 33, 34, 35]]
    assert not share.any()


@given(start=st.integers(0, 5000), count=st.integers(1, 20), fps=rates)
def test_a_ramp_is_read_as_its_own_time(start: int, count: int, fps: Fraction) -> None:
    def ramp(a: int, b: int) -> torch.Tensor:
        return torch.arange(a, b, dtype=torch.float64)[:, None] / 100 * torch.tensor([1.0, -2.0])

    values = read_track(ramp, start, start + count, fps, rate=100, per_frame=2)
    times = torch.tensor(
        [[float((start + i + Fraction(j, 2)) / fps) for j in range(2)] for i in range(count)]
    )
    assert values.shape == (count, 2, 2)
    assert torch.allclose(values[..., 0].float(), times, rtol=1e-6, atol=1e-6)
    assert torch.allclose(values[..., 1].float(), -2 * times, rtol=1e-6, atol=1e-6)


def test_windows_at_the_edges() -> None:
    features = torch.arange(1.0, 6.0)[:, None]

    def windows(edges: str) -> list[list[float]]:
        return read_windows(lambda a, b: features[a:b], 0, 5, 5, radius=2, edges=edges)[..., 0].tolist()  # type: ignore[arg-type]

    assert windows("clamp") == [
        [1, 1, 1, 2, 3],
        [1, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 5],
        [3, 4, 5, 5, 5],
    ]
    assert windows("zero") == [
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5, 0],
        [3, 4, 5, 0, 0],
    ]
    assert window_indices(3, 5, 1).tolist() == [[2, 3, 4], [3, 4, 5]]
    with pytest.raises(ValueError, match="edges"):
        windows("wrap")
    with pytest.raises(ValueError, match="radius"):
        window_indices(0, 1, -1)
    with pytest.raises(ValueError, match=r"0 \.\.\. 5"):
        read_windows(lambda a, b: features[a:b], 4, 6, 5)


@given(
    total=st.integers(1, 40),
    radius=st.integers(0, 6),
    clip=st.integers(1, 9),
    edges=st.sampled_from(["clamp", "zero"]),
)
def test_windows_a_clip_at_a_time_are_the_windows_at_once(
    total: int, radius: int, clip: int, edges: str
) -> None:
    features = torch.randn(total, 2, 3, generator=torch.Generator().manual_seed(0))
    asked: list[tuple[int, int]] = []

    def read(a: int, b: int) -> torch.Tensor:
        assert 0 <= a < b <= total
        asked.append((a, b))
        return features[a:b]

    whole = read_windows(read, 0, total, total, radius=radius, edges=edges)  # type: ignore[arg-type]
    pieces = [
        read_windows(read, start, min(start + clip, total), total, radius=radius, edges=edges)  # type: ignore[arg-type]
        for start in range(0, total, clip)
    ]
    assert whole.shape == (total, 2 * radius + 1, 2, 3)
    assert torch.equal(torch.cat(pieces), whole)
    assert all(b - a <= clip + 2 * radius for a, b in asked[1:])
