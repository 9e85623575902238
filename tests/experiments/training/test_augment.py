"""What is done to pictures before a reader learns from them."""

from __future__ import annotations

import torch

from experiments.training.augment import collage, mirror_some, recolor, zoom


def test_recolor_shuffles_colours_and_leaves_greys() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(1, 1, 8, 8, generator=generator).expand(64, 3, 8, 8)
    assert torch.allclose(recolor(grey, torch.Generator().manual_seed(1)), grey, atol=1e-5)
    red = torch.zeros(64, 3, 4, 4)
    red[:, 0] = 1.0
    colors = recolor(red, torch.Generator().manual_seed(1))[:, :, 0, 0]
    assert torch.allclose(colors.sum(1), torch.ones(64), atol=1e-5)
    without = (colors - 1 / 3).abs().amax(1) < 1e-5
    assert 8 <= int(without.sum()) <= 32  # about three tenths
    assert set(colors[~without].argmax(1).tolist()) == {0, 1, 2}


def test_half_are_mirrored() -> None:
    images = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mirrored = mirror_some(images, torch.Generator().manual_seed(1))
    flipped = [bool(torch.equal(a, b.flip(-1))) for a, b in zip(mirrored, images, strict=True)]
    same = [bool(torch.equal(a, b)) for a, b in zip(mirrored, images, strict=True)]
    assert [a != b for a, b in zip(flipped, same, strict=True)] == [True] * 64
    assert 20 <= sum(flipped) <= 44


def test_zoom_moves_and_scales_but_never_mirrors() -> None:
    # A red left and a blue right half, whose border stands still or moves with the picture, on grey.
    images = torch.full((64, 3, 32, 32), 0.5)
    images[:, :, 8:24, 8:24] = 0.0
    images[:, 0, 8:24, 8:16] = images[:, 2, 8:24, 16:24] = 1.0
    zoomed = zoom(images, torch.Generator().manual_seed(0))
    assert zoomed.shape == images.shape
    assert torch.equal(zoomed, zoom(images, torch.Generator().manual_seed(0)))
    columns = torch.arange(32.0)
    red, blue = ((zoomed[:, c] - zoomed[:, 1]).clamp(min=0) for c in (0, 2))
    centres = [(part.sum(1) * columns).sum(1) / part.sum((1, 2)) for part in (red, blue)]
    assert bool((centres[0] < centres[1]).all())
    middle = (centres[0] + centres[1]) / 2 - 15.5
    assert 0.5 < float(middle.abs().max()) <= 0.12 * 32 / (1 - 0.25) + 0.5
    area = (red + blue).sum((1, 2)) / 256
    assert 1 / 1.26**2 < float(area.min()) < 0.85
    assert 1.15 < float(area.max()) < 1 / 0.74**2
    # What comes in is the border's grey.
    assert torch.allclose(zoomed[:, :, [0, -1]], torch.tensor(0.5))


def test_no_zoom_is_the_picture_itself() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(zoom(images, torch.Generator(), most=0.0, shift=0.0), images, atol=1e-5)


def discs(color: list[float], background: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixty-four discs that fill half the side, and their masks."""
    at = (torch.arange(64.0) - 31.5) / 32
    mask = (at[:, None].square() + at.square() < 0.25).float().expand(64, 1, 64, 64)
    return torch.lerp(torch.full((64, 3, 64, 64), background), torch.tensor(color).view(3, 1, 1), mask), mask


def centres(images: torch.Tensor, channel: int) -> torch.Tensor:
    """Row and column ``[N, 2]``, in [-1, 1], of what has this colour."""
    other = [c for c in range(3) if c != channel]
    weight = (images[:, channel] - images[:, other].amax(1)).clamp(min=0)
    at = (torch.arange(64.0) - 31.5) / 32
    total = weight.sum((1, 2))
    assert float(total.min()) > 10
    return torch.stack([(weight.sum(2) * at).sum(1), (weight.sum(1) * at).sum(1)], 1) / total[:, None]


def test_a_collage_has_one_thing_beside_or_above_the_other() -> None:
    (red, red_mask), (blue, blue_mask) = discs([1.0, 0.0, 0.0], 0.2), discs([0.0, 0.0, 1.0], 0.8)
    on_top = torch.arange(64) % 2 == 0

    def make() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return collage(red, red_mask, blue, blue_mask, on_top=on_top, generator=generator)

    made = make()
    assert torch.equal(made, make())
    assert 0.0 <= float(made.min()) <= float(made.max()) <= 1.0
    # The background is the second's, whole: nothing is left of the first's.
    assert torch.allclose(made[:, :, 0, :], torch.tensor(0.8))
    assert not bool(((made - 0.2).abs().amax(1) < 0.02).any())
    apart = centres(made, 0) - centres(made, 2)
    assert bool((apart[on_top, 0] < -0.4).all())
    assert bool((apart[on_top, 1].abs() < 0.3).all())
    assert bool((apart[~on_top, 1].abs() > 0.4).all())
    assert bool((apart[~on_top, 0].abs() < 0.3).all())
    assert 8 <= int((apart[~on_top, 1] < 0).sum()) <= 24  # on either side
