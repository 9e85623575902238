"""Telling object from background in pictures that are sharp, blurred, uneven or odd along their borders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import orbit
from gen3d.masks import border_color, plain_background, soft_mask
from gen3d.views import Views

SIZE = 128
BACKGROUND = (0.30, 0.60, 0.40)


def disc(radius: float = 0.5, softness: float = 1.0) -> Tensor:
    """Coverage ``[1, 1, S, S]`` of a disc, its outline ``softness`` pixels wide."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2.0 - 1.0
    distance = (axis[:, None].square() + axis.square()).sqrt() - radius
    return (0.5 - distance * (SIZE / 2) / softness).clamp(0.0, 1.0)[None, None]


def picture(coverage: Tensor, color: tuple[float, float, float] = (0.9, 0.2, 0.2)) -> Tensor:
    over, under = (torch.tensor(value)[None, :, None, None] for value in (color, BACKGROUND))
    return torch.lerp(under.expand(-1, -1, SIZE, SIZE), over.expand(-1, -1, SIZE, SIZE), coverage)


@pytest.mark.parametrize("softness", [1.0, 2.0, 4.0])
def test_a_blurred_outline_stays_where_it_is(softness: float) -> None:
    true, blurred = disc(), disc(softness=softness)
    mask = soft_mask(picture(blurred), torch.tensor(BACKGROUND), 0.06)
    assert float(mask.sum() / true.sum()) == pytest.approx(1.0, abs=0.04)
    assert float((mask - true).abs().sum() / true.sum()) < 0.06


def test_pale_parts_beside_strong_ones_are_kept() -> None:
    """Only the outline goes by the strongest colour near by."""
    image = picture(disc())
    image[..., :64] = picture(disc(), (0.42, 0.6, 0.4))[..., :64]
    mask = soft_mask(image, torch.tensor(BACKGROUND), 0.06)
    inside = disc(0.4) > 0.5
    assert float(mask[inside].mean()) > 0.97


def test_thin_parts_are_kept() -> None:
    image = picture(torch.zeros(1, 1, SIZE, SIZE))
    image[..., 20:100, 60:63] = 0.9
    mask = soft_mask(image, torch.tensor(BACKGROUND), 0.06)
    assert float(mask[..., 22:98, 60:63].min()) == 1.0
    assert float(mask.sum()) == pytest.approx(240.0, abs=8.0)


def test_an_even_background_is_found_without_unevenness() -> None:
    color, unevenness = plain_background(picture(disc()).expand(4, -1, -1, -1))
    torch.testing.assert_close(color, torch.tensor(BACKGROUND))
    assert unevenness == pytest.approx(0.0, abs=1e-6)


def test_an_uneven_background_with_odd_borders_is_still_background() -> None:
    """Dark borders, a gradient and noise, as decoders make them."""
    image = picture(disc()).repeat(4, 1, 1, 1)
    drift = torch.linspace(-0.05, 0.05, SIZE)[:, None] * (1.0 - disc())
    noise = (
        F.avg_pool2d(torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), 9, 1, 4) * 0.1
    )
    image = image + drift + noise * (1.0 - disc())
    inner = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inner[4:-4, 4:-4] = True
    image = torch.where(inner, image, image - 0.15).clamp(0.0, 1.0)
    color, unevenness = plain_background(image)
    assert (color - torch.tensor(BACKGROUND)).abs().max() < 0.02
    assert (border_color(image) - torch.tensor(BACKGROUND)).abs().max() > 0.1
    assert 0.02 < unevenness < 0.08
    views = Views.from_images(image, orbit([0, 90, 180, 270], [0] * 4))
    frame = inner & (disc(0.7)[0, 0] < 0.5)
    assert float(views.masks[..., frame].mean()) < 0.03
    assert float(views.masks[..., disc(0.45)[0, 0] > 0.5].mean()) > 0.99


def test_what_is_background_is_made_even() -> None:
    image = picture(disc()) + 0.01 * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    views = Views.from_images(image.clamp(0.0, 1.0), orbit(0, 0))
    outside = disc(0.7)[0, 0] < 0.5
    assert float(views.images[0][:, outside].std(dim=1).max()) < 1e-6
    torch.testing.assert_close(views.images[0][:, ~outside & (disc(0.4)[0, 0] > 0.5)].mean(dim=1),
                               torch.tensor([0.9, 0.2, 0.2]), atol=0.01, rtol=0.0)  # fmt: skip


def test_a_picture_that_is_all_object_or_all_background_is_no_error() -> None:
    for image in (
        torch.full((2, 3, 16, 16), 0.5),
        torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)),
    ):
        color, unevenness = plain_background(image)
        assert bool(torch.isfinite(color).all())
        assert unevenness >= 0.0
