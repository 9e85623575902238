"""Floats to bytes and back."""

from __future__ import annotations

import torch

from video.pixels import from_uint8, to_uint8


def test_every_byte_comes_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    images = from_uint8(pixels)
    assert images.dtype == torch.float32
    assert float(images.min()) == 0.0
    assert float(images.max()) == 1.0
    assert torch.equal(to_uint8(images), pixels)


def test_values_are_clamped_and_rounded_to_the_nearest() -> None:
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 7.0], requires_grad=True)
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]
