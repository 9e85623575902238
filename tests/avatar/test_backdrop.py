"""A plain backdrop keeps the portrait's pixels; whatever moves over it, or is no backdrop, is the frame's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avatar.backdrop import Backdrop
from avatar.face_box import FaceBox
from avatar.face_crop import Crop

_SIZE = 64
_BOX = FaceBox(18, 16, 28)


def _portrait(middle: tuple[float, float] = (32.0, 32.0), wall: Tensor | None = None) -> Tensor:
    """A striped head of radius 18 before a wall that is a little brighter at one side, [3, S, S]."""
    y, x = torch.meshgrid(torch.arange(_SIZE) + 0.5, torch.arange(_SIZE) + 0.5, indexing="ij")
    if wall is None:
        wall = torch.stack([0.5 + 0.1 * x / _SIZE, torch.full_like(x, 0.6), 0.7 - 0.1 * y / _SIZE])
    head = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2).sqrt() < 18
    stripes = (0.3 + 0.2 * torch.sin(x * 1.5)).expand(3, -1, -1)
    return torch.where(head, stripes, wall)


def _repeated(portrait: Tensor, seed: int) -> Tensor:
    """As a model repeats it: off by one and a half levels, and noisy."""
    noise = torch.randn(portrait.shape, generator=torch.Generator().manual_seed(seed))
    return (portrait + 1.5 / 255 + noise / 255).clamp(0.0, 1.0)


def test_a_still_backdrop_is_the_portraits_to_the_bit() -> None:
    portrait = _portrait()
    backdrop = Backdrop.of(portrait, _repeated(portrait, 0), _BOX)
    corners = torch.zeros(_SIZE, _SIZE, dtype=torch.bool)
    corners[:, :8] = corners[:, -8:] = corners[:8] = True
    crop, picture = Crop(10, 4, _SIZE), torch.full((3, 80, 90), 0.5)
    picture[:, 4:68, 10:74] = portrait
    for seed in (1, 2):
        frame = _repeated(portrait, seed)
        share = backdrop.share(frame)
        assert share.shape == (1, _SIZE, _SIZE)
        assert not bool(share[0, corners].any())
        pasted = crop.paste(frame, picture, share=share)
        assert torch.equal(pasted[:, 4:68, 10:74][:, corners], portrait[:, corners])
        # The head is the frame's, wherever it is still.
        assert bool((share[0, 20:44, 20:44] == 1.0).all())
        assert torch.equal(pasted[:, 24:48, 30:54], frame[:, 20:44, 20:44])


def test_a_head_that_moves_is_shown_and_what_it_leaves_too() -> None:
    portrait = _portrait()
    backdrop = Backdrop.of(portrait, _repeated(portrait, 0), _BOX)
    moved = _repeated(_portrait((37.0, 32.0)), 1)
    shown = torch.lerp(portrait, moved, backdrop.share(moved))
    changed = (_portrait((37.0, 32.0)) - portrait).abs().amax(0) > 0.1
    assert int(changed.sum()) > 100
    assert float((shown - moved)[:, changed].abs().max()) < 0.03
    # A change grows into sight: no threshold at which a pixel jumps.
    last = torch.zeros(1, _SIZE, _SIZE)
    for levels in range(30):
        share = backdrop.share((backdrop.seen + levels / 255).clamp(0, 1))
        assert bool((share >= last - 1e-6).all())
        assert float((share - last).abs().max()) < (0.3 if levels else 1.1)
        last = share
    assert bool((last == 1.0).all())


@pytest.mark.parametrize("background", ["noise", "checks"])
def test_a_backdrop_that_is_not_plain_is_left_to_the_frame(background: str) -> None:
    y, x = torch.meshgrid(torch.arange(_SIZE), torch.arange(_SIZE), indexing="ij")
    walls = {
        "noise": torch.rand(3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0)),
        "checks": ((x // 4 + y // 4) % 2).float().expand(3, -1, -1),
    }
    portrait = _portrait(wall=walls[background])
    backdrop = Backdrop.of(portrait, _repeated(portrait, 0), _BOX)
    assert bool((backdrop.share(_repeated(portrait, 1)) == 1.0).all())


def test_a_plain_face_is_no_backdrop() -> None:
    """All of one colour, face and wall alike: the disc about the face's middle stays the frame's."""
    portrait = torch.full((3, _SIZE, _SIZE), 0.4)
    share = Backdrop.of(portrait, portrait, _BOX).share(portrait)
    assert float(share[0, 30, 32]) == 1.0
    assert float(share[0, 2, 2]) == 0.0


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"must be \[3, S, S\]"):
        Backdrop.of(torch.zeros(3, 8, 8), torch.zeros(3, 16, 16), FaceBox(1, 1, 4))
