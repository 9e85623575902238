from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from video.sound import Samples, SoundTrack


def tone(rate: int, seconds: float, hertz: float = 440.0) -> Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize(("rate", "stored"), [(16000, 48000), (44100, 44100), (48000, 48000), (11025, 48000)])
def test_rates_that_are_kept_and_that_are_not(rate: int, stored: int) -> None:
    track = SoundTrack(rate, [tone(rate, 0.5)])
    assert track.stored_rate == stored
    (found,) = Samples(track).take(stored // 2)
    expected = tone(stored, 0.5).numpy()
    middle = slice(stored // 10, -stored // 10)  # the ends of a tone that is cut off ring
    assert np.abs(found[middle] - expected[middle]).max() < 1e-3
    if rate == stored:
        assert np.array_equal(found, expected)


@settings(max_examples=20)
@given(st.sampled_from([16000, 44100]), st.integers(1, 4000), st.integers(1, 4000))
def test_sizes_of_blocks_and_of_steps_change_nothing(rate: int, size: int, step: int) -> None:
    sound = tone(rate, 0.2)
    whole = Samples(SoundTrack(rate, [sound])).take(12_000)
    samples = Samples(SoundTrack(rate, sound.split(size)))
    taken = [samples.take(min(step, 12_000 - start)) for start in range(0, 12_000, step)]
    assert whole.shape == (1, 12_000)
    assert np.array_equal(np.concatenate(taken, axis=1), whole)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_two_channels_are_each_what_one_is(rate: int) -> None:
    left, right = tone(rate, 0.2), tone(rate, 0.2, 700)
    both = Samples(SoundTrack(rate, torch.stack([left, right]).split(777, dim=1), channels=2)).take(12_000)
    alone = [Samples(SoundTrack(rate, [each])).take(12_000)[0] for each in (left, right)]
    assert np.array_equal(both, np.stack(alone))
    assert np.array_equal(alone[0], Samples(SoundTrack(rate, [left[None]])).take(12_000)[0])


def test_after_the_end_there_is_silence_and_before_it_nothing_is_read_ahead() -> None:
    read: list[int] = []

    def blocks() -> Iterator[Tensor]:
        for index in range(3):
            read.append(index)
            yield torch.full((100,), 0.25)

    samples = Samples(SoundTrack(48000, blocks()))
    assert samples.take(0).shape == (1, 0)
    assert read == []
    assert (samples.take(150) == 0.25).all()
    assert read == [0, 1]
    (rest,) = samples.take(200)
    assert (rest[:150] == 0.25).all()
    assert not rest[150:].any()
    assert not samples.take(10).any()


def test_empty_blocks_are_no_end() -> None:
    samples = Samples(SoundTrack(48000, [torch.zeros(0), torch.ones(4), torch.zeros(0), torch.ones(4)]))
    assert samples.take(9).tolist() == [[1.0] * 8 + [0.0]]
    assert not Samples(SoundTrack(16000, [])).take(10).any()


@pytest.mark.parametrize("rate", [0, -16000, 16000.0, True, 10**7])
def test_wrong_rates(rate: int) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        SoundTrack(rate, [])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (torch.tensor([0.0, float("nan")]), "block 1 .* NaN or Inf"),
        (torch.tensor([0.0, float("-inf")]), "NaN or Inf"),
        (torch.zeros(4, dtype=torch.float64), r"\[n\] or \[1, n\] float32, got \[4\] torch.float64"),
        (torch.zeros(4, dtype=torch.int16), "float32"),
        (torch.zeros(2, 4), r"SoundTrack\(channels=\) says how many"),
        (torch.tensor([0.0, -1.5]), r"\[-1, 1\], the largest is 1.5"),
    ],
)
def test_wrong_blocks(block: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(SoundTrack(44100, [torch.zeros(2), block])).take(10)


@pytest.mark.parametrize("block", [torch.zeros(4), torch.zeros(1, 4), torch.zeros(4, 2)])
def test_blocks_of_another_number_of_channels(block: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be \[2, n\] float32, got"):
        Samples(SoundTrack(44100, [torch.zeros(2, 4), block], channels=2)).take(10)


@pytest.mark.parametrize("channels", [0, 3, 6])
def test_wrong_numbers_of_channels(channels: int) -> None:
    with pytest.raises(ValueError, match="channels must be 1 or 2, got"):
        SoundTrack(44100, [], channels=channels)


def test_a_tensor_for_a_list_of_blocks_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="a list of one block"):
        Samples(SoundTrack(44100, torch.zeros(100))).take(10)
