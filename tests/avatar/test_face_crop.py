from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avatar.face_box import FaceBox
from avatar.face_crop import MARGIN, RISE, Crop, shrunk


def _smooth(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin((a * x + b * y) / 15) for a, b in ((1, 0), (0.3, 1), (1, -1))])


def test_the_crop_lies_around_the_face() -> None:
    crop = Crop.around(FaceBox(100, 200, 100))
    assert crop.size == round(100 * MARGIN)
    assert crop.x + crop.size / 2 == pytest.approx(150, abs=0.5)
    assert crop.y + crop.size / 2 == pytest.approx(250 - 100 * RISE, abs=1.0)
    assert Crop.around(FaceBox(100, 200, 100), margin=1.0, rise=0.0) == Crop(100, 200, 100)
    with pytest.raises(ValueError, match="margin must be at least 1"):
        Crop.around(FaceBox(0, 0, 10), margin=0.9)
    with pytest.raises(ValueError, match="size must be at least 1"):
        Crop(0, 0, 0)


def test_cut_takes_the_pixels_and_repeats_the_border() -> None:
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Crop(4, 5, 10).cut(image, 10), image[:, 5:15, 4:14])
    beyond = Crop(-3, -2, 36).cut(image, 36)
    assert torch.equal(beyond[:, 2:22, 3:33], image)
    assert torch.equal(beyond[:, 0], beyond[:, 2])
    assert torch.equal(beyond[:, :, -1], beyond[:, :, -4])
    assert torch.equal(beyond[:, -1, -1], image[:, -1, -1])


def test_cut_is_antialiased_and_stays_in_range() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = ((x + y) % 2).float().expand(3, 64, 64)
    assert (Crop(0, 0, 64).cut(board, 16) - 0.5).abs().max() < 0.02
    step = (x >= 32).float().expand(3, 64, 64)
    for size in (16, 50, 100, 200):
        cut = Crop(0, 0, 64).cut(step, size)
        assert 0.0 <= float(cut.min()) <= float(cut.max()) <= 1.0


def test_the_whole_picture_pasted_is_the_frame_itself() -> None:
    image, frame = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Crop(0, 0, 24).paste(frame, image), frame)
    larger = Crop(-4, -2, 32)
    frame = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(larger.paste(frame, image), frame[:, 2:26, 4:28])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(8, 60), st.integers(8, 60), st.integers(-30, 50), st.integers(-30, 50), st.integers(1, 70),
    st.integers(1, 48), st.floats(0.0, 0.5),
)  # fmt: skip
def test_outside_the_crop_not_a_bit_changes(
    height: int, width: int, x: int, y: int, size: int, side: int, feather: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    image, frame = (
        torch.rand(3, height, width, generator=generator),
        torch.rand(3, side, side, generator=generator),
    )
    crop = Crop(x, y, size)
    kept = image.clone()
    pasted = crop.paste(frame, image, feather)
    assert torch.equal(image, kept)
    assert pasted.shape == image.shape
    assert 0.0 <= float(pasted.min()) <= float(pasted.max()) <= 1.0
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)] = False
    assert torch.equal(pasted[:, outside], image[:, outside])
    # What was cut at its own size goes back unchanged.
    assert (crop.paste(crop.cut(image, size), image, feather) - image).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(120, 90), (80, 160)])
@pytest.mark.parametrize("size", [48, 64, 200])
def test_cut_and_paste_is_close_to_the_picture(shape: tuple[int, int], size: int) -> None:
    image = _smooth(*shape)
    for crop in (Crop(20, 10, 64), Crop(-20, 30, 90)):
        assert (crop.paste(crop.cut(image, size), image) - image).abs().max() < 0.02


def test_the_border_is_feathered_inside_the_picture_only() -> None:
    image, frame = torch.zeros(3, 100, 100), torch.ones(3, 50, 50)
    row = Crop(20, 20, 50).paste(frame, image, 0.2)[0, 45]
    assert row[:20].max() == 0.0
    assert bool((row[20:30].diff() > 0).all())
    assert row[20] < 0.05
    assert bool((row[30:60] == 1.0).all())
    assert torch.allclose(row[20:70], row[20:70].flip(0))
    row = Crop(0, 20, 50).paste(frame, image, 0.2)[0, 45]
    assert bool((row[:40] == 1.0).all())
    row = Crop(20, 20, 50).paste(frame, image, 0.0)[0, 45]
    assert row.tolist() == [0.0] * 20 + [1.0] * 50 + [0.0] * 30


def test_boxes_go_to_the_crop_and_back() -> None:
    crop, box = Crop(10, -20, 80), FaceBox(30, 5, 40)
    inner = crop.to_crop(box, 160)
    assert inner == FaceBox(40, 50, 80)
    assert crop.to_picture(inner, 160) == box


def test_bad_pictures_are_named() -> None:
    crop, image = Crop(0, 0, 8), torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match=r"must be \[3, H, W\] float, got \[8, 8\]"):
        crop.cut(image[0], 8)
    with pytest.raises(ValueError, match=r"float, got .* torch\.uint8"):
        crop.cut(image.byte(), 8)
    with pytest.raises(ValueError, match=r"frame must be square, got \[3, 8, 7\]"):
        crop.paste(image[:, :, :7], image)
    with pytest.raises(ValueError, match="feather must lie between"):
        crop.paste(image, image, 0.6)


def test_a_large_picture_is_shrunk_to_even_sides_and_a_small_one_kept() -> None:
    image = _smooth(96, 120)
    assert shrunk(image, 120) is image
    for size, shape in ((60, (48, 60)), (119, (94, 118)), (33, (26, 32))):
        assert shrunk(image, size).shape[1:] == shape
    assert shrunk(_smooth(1000, 32), 64).shape == (3, 64, 2)
    assert (shrunk(image, 60) - image[:, ::2, ::2]).abs().max() < 0.1


def test_a_crop_is_found_again_in_the_shrunk_picture() -> None:
    assert Crop(100, -40, 301).scaled(0.25) == Crop(25, -10, 75)
    assert Crop(0, 0, 1).scaled(0.1).size == 1


def test_a_share_keeps_the_picture_where_it_is_zero() -> None:
    image, frame = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    share = torch.zeros(1, 20, 20)
    share[:, :10] = 1.0
    pasted = Crop(0, 0, 40).paste(frame, image, share=share)
    assert torch.equal(pasted[:, 22:], image[:, 22:])
    assert torch.equal(pasted[:, :18], frame[:, :18])
