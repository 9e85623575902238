"""Gradients of score distillation against each other and closed forms; regularisers; annealing."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.schedule import Schedule
from gen3d.distillation.annealing import draw_timestep
from gen3d.distillation.config import AnnealingConfig
from gen3d.distillation.inject import clip_gradient, inject
from gen3d.distillation.regularisers import (
    distortion,
    eikonal,
    laplacian,
    normal_consistency,
    opaque,
    orient,
    sparsity,
    total_variation,
)
from gen3d.distillation.sds import sds_gradient, sds_weight
from gen3d.distillation.x0 import x0_gradient, x0_target
from gen3d.topology import face_pairs


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_injected_gradient_is_the_gradient_over_the_batch() -> None:
    latents = normal(3, 4, 2, 2).requires_grad_(True)
    gradient = normal(3, 4, 2, 2, seed=1)
    loss = inject(latents, gradient)
    loss.backward()
    torch.testing.assert_close(latents.grad, gradient / 3)
    assert float(loss.detach()) == pytest.approx(float(0.5 * gradient.square().sum() / 3), rel=1e-5)
    with pytest.raises(ValueError, match="shape"):
        inject(latents, gradient[:2])


def test_sds_weightings_golden() -> None:
    alpha, sigma = torch.tensor([0.8, 0.6]), torch.tensor([0.6, 0.8])
    assert sds_weight(alpha, sigma).tolist() == pytest.approx([0.36, 0.64])
    assert sds_weight(alpha, sigma, "uniform").tolist() == [1.0, 1.0]
    assert sds_weight(alpha, sigma, "fantasia3d").tolist() == pytest.approx([0.288, 0.384])
    eps, noise = torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 1.0)
    gradient = sds_gradient(eps, noise, alpha, sigma)
    assert gradient[:, 0, 0, 0].tolist() == pytest.approx([0.72, 1.28])
    with pytest.raises(ValueError, match="fantasia3d"):
        sds_weight(alpha, sigma, "other")  # type: ignore[arg-type]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_x0_without_rescale_is_sds_weighted_by_sigma_over_alpha(prediction_type: str) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    schedule = Schedule.from_alphas_cumprod((1 - betas).cumprod(0), prediction_type)
    t = torch.tensor([200, 700])
    latents, noise, prediction = (
        normal(2, 4, 3, 4, 4),
        normal(2, 4, 3, 4, 4, seed=1),
        normal(2, 4, 3, 4, 4, seed=2),
    )
    noisy = schedule.add_noise(latents, noise, t)
    x0 = schedule.to_x0(prediction, noisy, t)
    by_x0 = x0_gradient(latents, x0, x0, rescale=0.0)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    by_sds = sds_gradient(schedule.to_eps(prediction, noisy, t), noise, alpha, sigma, weighting="uniform")
    torch.testing.assert_close(by_x0, by_sds * (sigma / alpha).view(2, 1, 1, 1, 1), rtol=1e-3, atol=1e-4)


def test_x0_rescale_gives_the_contrast_of_the_unguided_estimate() -> None:
    cond, guided = normal(2, 4, 3, 4, 4), 5 * normal(2, 4, 3, 4, 4, seed=1)
    full = x0_target(guided, cond, rescale=1.0)
    torch.testing.assert_close(full.std(dim=(1, 2, 3, 4)), cond.std(dim=(1, 2, 3, 4)))
    half = x0_target(guided, cond, rescale=0.5)
    torch.testing.assert_close(half, 0.5 * (full + guided))
    assert x0_target(guided, cond, rescale=0.0) is guided
    with pytest.raises(ValueError, match="rescale"):
        x0_target(guided, cond, rescale=1.5)


def test_clip_gradient_limits_the_rms_of_each_item() -> None:
    gradient = torch.cat([torch.full((1, 4), 10.0), torch.full((1, 4), 0.1)])
    clipped = clip_gradient(gradient, 1.0)
    assert clipped[0].tolist() == pytest.approx([1.0] * 4)
    assert torch.equal(clipped[1], gradient[1])


def test_annealing_schedules() -> None:
    linear = AnnealingConfig(min_start=0.98, min_end=0.02, max_start=0.98, max_end=0.5, fraction=0.5)
    assert linear.range(0, 100) == pytest.approx((0.98, 0.98))
    assert linear.range(25, 100) == pytest.approx((0.5, 0.74))
    assert linear.range(99, 100) == pytest.approx((0.02, 0.5))
    hifa = AnnealingConfig(mode="hifa", max_start=0.98, min_end=0.02)
    assert hifa.range(25, 100) == pytest.approx((0.98 - 0.96 * 0.5,) * 2)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_timestep(0.2, 0.3, 1000, generator) for _ in range(100)])
    assert int(drawn.min()) >= 200
    assert int(drawn.max()) <= 300
    assert int(draw_timestep(1.0, 1.0, 1000, generator)) == 999


@pytest.mark.parametrize("settings", [{"mode": "x"}, {"min_start": 1.2}, {"min_end": 0.9}, {"fraction": 0.0}])
def test_annealing_checks(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="annealing"):
        AnnealingConfig(**settings)  # type: ignore[arg-type]


def test_opacity_regularisers_golden() -> None:
    assert float(sparsity(torch.tensor([0.0, 1.0]))) == pytest.approx((0.1 + math.sqrt(1.01)) / 2)
    assert float(opaque(torch.tensor([0.5]))) == pytest.approx(math.log(2.0))
    assert float(opaque(torch.tensor([0.0, 1.0]))) < 0.01


def test_orient_counts_only_what_faces_away_and_not_through_weights() -> None:
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], requires_grad=True)
    loss = orient(weights, normals, torch.tensor([[0.0, 0.0, -1.0]]).expand(2, 3), 2)
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert weights.grad is None
    assert normals.grad is not None
    assert not normals.grad[0].any()


def test_distortion_is_the_double_sum() -> None:
    weights, t = (
        torch.rand(3, 6, generator=torch.Generator().manual_seed(0)),
        torch.arange(6.0).expand(3, 6) * 0.1,
    )
    step = torch.full((3,), 0.1)
    pairs = (weights[:, :, None] * weights[:, None] * (t[:, :, None] - t[:, None]).abs()).sum((1, 2))
    expected = (pairs + (weights.square() * 0.1).sum(1) / 3).mean()
    assert float(distortion(weights, t, step)) == pytest.approx(float(expected), rel=1e-5)


def test_grid_regularisers_on_exact_fields() -> None:
    axis = torch.linspace(-1, 1, 21)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    assert float(eikonal(0.6 * x + 0.8 * z, 0.1)) == pytest.approx(0.0, abs=1e-8)
    assert float(eikonal(2 * y, 0.1)) == pytest.approx(1.0, rel=1e-4)
    assert float(total_variation(x)) == pytest.approx(0.01 / 3, rel=1e-4)


def test_mesh_regularisers_on_a_cube() -> None:
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))])
    pairs = face_pairs(faces)
    assert pairs.shape == (18, 2)
    # 12 right angles between sides, 6 flat diagonals.
    assert float(normal_consistency(corners, faces, pairs)) == pytest.approx(12 / 18, rel=1e-5)
    assert float(normal_consistency(1e-5 * corners, faces, pairs)) == pytest.approx(12 / 18, rel=1e-4)
    line = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])
    edges = torch.tensor([[0, 1], [1, 2]])
    expected = (1.0 + 1.5 + math.sqrt(10.0)) / 3
    assert float(laplacian(line, edges)) == pytest.approx(expected, rel=1e-5)
