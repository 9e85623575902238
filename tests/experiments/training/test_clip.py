"""What the recipe of the CLIP towers does to pictures."""

from __future__ import annotations

import torch

from experiments.training.clip import zoom


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
    assert 0.5 < float(middle.abs().max()) <= 0.08 * 32 / (1 - 0.15) + 0.5
    area = (red + blue).sum((1, 2)) / 256
    assert 1 / 1.16**2 < float(area.min()) < 0.85
    assert 1.15 < float(area.max()) < 1 / 0.84**2
    # What comes in is the border's grey.
    assert torch.allclose(zoomed[:, :, [0, -1]], torch.tensor(0.5))


def test_no_zoom_is_the_picture_itself() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(zoom(images, torch.Generator(), most=0.0, shift=0.0), images, atol=1e-5)
