"""Consistent flow distillation and its noise on the surface."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d.cameras import orbit
from gen3d.distillation.base import Loss
from gen3d.distillation.cfd import CFD, on_surface
from gen3d.distillation.x0 import X0
from gen3d.optimize import optimize
from gen3d.priors.base import Request
from gen3d.priors.config import TextPriorConfig
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import DistillConfig
from gen3d.state import State
from tests.gen3d.known_priors import SHAPE, Normals, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (CFD(guidance_scale=7.5), (0.5074852118373822, 2.5942053945834602, 2.694641896466339)),
        (CFD(guidance_scale=2.0, cells=8), (0.25199092188939004, 2.3776257303623565, -0.51035685594507)),
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    prior.passes.clear()
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)
    assert prior.passes == [("uncond", "cond")]


def test_where_nothing_is_seen_it_is_the_x0_loss_without_rescaling() -> None:
    prior = Normals(cond=(0.4, 0.3), uncond=(-0.2, 1.0))
    latents, noise = numbers(*SHAPE, seed=3), numbers(*SHAPE, seed=4)
    nothing = torch.full((1, 3, 8, 8, 3), torch.nan, dtype=torch.float64)
    found = gradient_at(CFD(guidance_scale=3.0), prior, latents, noise, 500, surface=nothing)
    expected = gradient_at(X0(guidance_scale=3.0, rescale=0.0), prior, latents, noise, 500)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def on_a_ball(size: int, azimuths: list[float]) -> Tensor:
    """Points `[1, V, S, S, 3]` of a ball of radius 0.8 as cameras around it see it; NaN beside it."""
    cameras = orbit(azimuths, 0.0)
    origins, directions = cameras.rays(size, size)
    along = -(origins * directions).sum(-1)
    inside = 0.64 - (origins + along[..., None] * directions).square().sum(-1)
    points = origins + (along - inside.clamp_min(0.0).sqrt())[..., None] * directions
    return torch.where((inside > 0.0)[..., None], points, torch.nan)[None]


@pytest.mark.parametrize("size", [16, 64, 100])
def test_noise_on_the_surface_is_white(size: int) -> None:
    surface = on_a_ball(size, [0.0])
    noise = torch.zeros(1, 1, 2, 16, 16)
    seen = ~surface[..., 0].isnan()
    found = [
        on_surface(torch.randn(64**3, 2, generator=torch.Generator().manual_seed(seed)), surface, noise)
        for seed in range(200)
    ]
    values = torch.stack(found)[:, 0, 0]  # [N, 2, 16, 16]
    covered = values[0, 0] != 0.0
    assert 0.5 * float(seen.float().mean()) < float(covered.float().mean()) < 1.0
    rows = values[:, :, covered]
    assert float(rows.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(rows.var(dim=0).mean()) == pytest.approx(1.0, abs=0.02)
    beside = (covered[:, 1:] & covered[:, :-1]).nonzero()
    product = (values[..., 1:] * values[..., :-1])[:, :, beside[:, 0], beside[:, 1]]
    assert float(product.mean()) < 0.25  # cells that two pixels share
    assert not torch.equal(values[0, 0], values[0, 1])


def test_cameras_see_one_noise_where_they_see_one_place() -> None:
    world = torch.randn(24**3, 1, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    there = on_a_ball(128, [10.0, 25.0])
    first, second = (on_surface(world, view, noise)[0, 0, 0] for view in there.split(1, dim=1))

    def seen_at(picture: Tensor, view: Tensor) -> dict[tuple[int, ...], float]:
        """The number of each latent pixel by the place that its middle shows."""
        middles = view[0, 0, 4::8, 4::8]
        return {
            tuple(((place * 0.5 + 0.5) * 8).long().tolist()): float(value)
            for place, value in zip(middles.flatten(0, 1), picture.flatten(), strict=True)
            if not place.isnan().any()
        }

    one, other = seen_at(first, there[:, :1]), seen_at(second, there[:, 1:])
    both = sorted(one.keys() & other.keys())
    assert len(both) > 20
    pairs = torch.tensor([[one[key], other[key]] for key in both])
    assert float(torch.corrcoef(pairs.T)[0, 1]) > 0.3


@pytest.mark.parametrize(("gamma", "kept"), [(0.0, 1.0), (0.19, 0.9), (1.0, 0.0)])
def test_the_worlds_noise_is_renewed_by_gamma(gamma: float, kept: float, prior: Small) -> None:
    loss, memory = CFD(gamma=gamma, cells=24), dict[str, Tensor]()
    generator = torch.Generator().manual_seed(3)
    loss.start(memory, prior, (1, 4, 8, 8), generator)
    before = memory["world"]
    loss.before(memory, 0.5, generator)
    after = memory["world"]
    assert float(torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]) == pytest.approx(
        kept, abs=0.02
    )
    assert float(after.var()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(before, after) == (gamma == 0.0)


def test_the_stage_shows_it_the_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion.backbone import load

    shown: list[Tensor] = []

    def looked(world: Tensor, surface: Tensor, noise: Tensor) -> Tensor:
        shown.append(surface)
        return on_surface(world, surface, noise)

    monkeypatch.setattr("gen3d.distillation.cfd.on_surface", looked)
    ball = VolumeConfig(resolutions=(24,), num_samples=64, blob_radius=0.6, blob_strength=5.0)
    chosen = Chosen(
        prior=TextPriorConfig(background="", joint_views=4),
        representation=ball,
        distillation=CFD(),
        negative_prompt="",
    )
    request = Request(backbone=load("tiny"), prompt="a red ball", negative_prompt="")
    stage = DistillConfig(num_steps=2, num_views=4, render_size=(32,)).build(
        Given(chosen=chosen, request=request)
    )
    state = optimize([stage], State(), generator=torch.Generator().manual_seed(0))
    assert any(name.endswith("/world") for name in state)
    assert shown[0].shape == (1, 4, 32, 32, 3)
    radius = shown[0].norm(dim=-1)
    assert 0.1 < float(radius.isnan().float().mean()) < 0.9
    torch.testing.assert_close(float(radius.nanmean()), 0.6, atol=0.08, rtol=0.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "cfd guidance_scale"),
        ({"gamma": 1.5}, "cfd gamma"),
        ({"cells": 1}, "cfd cells"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CFD(**settings)  # type: ignore[arg-type]
