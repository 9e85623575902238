"""Face locator, speed buckets and identity tokens, one by one."""

from __future__ import annotations

import math

import pytest
import torch

from avatar.identity import IdentityConfig, IdentityProjection
from avatar.locator import FaceLocator, LocatorConfig
from avatar.speed import SpeedConfig, SpeedEmbedding, speed_buckets
from tests.avatar.talking import noise, randomise


@torch.no_grad()
def test_locator_starts_at_zero_and_sees_where() -> None:
    locator = FaceLocator(8, LocatorConfig(channels=(1, 4, 8, 8)))
    mask = torch.zeros(2, 3, 1, 32, 24)
    assert locator.config.downscale == 4
    assert locator(mask).shape == (2, 3, 8, 8, 6)
    assert not locator(mask + 1.0).any()
    randomise(locator)
    mask[1, 2, 0, 8:12, 8:12] = 1.0
    moved = (locator(mask) - locator(torch.zeros_like(mask))).abs().amax(2)
    assert moved[1, 2, 2, 2] > 0
    assert moved[1, 2, 7].max() == 0  # far away
    moved[1, 2] = 0.0
    assert moved.max() == 0


def test_locator_takes_masks_for_pictures_of_three_channels() -> None:
    locator = FaceLocator(8, LocatorConfig(channels=(3, 4, 8)))
    assert locator(torch.ones(1, 1, 1, 8, 8)).shape == (1, 1, 8, 4, 4)
    with pytest.raises(ValueError, match=r"got \[1, 1, 3, 8, 8\]"):
        locator(torch.ones(1, 1, 3, 8, 8))
    with pytest.raises(ValueError, match="channels must be two or more positive numbers"):
        LocatorConfig(channels=(1,))


def test_speed_buckets_golden() -> None:
    config = SpeedConfig(centers=(0.0, 10.0), radii=(5.0, 20.0), width=4)
    got = speed_buckets(torch.tensor([[5.0, 10.0]]), config)
    assert got.shape == (1, 2, 2)
    expected = [math.tanh(3.0), math.tanh(3.0 * -5.0 / 20.0), math.tanh(6.0), 0.0]
    assert got.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert (speed_buckets(torch.linspace(0, 100, 50), SpeedConfig()).diff(dim=0) >= 0).all()
    with pytest.raises(ValueError, match="as many, at least one each, got 1 and 2"):
        SpeedConfig(centers=(1.0,), radii=(1.0, 2.0))
    with pytest.raises(ValueError, match="radii must be above 0"):
        SpeedConfig(centers=(1.0,), radii=(0.0,))


def test_speed_embedding_tells_speeds_apart() -> None:
    embedding = SpeedEmbedding(SpeedConfig(width=6))
    out = embedding(torch.tensor([[0.0, 4.0, 60.0]]))
    assert out.shape == (1, 3, 6)
    assert float((out[0, 0] - out[0, 1]).detach().norm()) > 1e-2
    with pytest.raises(ValueError, match=r"speed must be \[B, F\] in degrees per second, got \[3\]"):
        embedding(torch.zeros(3))


@torch.no_grad()
def test_identity_tokens() -> None:
    projection = IdentityProjection(16, IdentityConfig(embedding=8, tokens=3))
    tokens = projection(noise(2, 8))
    assert tokens.shape == (2, 3, 16)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 3), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"identity must be \[B, 8\]"):
        projection(noise(2, 9))
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        IdentityConfig(embedding=8, tokens=0)
