"""Losses of pictures and the critic of patches: identities, what they punish, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.training.patch_critic import PatchCritic
from experiments.training.picture_losses import critic_error, laplacian_pyramid, pyramid_error


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_bands_and_what_is_left_are_the_picture() -> None:
    images = noise(2, 3, 16, 32)
    bands = laplacian_pyramid(images, 3)
    assert [tuple(band.shape[-2:]) for band in bands] == [(16, 32), (8, 16), (4, 8)]
    rest = F.avg_pool2d(images, 8)
    for band in reversed(bands):
        rest = F.interpolate(rest, scale_factor=2, mode="bilinear", align_corners=False) + band
    assert torch.allclose(rest, images, atol=1e-12)


def test_a_lost_edge_is_punished_and_another_brightness_is_not() -> None:
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 1.0
    blurred = F.avg_pool2d(F.pad(edge, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    assert torch.equal(pyramid_error(edge, edge), torch.zeros(1))
    assert float(pyramid_error(edge + 0.3, edge)) < 1e-6
    pixels = float((blurred - edge).abs().mean())
    shifted = edge + pixels  # as wrong on average, everywhere alike
    assert float(pyramid_error(blurred, edge)) > 0.3 * pixels > 100 * float(pyramid_error(shifted, edge))


@pytest.mark.parametrize(("levels", "size"), [(0, 16), (3, 12)])
def test_what_has_no_such_levels_is_refused(levels: int, size: int) -> None:
    with pytest.raises(ValueError, match=rf"levels is {levels}, for pictures of {size} x {size}"):
        laplacian_pyramid(torch.zeros(1, 3, size, size), levels)


def test_gradient_of_the_pyramid_by_finite_differences() -> None:
    truth, made = noise(1, 2, 8, 8), noise(1, 2, 8, 8, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pyramid_error(x, truth), made, eps=1e-7, atol=1e-5)


def test_the_hinge_of_a_critic() -> None:
    def error(real: float, made: float) -> float:
        return float(critic_error(torch.full((2, 1, 4, 4), real), torch.full((3,), made)))

    assert error(1.0, -1.0) == error(7.0, -3.0) == 0.0  # sure enough
    assert error(0.0, 0.0) == 1.0  # it cannot tell
    assert error(-1.0, 1.0) == 2.0
    assert error(0.5, -1.0) == 0.25


def test_a_critic_looks_at_patches_and_its_frozen_scores_teach_only_the_picture() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(channels=8)
    images = noise(2, 3, 64, 64).float().requires_grad_()
    scores = critic(images)
    assert scores.shape == (2, 1, 16, 16)
    (seen,) = torch.autograd.grad(scores[0, 0, 8, 8], images)
    rows = seen[0].abs().sum((0, 2)).nonzero()[:, 0]
    # The finest band looks a little beyond a patch.
    assert 26 <= int(rows.max() - rows.min()) + 1 <= 30
    assert float(seen[1].abs().max()) == 0.0
    frozen = critic.frozen(images)
    assert torch.equal(frozen, critic(images))
    frozen.mean().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0
    assert all(weight.grad is None for weight in critic.parameters())
