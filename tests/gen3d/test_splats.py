"""The splat renderer: Warp against the sum over every splat, and that against finite differences and closed forms."""

from __future__ import annotations

import importlib.util
import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.cameras import Cameras, orbit
from gen3d.render import splats, splats_reference
from gen3d.render.spherical_harmonics import HALF_TURN_ABOUT_X, basis
from gen3d.render.splats import project, rotation_matrices

NAMES = ("means", "scales", "rotations", "opacities", "features")


def scene(
    count: int, *, seed: int = 0, size: float = 0.06, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "means": 1.2 * drawn(count, 3) - 0.6,
        "scales": size * (0.3 + drawn(count, 3)),
        "rotations": drawn(count, 4) - 0.5,
        "opacities": drawn(count),
        "features": drawn(count, 4),
    }


def drawn_with(
    composite, parts: dict[str, Tensor], cameras: Cameras, size: int, **choice
) -> tuple[Tensor, Tensor]:
    seen = project(*(parts[name] for name in NAMES[:4]), cameras, size, **choice)
    features = parts["features"].expand(len(cameras), -1, -1)
    return composite(seen, features, size)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("count", "size", "pixels"), [(300, 0.06, 33), (40, 0.5, 16), (2000, 0.01, 50), (1, 0.1, 9)]
)
def test_warp_is_the_sum_over_every_splat(count: int, size: float, pixels: int, antialias: bool) -> None:
    """Forward and backward; 33 and 50 pixels are no multiple of a tile, and one camera stands among the splats."""
    cameras = Cameras(
        c2w=torch.cat([orbit([0.0, 100.0], [10.0, -30.0]).c2w, orbit(40.0, 0.0, distance=0.4).c2w]),
        fovy_deg=torch.tensor([40.0, 20.0, 70.0]),
    )
    generator = torch.Generator().manual_seed(1)
    pull = (
        torch.randn(3, pixels, pixels, 4, generator=generator),
        torch.randn(3, pixels, pixels, generator=generator),
    )
    results = []
    for composite in (splats_reference.composite, splats.composite):
        parts = {name: each.requires_grad_() for name, each in scene(count, size=size).items()}
        sums, remaining = drawn_with(composite, parts, cameras, pixels, antialias=antialias)
        ((sums * pull[0]).sum() + (remaining * pull[1]).sum()).backward()
        results.append(
            ({"sums": sums, "remaining": remaining}, {name: each.grad for name, each in parts.items()})
        )
    (images, gradients), (own_images, own_gradients) = results
    for name, image in images.items():
        assert (own_images[name] - image).abs().max() < 1e-4, name
    assert float(images["remaining"].detach().min()) < 0.9
    for name, gradient in gradients.items():
        assert float(gradient.norm()) > 0, name
        assert (own_gradients[name] - gradient).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_are_those_of_finite_differences(name: str, antialias: bool) -> None:
    parts = scene(12, size=0.2, dtype=torch.float64)
    cameras = orbit([20.0, 200.0], [15.0, -20.0])
    pull = torch.randn(2, 12, 12, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def value(changed: Tensor) -> Tensor:
        sums, remaining = drawn_with(
            splats_reference.composite, parts | {name: changed}, cameras, 12, antialias=antialias
        )
        return (sums * pull).sum() + (remaining * pull[..., 0]).sum()

    at = parts[name].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(at), at)
    step = 1e-6
    for seed in range(3):
        direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = (value(parts[name] + step * direction) - value(parts[name] - step * direction)) / (
            2 * step
        )
        got = (gradient * direction).sum()
        assert abs(float(got - expected)) <= 1e-3 * abs(float(expected)), name


def test_one_round_splat_in_closed_form() -> None:
    """In the middle of the picture, where the perspective is a magnification alone."""
    distance, scale, size = 3.0, 0.1, 31
    cameras = orbit(0.0, 0.0, fovy_deg=40.0, distance=distance)
    one = {
        "means": torch.zeros(1, 3), "scales": torch.full((1, 3), scale), "rotations": torch.tensor([[2.0, 0, 0, 0]]),
        "opacities": torch.tensor([0.8]), "features": torch.tensor([[1.0, 0.5]]),
    }  # fmt: skip
    sums, remaining = drawn_with(splats.composite, one, cameras, size)
    focal = size / 2 / math.tan(math.radians(20.0))
    variance = (focal * scale / distance) ** 2 + 0.3
    away = torch.arange(size) - 15.0
    alpha = 0.8 * torch.exp(-(away[:, None] ** 2 + away**2) / (2 * variance))
    alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
    torch.testing.assert_close(1.0 - remaining[0], alpha, atol=1e-5, rtol=0)
    torch.testing.assert_close(sums[0], alpha[..., None] * one["features"][0], atol=1e-5, rtol=0)


def test_the_near_one_hides_the_far_one_wherever_it_stands_in_the_list() -> None:
    cameras = orbit(0.0, 0.0)
    pair = {
        "means": torch.tensor([[0, 0, -0.5], [0, 0, 0.5]]), "scales": torch.full((2, 3), 0.3),
        "rotations": torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4), "opacities": torch.tensor([0.99, 0.6]),
        "features": torch.eye(2),
    }  # fmt: skip
    sums, _ = drawn_with(splats.composite, pair, cameras, 15)
    torch.testing.assert_close(sums[0, 7, 7], torch.tensor([0.4 * 0.99, 0.6]), atol=2e-3, rtol=0)
    turned = {name: each.flip(0) for name, each in pair.items()}
    again, _ = drawn_with(splats.composite, turned, cameras, 15)
    torch.testing.assert_close(again, sums)


def test_what_is_behind_the_camera_is_not_drawn() -> None:
    cameras = orbit(0.0, 0.0, distance=2.0)
    behind = scene(20)
    behind["means"] = behind["means"] + torch.tensor([0.0, 0.0, 4.0])
    sums, remaining = drawn_with(splats.composite, behind, cameras, 16)
    assert float(sums.abs().max()) == 0.0
    assert bool((remaining == 1.0).all())


def test_a_small_splat_weighs_the_same_in_every_picture_with_antialias() -> None:
    """Of the picture's area; without, the low-pass makes it the heavier the fewer the pixels."""
    small = {
        "means": torch.zeros(1, 3), "scales": torch.full((1, 3), 0.02), "rotations": torch.tensor([[1.0, 0, 0, 0]]),
        "opacities": torch.tensor([0.9]), "features": torch.ones(1, 1),
    }  # fmt: skip
    shares = {}
    for antialias in (False, True):
        for size in (33, 129):
            _, remaining = drawn_with(splats.composite, small, orbit(0.0, 0.0), size, antialias=antialias)
            shares[antialias, size] = float((1.0 - remaining).mean())
    assert shares[True, 33] == pytest.approx(shares[True, 129], rel=0.08)
    assert shares[False, 33] > 1.5 * shares[False, 129]


def test_the_same_splats_give_the_same_bytes() -> None:
    def all_of_it() -> list[Tensor]:
        parts = {name: each.requires_grad_() for name, each in scene(400).items()}
        sums, remaining = drawn_with(splats.composite, parts, orbit([0.0, 90.0], 20.0), 40)
        (sums.square().sum() + remaining.sum()).backward()
        return [sums, remaining, *(each.grad for each in parts.values() if each.grad is not None)]

    for first, second in zip(all_of_it(), all_of_it(), strict=True):
        assert torch.equal(first, second)


def test_rotations_are_those_of_quaternions() -> None:
    half = math.sqrt(0.5)
    quarter_about_z = rotation_matrices(torch.tensor([[3 * half, 0.0, 0.0, 3 * half]]))[0]
    torch.testing.assert_close(quarter_about_z @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    any_of_them = rotation_matrices(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(any_of_them @ any_of_them.mT, torch.eye(3).expand(9, 3, 3), atol=1e-6, rtol=0)


def test_spherical_harmonics_are_orthonormal_and_turn_by_their_signs() -> None:
    directions = F.normalize(
        torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=-1
    )
    values = basis(directions, 3)
    products = 4 * math.pi * values.T @ values / len(directions)
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64), atol=0.03, rtol=0)
    turned = basis(directions * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64), 3)
    torch.testing.assert_close(turned, values * torch.tensor(HALF_TURN_ABOUT_X))
    for degree in range(3):
        torch.testing.assert_close(basis(directions[:5], degree), values[:5, : (degree + 1) ** 2])


def test_backends_are_told_by_device() -> None:
    there = importlib.util.find_spec("gsplat") is not None
    cpu = torch.device("cpu")
    assert splats.chosen_backend("auto", cpu) == splats.chosen_backend("warp", cpu) == "warp"
    with pytest.raises(ValueError, match="gsplat needs device=cuda" if there else "needs the package gsplat"):
        splats.chosen_backend("gsplat", cpu)


@pytest.mark.skipif(
    importlib.util.find_spec("gsplat") is None or not torch.cuda.is_available(),
    reason="needs gsplat and a GPU",
)
def test_gsplat_draws_the_same() -> None:
    results = []
    for backend in ("warp", "gsplat"):
        parts = {name: (0.9 * each).cuda().requires_grad_() for name, each in scene(500).items()}
        seen = project(*(parts[name] for name in NAMES[:4]), orbit([0.0, 90.0], 20.0).to("cuda"), 50)
        sums, remaining = splats.composite(seen, parts["features"].expand(2, -1, -1), 50, backend=backend)
        (sums.square().sum() + remaining.sum()).backward()
        results.append([sums, remaining, *(each.grad for each in parts.values() if each.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() < 1e-3 * ours.norm()


@pytest.mark.slow
def test_ten_thousand_splats_take_less_than_a_second() -> None:
    """Forward and backward at 256 x 256; a machine that does other work may take a few times as long."""
    parts = {name: each.requires_grad_() for name, each in scene(10_000, size=0.03).items()}
    times = []
    for _ in range(4):
        began = time.process_time()
        sums, remaining = drawn_with(splats.composite, parts, orbit(20.0, 10.0), 256)
        (sums.sum() + remaining.sum()).backward()
        times.append(time.process_time() - began)
    assert min(times) < 2.0
