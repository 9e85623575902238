"""The recipe's stages on an analytic scene whose true views stand in for a diffusion model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gen3d import meshing
from gen3d.cameras import Cameras, orbit
from gen3d.delight_config import DelightConfig
from gen3d.distillation.annealing import AnnealingConfig
from gen3d.masks import border_color, soft_mask
from gen3d.mesh_state import load_mesh
from gen3d.optimize import optimize
from gen3d.priors.base import Prior, PriorConfig, Request
from gen3d.priors.config import SamplingConfig
from gen3d.rays import draw_rays
from gen3d.recipe import build_stages
from gen3d.representations.base import RepresentationConfig, load_field
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given, StageConfig
from gen3d.stages.config import (
    DistillConfig,
    ExtractConfig,
    FittingConfig,
    PictureConfig,
    ReconstructConfig,
    RedrawConfig,
    RefineConfig,
    ShadingConfig,
    TextureConfig,
)
from gen3d.state import State
from gen3d.views import Views
from tests.gen3d import analytic


class TrueViews(Prior):
    """Gives what a perfect model would; records what it was asked for."""

    num_views = 1

    def __init__(self, size: int) -> None:
        self.size = self.image_size = size
        self.asked: list[tuple[int, int | None, bool]] = []

    def sample(
        self,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        init_images: Tensor | None = None,
        start_timestep: int | None = None,
    ) -> Tensor:
        self.asked.append((len(cameras), start_timestep, init_images is not None))
        noise = torch.randn(len(cameras), 3, self.size, self.size, generator=generator)
        return (analytic.views(cameras, self.size, 1) + 0.005 * noise).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Ready(PriorConfig):
    """A prior that is there already."""

    prior: Prior

    def build(self, request: Request) -> Prior:
        return self.prior


def given(prior: Prior, representation: RepresentationConfig) -> Given:
    request = Request(backbone=None, prompt="")  # type: ignore[arg-type]
    return Given(chosen=Chosen(prior=Ready(prior=prior), representation=representation), request=request)


def tiny_recipe() -> dict[str, StageConfig]:
    return {
        "reconstruct": ReconstructConfig(
            timesteps=(500,),
            steps_per_round=3,
            group_size=4,
            fit=FittingConfig(num_rays=128, refresh_every=2),
        ),
        "extract": ExtractConfig(resolution=24, target_faces=600, smooth=1),
        "refine": RefineConfig(num_steps=3, views_per_step=2),
        "redraw": RedrawConfig(num_views=4, keep_views=2),
        "texture": TextureConfig(size=64),
    }


def occupied(resolution: int) -> Tensor:
    axis = torch.linspace(-1.0, 1.0, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return analytic.sdf(points) < 0


def iou(state: State, level: float, resolution: int = 64) -> float:
    grid, raw = load_field(VolumeConfig(), state).surface_grid(resolution, level)
    solid = torch.from_numpy(grid) > raw
    truth = occupied(resolution)
    return float((solid & truth).sum() / (solid | truth).sum())


def test_border_color_and_mask() -> None:
    images = torch.full((2, 3, 32, 32), 0.4)
    images[:, 0, 8:24, 8:24] = 0.9
    images[0, :, 0, 0] = 0.0
    background = border_color(images)
    assert background.tolist() == pytest.approx([0.4] * 3)
    mask = soft_mask(images, background, 0.06)
    assert float(mask[0, 0, 16, 16]) == 1.0
    assert float(mask[0, 0, 0, 0]) == 0.0  # a speck
    assert float(mask.mean()) == pytest.approx(0.25, abs=0.01)


def test_pixel_rays_are_the_cameras_rays() -> None:
    cameras = orbit([10, 200], [5, 30], fovy_deg=[30, 50])
    origins, directions = cameras.rays(16, 16)
    view, row, column = torch.tensor([0, 1, 1]), torch.tensor([0, 7, 15]), torch.tensor([3, 15, 0])
    found = cameras.pixel_rays(view, row, column, 16)
    torch.testing.assert_close(found[0], origins[view, row, column])
    torch.testing.assert_close(found[1], directions[view, row, column])


def test_focused_rays_look_at_the_object() -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 28:36, 28:36] = 1.0
    views = Views.from_images(images, orbit(0, 0))
    generator = torch.Generator().manual_seed(0)
    hits = [float(draw_rays(views, 500, generator, focus=f).mask.mean()) for f in (0.0, 1.0)]
    assert hits[0] < 0.05
    assert hits[1] > 0.2
    empty = Views.from_images(torch.zeros(1, 3, 16, 16), orbit(0, 0))
    assert float(draw_rays(empty, 50, generator).mask.sum()) == 0.0


def test_whole_recipe_resumes_bit_identical_and_makes_a_closed_textured_mesh() -> None:
    def run(resume: tuple[dict[str, Tensor], dict[str, str]] | None, every: int = 1):
        provider, saves = TrueViews(32), []
        state = optimize(
            build_stages(tiny_recipe(), given(provider, VolumeConfig(resolutions=(16, 20), num_samples=24))),
            State(),
            generator=torch.Generator().manual_seed(0),
            save=lambda step, tensors, metadata: saves.append((tensors, metadata)),
            checkpoint_every=every,
            resume=resume,
        )
        return state, saves, provider

    state, saves, provider = run(None)
    assert provider.asked == [(4, None, False), (4, 500, True), (4, 600, True)]
    assert len(saves) == 6 + 1 + 3 + 1 + 1
    views = Views.load(state)
    # The latest, and those drawn from the mesh, the first of them from straight ahead.
    assert len(views) == 2 + 4
    assert abs(float(views.cameras.positions[2, 0])) < 1e-5
    mesh = load_mesh(state)
    assert meshing.is_watertight(mesh)
    texture = mesh.material.base_color_texture
    assert texture is not None
    assert texture.shape == (64, 64, 3)
    final = state.tensors()
    for index in (1, 2, 4, 6, 8):
        resumed = run(saves[index], every=100)[0].tensors()
        assert resumed.keys() == final.keys()
        for name, tensor in final.items():
            assert torch.equal(resumed[name], tensor), f"{name} after resuming from save {index}"


def test_views_of_nothing_are_refused() -> None:
    class Blank(TrueViews):
        def sample(self, cameras: Cameras, generator: torch.Generator, **_: object) -> Tensor:
            return torch.full((len(cameras), 3, 16, 16), 0.5)

    stage = ReconstructConfig(steps_per_round=2).build(given(Blank(16), VolumeConfig()))
    with pytest.raises(ValueError, match="nothing but background"):
        optimize([stage], State(), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_true_views_give_the_true_shape() -> None:
    config = ReconstructConfig(
        timesteps=(500,), steps_per_round=200, group_size=4, elevations_deg=(10.0, 35.0)
    )
    volume = VolumeConfig(resolutions=(48,))
    stage = config.build(given(TrueViews(128), volume))
    state = optimize([stage], State(), generator=torch.Generator().manual_seed(0))
    assert iou(state, ExtractConfig().level) > 0.8
    cameras = orbit([33.0], [20.0])
    background = torch.tensor(analytic.BACKGROUND).expand(1, 3)
    seen = load_field(volume, state).render(cameras, 64, background).images
    error = (seen - analytic.views(cameras, 64)).square().mean()
    assert float(-10 * error.log10()) > 22


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda **own: ReconstructConfig(timesteps=(), **own), {"groups": 2}),
        (ShadingConfig, {"ambient": 0.3}),
        (ShadingConfig, {"textureless": 1.0}),
        (ShadingConfig, {"begin": 0.2}),
        (DistillConfig, {"background_rate": 0.1}),
        (lambda **own: DistillConfig(background="random", **own), {"background_rate": 0.1}),
        (lambda **own: DelightConfig(strength=0.0, **own), {"floor": 0.5}),
        (lambda **own: VolumeConfig(density_tv=0.0, color_tv=0.0, **own), {"tv_fraction": 0.5}),
        (lambda **own: AnnealingConfig(mode="hifa", **own), {"low": ((0.0, 0.5), (1.0, 0.02))}),
        (lambda **own: AnnealingConfig(mode="hifa", **own), {"high": ((0.0, 0.98), (0.5, 0.9))}),
    ],
)
def test_what_has_no_effect_is_refused(build: Callable[..., object], named: dict[str, object]) -> None:
    build()
    (name,) = named
    with pytest.raises(ValueError, match=rf"{name} is .* has no effect while .*; leave it at"):
        build(**named)


def test_what_has_an_effect_is_not() -> None:
    ShadingConfig(probability=0.5, textureless=0.0, ambient=0.3, begin=0.2)
    DistillConfig(background="learned", background_rate=0.1)
    AnnealingConfig(mode="hifa", low=0.1, high=0.9)
    AnnealingConfig(mode="hifa", low=((0.0, 0.1),))
    ReconstructConfig(groups=2)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ReconstructConfig(timesteps=(1200,)), "timesteps"),
        (lambda: ReconstructConfig(groups=0), "groups"),
        (lambda: PictureConfig(size=4), "size"),
        (lambda: DistillConfig(render_size=()), "render_size"),
        (lambda: DistillConfig(opaque=((0.0, 1.0), (2.0, 1.0))), "opaque"),
        (lambda: DistillConfig(learning_rate="fast"), "learning_rate"),  # type: ignore[arg-type]
        (lambda: SamplingConfig(num_steps=0), "num_steps"),
        (lambda: FittingConfig(num_rays=0), "num_rays"),
        (lambda: FittingConfig(mask=-1.0), "mask"),
        (lambda: ExtractConfig(level=0.0), "level"),
        (lambda: ExtractConfig(min_extent=1.0), "min_extent"),
        (lambda: ExtractConfig(max_gap=-0.1), "max_gap"),
        (lambda: RefineConfig(num_steps=-1), "num_steps"),
        (lambda: RefineConfig(views_per_step=0), "views_per_step"),
        (lambda: RedrawConfig(timestep=1001), "timestep"),
        (lambda: RedrawConfig(num_views=0), "num_views"),
        (lambda: RedrawConfig(keep_views=-1), "keep_views"),
        (lambda: TextureConfig(size=4), "size"),
    ],
)
def test_bad_settings_are_named(build, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build()
