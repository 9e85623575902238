"""One representation made of another, and what the stages after it are told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from gen3d.optimize import optimize
from gen3d.priors.base import Prior, PriorConfig, Request
from gen3d.priors.config import TextPriorConfig
from gen3d.recipe import build_stages, check_order, check_recipe
from gen3d.representations.base import load_field
from gen3d.representations.config import VolumeConfig
from gen3d.representations.volume import Volume
from gen3d.stages.base import Chosen, Given, StageConfig
from gen3d.stages.config import (
    ConvertConfig,
    DistillConfig,
    ExtractConfig,
    FitConfig,
    PictureConfig,
    ReconstructConfig,
)
from gen3d.stages.extract import ExtractMesh
from gen3d.stages.fit import FitViews
from gen3d.state import State
from gen3d.surface import SurfaceConfig
from tests.gen3d import analytic

COARSE, FINE = VolumeConfig(resolutions=(24,)), VolumeConfig(resolutions=(32,), density_scale=120.0)
REQUEST = Request(backbone=None, prompt="")  # type: ignore[arg-type]


def chosen(representation: VolumeConfig = COARSE, **others: Any) -> Chosen:
    return Chosen(prior=TextPriorConfig(), representation=representation, **others)


def box_with_a_ball(config: VolumeConfig) -> Volume:
    """The analytic scene, with a surface as soft as half a voxel."""
    resolution = config.resolutions[0]
    axis = torch.linspace(-1.0, 1.0, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    raw = (-analytic.sdf(points) * (resolution - 1) / 4.0).clamp(-0.5, 0.5)
    return Volume(torch.cat([raw[..., None], torch.logit(analytic.albedo(points))], dim=-1), config)


def solid(volume: Volume, resolution: int = 64, level: float = 10.0) -> torch.Tensor:
    grid, raw = volume.surface_grid(resolution, level)
    return torch.from_numpy(grid) > raw


@pytest.mark.parametrize("through", ["auto", "mesh"])
def test_a_finer_volume_keeps_shape_and_colours(through: Any) -> None:
    state = State()
    source = box_with_a_ball(COARSE)
    source.save(state)
    config = ConvertConfig(
        representation=FINE,
        through=through,
        surface=SurfaceConfig(smooth=0) if through == "mesh" else SurfaceConfig(),
    )
    optimize(
        [config.build(Given(chosen=chosen(), request=REQUEST))],
        state,
        generator=torch.Generator().manual_seed(0),
    )
    made = load_field(FINE, state)
    assert isinstance(made, Volume)
    assert made.resolution == 32
    before, after = solid(source), solid(made)
    assert float((before & after).sum() / (before | after).sum()) > 0.9
    points = torch.tensor([[0.0, 0.6, 0.0], [0.3, -0.4, 0.3]])
    torch.testing.assert_close(made.density_and_color(points)[1], analytic.albedo(points), atol=0.06, rtol=0)


def test_stages_after_it_work_on_the_other_one() -> None:
    recipe: dict[str, StageConfig] = {
        "fit": FitConfig(num_steps=1),
        "convert": ConvertConfig(representation=FINE),
        "extract": ExtractConfig(),
    }
    check_order(recipe, views=True)
    stages = build_stages(recipe, Given(chosen=chosen(), request=REQUEST))
    assert isinstance(stages[0], FitViews)
    assert stages[0].representation is COARSE
    assert isinstance(stages[2], ExtractMesh)
    assert stages[2].representation is FINE
    # A stage with a representation of its own hands it on in the same way.
    recipe["convert"] = FitConfig(num_steps=1, representation=FINE)
    assert build_stages(recipe, Given(chosen=chosen(), request=REQUEST))[2].representation is FINE  # type: ignore[union-attr]


def test_what_follows_is_checked_against_the_other_one() -> None:
    soft = replace(FINE, density_scale=10.0)
    recipe: dict[str, StageConfig] = {
        "fit": FitConfig(num_steps=1),
        "convert": ConvertConfig(representation=soft),
        "extract": ExtractConfig(),
    }
    with pytest.raises(ValueError, match=r"recipe.extract: extract level must lie below half"):
        check_recipe(recipe, chosen())
    check_recipe({**recipe, "convert": ConvertConfig(representation=FINE)}, chosen())
    # By way of a mesh, the level is asked of the one before.
    through = ConvertConfig(representation=FINE, through="mesh")
    with pytest.raises(ValueError, match=r"recipe.convert: extract level must lie below half"):
        check_recipe({"fit": FitConfig(num_steps=1), "convert": through}, chosen(soft))
    surface = replace(through, through="auto", surface=SurfaceConfig(resolution=48))
    with pytest.raises(ValueError, match=r"recipe.convert: surface has no effect"):
        check_recipe({"fit": FitConfig(num_steps=1), "convert": surface}, chosen())
    check_recipe({"fit": FitConfig(num_steps=1), "convert": replace(surface, through="mesh")}, chosen())


def test_it_comes_after_a_representation() -> None:
    with pytest.raises(ValueError, match=r"recipe.convert needs representation"):
        check_order({"convert": ConvertConfig(representation=FINE), "extract": ExtractConfig()})
    with pytest.raises(ValueError, match=r"recipe.fit needs views"):
        check_order({"fit": FitConfig(), "extract": ExtractConfig()})
    check_order({"reconstruct": ReconstructConfig(), "fit": FitConfig(), "extract": ExtractConfig()})


@dataclass(frozen=True, kw_only=True)
class Counted(PriorConfig):
    built: list[int] = field(default_factory=list, compare=False)

    def build(self, request: Request) -> Prior:
        self.built.append(1)
        return object()  # type: ignore[return-value]


def test_other_choices_build_no_prior_anew() -> None:
    prior = Counted()
    given = Given(chosen=replace(chosen(), prior=prior), request=REQUEST)
    other = given.choosing(replace(given.chosen, representation=FINE))
    assert other.prior() is given.prior()
    assert prior.built == [1]
    assert other.chosen.representation is FINE


@pytest.mark.parametrize(
    ("recipe", "begins"),
    [
        ({"reconstruct": ReconstructConfig()}, "the hull of views"),
        ({"fit": FitConfig(hull=True)}, "the hull of views"),
        ({"convert": ConvertConfig(representation=VolumeConfig(blob_radius=0.9))}, "another representation"),
    ],
)
def test_a_blob_that_never_is_is_refused(recipe: dict[str, StageConfig], begins: str) -> None:
    blob = VolumeConfig(blob_radius=0.9)
    with pytest.raises(
        ValueError, match=rf"blob_radius is 0.9, which has no effect while it begins with {begins}"
    ):
        check_recipe(recipe, chosen(COARSE if "convert" in recipe else blob))
    # Another stage begins with it.
    check_recipe({"first": FitConfig(), **recipe}, chosen(blob))
    check_recipe({"first": FitConfig()}, chosen(blob))
    # A user's mesh takes the place of whatever beginning a budget describes.
    check_recipe({"first": FitConfig()}, chosen(blob), init_mesh=True)


def test_resolutions_that_no_stage_reaches_are_refused() -> None:
    def check(stage: StageConfig, *resolutions: int, **others: Any) -> None:
        representation = VolumeConfig(resolutions=resolutions) if resolutions else VolumeConfig()
        check_recipe({"one": stage}, chosen(representation, **others))

    check(FitConfig())
    check(FitConfig(), 24, 24)
    check(FitConfig(num_levels=2), 24, 32)
    check(ReconstructConfig(timesteps=(500,)), 24, 32)
    for stage in (FitConfig(), ReconstructConfig(timesteps=())):
        with pytest.raises(
            ValueError, match=r"resolutions are \[24, 32\], but the stages go through the first 1"
        ):
            check(stage, 24, 32)
    two = {"one": FitConfig(), "two": FitConfig(num_levels=2)}
    check_recipe(two, chosen(VolumeConfig(resolutions=(24, 32))))


def test_a_mesh_to_begin_with_needs_a_stage_that_begins() -> None:
    later = {"reconstruct": ReconstructConfig(), "fit": FitConfig()}
    with pytest.raises(ValueError, match="no stage of the recipe begins with init_mesh"):
        check_recipe(later, chosen(), init_mesh=True)
    check_recipe({"fit": FitConfig(), "pictures": PictureConfig()}, chosen(), init_mesh=True)
    assert DistillConfig().begins == "own"
