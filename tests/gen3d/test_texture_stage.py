"""The texture stage: own colours come out of lit views, and unseen places take what is around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gen3d import meshing, metrics
from gen3d.asset import Mesh
from gen3d.cameras import orbit
from gen3d.delight_config import DelightConfig
from gen3d.mesh_state import load_mesh, save_mesh
from gen3d.stages.config import TextureConfig
from gen3d.stages.texture import SurfaceColor, Texture
from gen3d.state import State
from gen3d.views import Views
from tests.gen3d import analytic

NO_DELIGHT = DelightConfig(strength=0.0)


@pytest.fixture(scope="module")
def state() -> State:
    """The analytic scene's own mesh with eight lit views of it from above; nothing sees its underside."""
    axis = torch.linspace(-1.0, 1.0, 56)
    grid = analytic.sdf(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1))
    mesh = meshing.decimate(meshing.extract_mesh(grid, inside="below"), 3000)
    cameras = orbit([45.0 * index for index in range(8)], [10.0, 35.0] * 4, fovy_deg=40.0)
    state = State()
    save_mesh(state, mesh.replace(vertex_colors=torch.zeros(mesh.num_vertices, 3)))
    Views.from_images(analytic.views(cameras, 128), cameras).save(state)
    return state


def textured(state: State, config: TextureConfig) -> Mesh:
    mine, generator = State(state.tensors()), torch.Generator().manual_seed(0)
    stage = Texture(config)
    stage.apply(mine, generator)
    return load_mesh(mine)


def error(mesh: Mesh) -> float:
    return metrics.albedo_error(
        mesh, analytic.albedo, generator=torch.Generator().manual_seed(0), num_samples=4000
    )


def test_light_is_taken_out_and_unseen_places_are_filled(state: State) -> None:
    lit = error(textured(state, TextureConfig(size=128, delight=NO_DELIGHT)))
    own = error(textured(state, TextureConfig(size=128)))
    assert lit > 0.07
    assert own < 0.5 * lit


def test_the_stage_is_reproducible(state: State) -> None:
    first, again = (textured(state, TextureConfig(size=64)) for _ in range(2))
    assert first.material.base_color_texture is not None
    assert again.material.base_color_texture is not None
    assert torch.equal(first.material.base_color_texture, again.material.base_color_texture)


def test_colors_seen_by_no_view_come_from_around(state: State) -> None:
    """The vertex colours are black; the box's underside, which no view sees, becomes blue like its sides."""
    generator = torch.Generator().manual_seed(0)
    colors = SurfaceColor(load_mesh(state), Views.load(state), TextureConfig(delight=NO_DELIGHT), generator)
    assert 0.1 < colors.seen < 0.9
    below = colors(torch.tensor([[0.0, -0.65, 0.0], [0.2, -0.65, -0.1]]))
    np.testing.assert_allclose(below.argmax(dim=1), [2, 2])
    assert float(below.amax(dim=1).min()) > 0.3


@pytest.mark.parametrize("size", [16, 17, 24, 39, 40])
def test_the_smallest_textures_can_be_had(state: State, size: int) -> None:
    texture = textured(state, TextureConfig(size=size, delight=NO_DELIGHT)).material.base_color_texture
    assert texture is not None
    assert texture.shape == (size, size, 3)


@pytest.mark.parametrize("radius", [0.9, 1.014, 1.73])
def test_what_reaches_beyond_the_unit_sphere_is_made_smaller(state: State, radius: float) -> None:
    mesh = load_mesh(state)
    grown = State(state.tensors())
    save_mesh(grown, mesh.replace(vertices=mesh.vertices * (radius / mesh.radius)))
    made = textured(grown, TextureConfig(size=64, delight=NO_DELIGHT))
    assert made.radius == pytest.approx(min(radius, 1.0), abs=1e-5)
    assert made.radius <= 1.0
