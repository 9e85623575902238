"""A fixed mesh as a representation: its beginning, its pictures, and that what is frozen stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from gen3d.asset import Material, Mesh
from gen3d.cameras import orbit, ring
from gen3d.glb import save_glb
from gen3d.mesh_files import load_mesh_file
from gen3d.mesh_state import load_mesh, save_mesh
from gen3d.meshing import is_watertight, volume
from gen3d.metrics import psnr
from gen3d.optimize import Fit, optimize
from gen3d.render.shading import render_mesh
from gen3d.representations.base import GROUP, load, load_field
from gen3d.representations.mesh import FixedMesh
from gen3d.representations.mesh_surface import MeshSurface
from gen3d.stages.config import ExtractConfig, RefineConfig, TextureConfig
from gen3d.state import State
from gen3d.texture import bake_vertex_colors, unwrap
from tests.gen3d.rendering import gradient_error

SURFACE = ExtractConfig(level=None)


def begun(seed: int = 0, **settings: Any) -> MeshSurface:
    generator = torch.Generator().manual_seed(seed)
    made = FixedMesh(**{"subdivisions": 2, **settings}).begin()
    made.moves.add_(0.02 * torch.randn(made.moves.shape, generator=generator))
    made.colors.add_(torch.randn(made.colors.shape, generator=generator))
    made.shine.copy_(torch.tensor([0.3, 0.6]))
    return made


def painted() -> Mesh:
    """A textured ball with UVs of its own, a vertex at -0, and a shine."""
    mesh = FixedMesh(subdivisions=2, colors="vertices").begin().to_mesh(SURFACE, None)
    vertices = mesh.vertices.clone()
    vertices[vertices == 0.0] = -0.0
    colors = (mesh.vertices + 1.0) / 2.0
    plain = mesh.replace(vertices=vertices, vertex_colors=colors, material=Material(None, metallic=0.25))
    textured = bake_vertex_colors(unwrap(plain, size=64, padding=4), size=64)
    assert textured.material.base_color_texture is not None
    texture = (textured.material.base_color_texture * 255).round() / 255
    return textured.replace(material=Material(texture, metallic=0.25, roughness=0.5))


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_it_begins_as_a_grey_ball(colors: Any) -> None:
    made = FixedMesh(subdivisions=3, colors=colors).begin()
    mesh = made.to_mesh(SURFACE, None)
    assert mesh.num_faces == 20 * 4**3
    assert is_watertight(mesh)
    assert volume(mesh) == pytest.approx(4.18879 * 0.8**3, rel=0.02)
    shown = made.render(orbit(0.0, 0.0), 48, torch.ones(1, 3), normals=True)
    assert float((shown.images[0, :, 24, 24] - 0.5).abs().max()) < 1e-5
    assert shown.depth is not None
    distance = float(orbit(0.0, 0.0).positions.norm())
    assert float(shown.depth[0, 0, 24, 24]) == pytest.approx(distance - 0.8, abs=0.01)
    assert shown.normals is not None
    assert float(shown.normals[0, 2, 24, 24]) > 0.99


def test_a_given_mesh_keeps_its_texture_and_uvs(tmp_path: Path) -> None:
    mesh = painted()
    for geometry in ("frozen", "free"):
        own = FixedMesh(geometry=geometry)
        again = own.begin_from(mesh).to_mesh(SURFACE, None)
        assert torch.equal(again.faces, mesh.faces)
        assert torch.equal(again.vertices, mesh.vertices)
        assert again.uvs is not None
        assert mesh.uvs is not None
        assert torch.equal(again.uvs, mesh.uvs)
        assert (again.material.metallic, again.material.roughness) == (0.25, 0.5)
        save_glb(again, tmp_path / "again.glb")
        save_glb(mesh, tmp_path / "mesh.glb")
        textures = [
            load_mesh_file(tmp_path / f"{n}.glb").material.base_color_texture for n in ("again", "mesh")
        ]
        assert textures[0] is not None
        assert textures[1] is not None
        assert torch.equal(textures[0], textures[1])


@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_a_given_mesh_without_a_texture_keeps_its_colours(colors: Any) -> None:
    mesh = FixedMesh(subdivisions=3, colors="vertices").begin().to_mesh(SURFACE, None)
    mesh = mesh.replace(vertex_colors=(mesh.vertices + 1.0) / 2.0)
    made = FixedMesh(colors=colors, geometry="frozen").begin_from(mesh)
    cameras = ring(3)
    shown = made.render(cameras, 64, torch.ones(3, 3))
    expected = render_mesh(mesh, cameras, 64, 64, mode="albedo")
    assert psnr(shown.images, expected.images) > 35.0
    assert torch.equal(torch.unique(made.base, dim=0), torch.unique(mesh.vertices, dim=0))


class Grow(Fit):
    """Pulls everything about: pictures towards white, over black."""

    name = "grow"

    def __init__(self, config: FixedMesh, num_steps: int = 4) -> None:
        self.config, self.num_steps = config, num_steps

    def rates(self, state: State, step: int) -> dict[str, float]:
        return {f"{GROUP}/{name}": 0.05 * rate for name, rate in load(self.config, state).rates().items()}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        shown = load(self.config, state).render(orbit([0.0, 120.0], 20.0), 32, torch.zeros(2, 3))
        return {"grow": (1.0 - shown.images).square().mean()}


def optimised(config: FixedMesh, mesh: Mesh) -> Mesh:
    state = State()
    config.begin_from(mesh).save(state)
    state = optimize([Grow(config)], state, generator=torch.Generator().manual_seed(0))
    return load(config, state).to_mesh(SURFACE, None)


@pytest.mark.parametrize("material", ["diffuse", "pbr"])
def test_frozen_geometry_stays_to_the_last_bit(material: Any) -> None:
    mesh = painted()
    frozen = optimised(FixedMesh(geometry="frozen", material=material), mesh)
    assert torch.equal(frozen.vertices.view(torch.int32), mesh.vertices.view(torch.int32))
    assert torch.equal(frozen.faces, mesh.faces)
    texture, before = frozen.material.base_color_texture, mesh.material.base_color_texture
    assert texture is not None
    assert before is not None
    assert float((texture - before).abs().max()) > 0.01
    free = optimised(FixedMesh(material=material), mesh)
    assert float((free.vertices - mesh.vertices).abs().max()) > 1e-3
    assert is_watertight(free)  # copies along seams stay together
    assert (free.material.roughness == 0.5) == (material == "diffuse")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("moves", {"smoothing": 2, "texture_size": 16}),
        ("moves", {"colors": "vertices", "material": "pbr"}),
        ("colors", {"texture_size": 16}),
        ("colors", {"colors": "vertices"}),
        ("colors", {"material": "pbr", "texture_size": 16}),
        ("shine", {"material": "pbr"}),
    ],
)
def test_gradients_match_finite_differences(name: str, settings: dict[str, Any]) -> None:
    made = begun(**settings)
    assert gradient_error(made.settings, made, name) < 1e-3


def test_what_no_gradient_reached_takes_the_nearest_colour() -> None:
    made = FixedMesh(subdivisions=1, texture_size=32).begin()
    made.colors[3, 4] = torch.tensor([1.0, 2.0, -1.0])
    texture = made.to_mesh(SURFACE, None).material.base_color_texture
    assert texture is not None
    assert torch.equal(texture, torch.sigmoid(torch.tensor([1.0, 2.0, -1.0])).expand(32, 32, 3))


def test_a_state_keeps_the_shine_of_a_mesh() -> None:
    state = State()
    save_mesh(state, painted())
    again = load_mesh(State.from_tensors(state.tensors()))
    assert (again.material.metallic, again.material.roughness) == (0.25, 0.5)


def test_a_state_gives_it_back() -> None:
    made, state = begun(material="pbr"), State()
    made.save(state)
    again = load(made.settings, State.from_tensors(state.tensors()))
    view = (orbit(10.0, 20.0), 24, torch.ones(1, 3))
    assert torch.equal(made.render(*view).images, again.render(*view).images)
    with pytest.raises(ValueError, match="needs a field"):
        load_field(made.settings, state)
    tensors = made.tensors()
    del tensors["uvs"]
    with pytest.raises(ValueError, match="missing: \\['uvs'\\]"):
        made.settings.load(tensors)
    with pytest.raises(ValueError, match="needs colors of 2 dimensions"):
        FixedMesh(colors="vertices").load(made.tensors())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subdivisions": 9}, "subdivisions"),
        ({"ball_radius": 0.0}, "ball_radius"),
        ({"texture_size": 4}, "texture_size"),
        ({"smoothing": -1}, "smoothing"),
        ({"vertex_rate": -1.0}, "vertex_rate"),
        ({"laplacian": -1.0}, "it is a weight"),
        ({"geometry": "frozen", "vertex_rate": 1.0}, "no effect while geometry is frozen"),
        ({"colors": "vertices", "texture_size": 64}, "no effect while colors are at the vertices"),
        ({"environment": "uniform"}, "no effect while material is diffuse"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedMesh(**settings)


def test_settings_of_its_beginning_and_of_a_surface() -> None:
    from gen3d.distillation.x0 import X0
    from gen3d.priors.config import TextPriorConfig
    from gen3d.stages.base import Chosen

    with pytest.raises(ValueError, match="subdivisions is 2, which has no effect while it begins"):
        FixedMesh(subdivisions=2).check_beginning("it begins with a mesh")
    chosen = Chosen(prior=TextPriorConfig(), representation=FixedMesh(), distillation=X0())
    with pytest.raises(ValueError, match="smooth is 2, which has no effect"):
        ExtractConfig(level=None, smooth=2).check(chosen)
    for stage in (RefineConfig(), TextureConfig()):
        with pytest.raises(ValueError, match="finished already"):
            stage.check(chosen)
    frozen = dataclasses.replace(chosen, representation=FixedMesh(geometry="frozen", colors="vertices"))
    TextureConfig().check(frozen)
    RefineConfig(vertex_rate=0.0).check(frozen)
    with pytest.raises(ValueError, match="would move its vertices"):
        RefineConfig().check(frozen)
