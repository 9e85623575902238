"""The recipe's stages on an analytic scene whose true views stand in for a diffusion model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gen3d import meshing
from gen3d.cameras import Cameras, orbit
from gen3d.masks import border_color, soft_mask
from gen3d.optimize import State, optimize
from gen3d.pipeline import mesh_stages
from gen3d.rays import draw_rays
from gen3d.render.volume import render_views
from gen3d.stages.config import (
    ExtractConfig,
    FitConfig,
    MultiviewConfig,
    QuickstartConfig,
    RedrawConfig,
    RefineConfig,
    SamplingConfig,
    TextureConfig,
)
from gen3d.stages.fit import load_volume
from gen3d.stages.mesh import load_mesh
from gen3d.views import Views
from tests.gen3d import analytic


class TrueViews:
    """Provides what a perfect model would; records what it was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[tuple[int, int | None, bool]] = []

    def __call__(
        self,
        cameras: Cameras,
        init_images: Tensor | None,
        start_timestep: int | None,
        generator: torch.Generator,
    ) -> Tensor:
        self.asked.append((len(cameras), start_timestep, init_images is not None))
        noise = torch.randn(len(cameras), 3, self.size, self.size, generator=generator)
        return (analytic.views(cameras, self.size, 1) + 0.005 * noise).clamp(0.0, 1.0)


def tiny_config() -> QuickstartConfig:
    return QuickstartConfig(
        multiview=MultiviewConfig(
            timesteps=(500,),
            steps_per_round=3,
            group_size=4,
            resolutions=(16, 20),
            render_size=32,
            fit=FitConfig(num_rays=128, num_samples=24, refresh_every=2),
        ),
        extract=ExtractConfig(resolution=24, target_faces=600, smooth=1),
        refine=RefineConfig(num_steps=3, views_per_step=2),
        redraw=RedrawConfig(num_views=4, keep_views=2),
        texture=TextureConfig(size=64),
    )


def occupied(resolution: int) -> Tensor:
    axis = torch.linspace(-1.0, 1.0, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return analytic.sdf(points) < 0


def iou(state: State, level: float, resolution: int = 64) -> float:
    volume = load_volume(state)
    solid = torch.from_numpy(volume.density_grid(resolution)) > volume.raw_of(level)
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
            mesh_stages(tiny_config(), provider),
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
    def blank(cameras: Cameras, *_: object) -> Tensor:
        return torch.full((len(cameras), 3, 16, 16), 0.5)

    stage = MultiviewConfig(render_size=16, steps_per_round=2).build(blank)
    with pytest.raises(ValueError, match="nothing but background"):
        optimize([stage], State(), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_true_views_give_the_true_shape() -> None:
    config = MultiviewConfig(
        timesteps=(500,), steps_per_round=200, group_size=4, elevations_deg=(10.0, 35.0), resolutions=(48,)
    )
    provider = TrueViews(128)
    state = optimize([config.build(provider)], State(), generator=torch.Generator().manual_seed(0))
    assert iou(state, ExtractConfig().level) > 0.8
    cameras = orbit([33.0], [20.0])
    seen, _ = render_views(load_volume(state), cameras, 64, 64, torch.tensor(analytic.BACKGROUND))
    error = (seen - analytic.views(cameras, 64)).square().mean()
    assert float(-10 * error.log10()) > 22


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: MultiviewConfig(timesteps=(1200,)), "timesteps"),
        (lambda: MultiviewConfig(groups=0), "groups"),
        (lambda: MultiviewConfig(resolutions=(64, 32)), "resolutions"),
        (lambda: SamplingConfig(num_steps=0), "num_steps"),
        (lambda: FitConfig(num_rays=0), "num_rays"),
        (lambda: FitConfig(mask=-1.0), "mask"),
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
