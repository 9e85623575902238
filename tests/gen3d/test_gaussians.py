"""Gaussians as a representation: beginnings, pictures, control of their number, meshes, resume."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import trimesh
from torch import Tensor

from gen3d.asset import Mesh
from gen3d.cameras import orbit, ring
from gen3d.meshing import EmptySurfaceError, is_watertight, volume
from gen3d.metrics import mesh_occupancy, psnr
from gen3d.optimize import Fit, optimize
from gen3d.render.lamp import Lamp
from gen3d.render.shading import render_mesh
from gen3d.representations.base import GROUP, load, load_field
from gen3d.representations.gaussians import GaussiansConfig
from gen3d.representations.splat_cloud import LEARNT, SplatCloud
from gen3d.representations.splat_control import control
from gen3d.representations.splat_density import REACH, densities, peaks
from gen3d.stages.fitting import finish_step
from gen3d.state import State
from gen3d.surface import SurfaceConfig

GREY = torch.tensor([0.5, 0.5, 0.5])


def egg() -> Mesh:
    """Longer along y, red above and blue below."""
    ball = trimesh.creation.icosphere(3, radius=1.0)
    vertices = torch.from_numpy(ball.vertices).float() * torch.tensor([0.45, 0.7, 0.45])
    colors = torch.where(vertices[:, 1:2] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    return Mesh(vertices, torch.from_numpy(ball.faces).long(), vertex_colors=colors)


def few(count: int = 30, *, seed: int = 0, **settings: float) -> SplatCloud:
    """Splats unlike each other."""
    config = GaussiansConfig(num_points=count, **settings)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(seed)
    tensors = config.begin().tensors()
    for name in ("features", "opacities", "scales", "rotations"):
        tensors[name] = tensors[name] + 0.5 * torch.randn(tensors[name].shape, generator=generator)
    return config.load(tensors)


def test_a_ball_begins_evenly_filled() -> None:
    config = GaussiansConfig(num_points=3000, radius=0.6)
    cloud = config.begin()
    assert len(cloud) == 3000
    radius = cloud.means.norm(dim=-1)
    assert float(radius.max()) <= 0.6
    assert float((radius < 0.3).float().mean()) == pytest.approx(1 / 8, abs=0.02)
    torch.testing.assert_close(cloud.colors, torch.full((3000, 3), 0.5))
    torch.testing.assert_close(cloud.opacities, torch.full((3000,), 0.1))
    assert bool((cloud.lengths.std(dim=1) < 1e-6).all())
    again = config.begin().tensors()
    assert all(torch.equal(each, again[name]) for name, each in cloud.tensors().items())


def test_levels_that_would_be_empty_are_refused() -> None:
    """By a bound close to what is there."""
    config = GaussiansConfig(num_points=3000, radius=0.6)
    grid = config.begin().density_grid(48)
    axis = torch.linspace(-1, 1, 48)
    inner = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < 0.45
    mean = float(grid[inner].mean())
    config.check_level(0.8 * mean)
    with pytest.raises(ValueError, match="extract level must lie below the density"):
        config.check_level(1.2 * mean)
    with pytest.raises(ValueError, match="extract level must be a density"):
        config.check_level(None)


def test_a_mesh_begins_as_it_looks() -> None:
    mesh, cameras = egg(), ring(3, elevation_deg=20.0)
    cloud = GaussiansConfig(num_points=4000).begin_from(mesh)
    drawn = cloud.render(cameras, 96, GREY.expand(3, 3), normals=True)
    truth = render_mesh(mesh, cameras, 96, 96, background=GREY, mode="albedo")
    assert psnr(drawn.images, truth.images) > 24.0
    assert drawn.depth is not None
    assert drawn.normals is not None
    within = (truth.mask > 0.99) & (drawn.opacity > 0.99)
    assert float(within.float().mean()) > 0.8 * float(truth.mask.mean())
    # Distance along the ray, where the rasteriser's depth is along the axis.
    _, directions = cameras.rays(96, 96)
    ahead = -(directions * cameras.c2w[:, None, None, :3, 2]).sum(-1)[:, None]
    error = (drawn.depth / drawn.opacity.clamp_min(0.5) - truth.depth / ahead)[within].abs()
    assert float(error.median()) < float(cloud.lengths[:, 0].mean())
    cosine = (drawn.normals * truth.normals).sum(dim=1, keepdim=True)[within]
    assert float(cosine.median()) > 0.97
    assert float(drawn.normals.norm(dim=1, keepdim=True).sub(drawn.opacity).max()) < 1e-4


def test_meshes_come_back_from_their_splats() -> None:
    mesh = egg()
    again = GaussiansConfig(num_points=5000).begin_from(mesh).to_mesh(SurfaceConfig(level=20.0), None)
    assert is_watertight(again)
    ours, truth = mesh_occupancy(again, 64), mesh_occupancy(mesh, 64)
    assert (ours & truth).sum() / (ours | truth).sum() > 0.85
    assert again.vertex_colors is not None
    above, below = again.vertices[:, 1] > 0.15, again.vertices[:, 1] < -0.15
    assert (again.vertex_colors[above].mean(0) - torch.tensor([0.9, 0.1, 0.1])).abs().max() < 0.05
    assert (again.vertex_colors[below].mean(0) - torch.tensor([0.1, 0.1, 0.9])).abs().max() < 0.05
    with pytest.raises(EmptySurfaceError):
        few(5).to_mesh(SurfaceConfig(level=1e6), None)


def test_density_is_the_sum_of_all_splats() -> None:
    cloud = few(20)
    grid = cloud.density_grid(24)
    axis = torch.linspace(-1, 1, 24)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    expected = torch.zeros(24, 24, 24)
    peak = peaks(cloud.lengths, cloud.opacities)
    for index in range(len(cloud)):
        axes, lengths = cloud.axes[index], cloud.lengths[index]
        inverse = torch.linalg.inv(axes @ torch.diag(lengths.square()) @ axes.T)
        away = points - cloud.means[index]
        squared = torch.einsum("xyzi,ij,xyzj->xyz", away, inverse, away)
        expected += torch.where(squared <= REACH**2, peak[index] * torch.exp(-0.5 * squared), 0.0)
    assert float((expected > 0.1).float().mean()) > 0.01
    torch.testing.assert_close(grid, expected, rtol=1e-3, atol=1e-4)


def test_a_round_splat_stops_as_much_light_as_its_density() -> None:
    """The integral along a line through its centre is the optical depth of its opacity."""
    lengths = torch.full((1, 3), 0.1)
    grid = densities(torch.zeros(1, 3), lengths, torch.eye(3)[None], torch.tensor([0.7]), 101)
    depth = float(grid[50, 50].sum()) * 2.0 / 100
    assert 1.0 - math.exp(-depth) == pytest.approx(0.7, abs=1e-3)


def test_colors_follow_the_direction_they_are_seen_from() -> None:
    cloud = few(40, degree=1)
    tensors = cloud.tensors()
    tensors["features"][:, 1:] = 0.0
    tensors["features"][:, 2, 0] = 0.5  # red grows with z of the direction
    cloud = cloud.settings.load(tensors)
    front, back = cloud.render(orbit([0.0, 180.0], 0.0), 24, torch.zeros(2, 3)).images.mean(dim=(2, 3))
    assert back[0] > front[0] + 0.01
    assert front[1] == pytest.approx(float(back[1]), abs=0.02)


def test_a_lamp_lights_what_faces_it() -> None:
    cloud = GaussiansConfig(num_points=2000).begin_from(egg())
    lamp = Lamp(position=torch.tensor([4.0, 0.0, 0.0]), ambient=0.1, textureless=True)
    pictures = cloud.render(ring(2, azimuth_deg=90.0), 32, torch.zeros(2, 3), shade=lamp).images
    assert float(pictures[0].mean()) > 4 * float(pictures[1].mean())


def test_it_is_no_field() -> None:
    state = State()
    few().save(state)
    assert isinstance(load(GaussiansConfig(), state), SplatCloud)
    with pytest.raises(ValueError, match="needs a field, which SplatCloud is not"):
        load_field(GaussiansConfig(), state)


# ------------------------------------------------------------------------------------------------ control of density


def controlled(cloud: SplatCloud, pull: list[float], **settings: object) -> tuple[SplatCloud, Tensor]:
    """After a step in which each splat's mean pull is as given; the new cloud and the old rows of its splats."""
    config = dataclasses.replace(
        cloud.settings, densify_every=1, densify_from=0.0, densify_until=1.0, **settings
    )
    tensors = {name: each.clone() for name, each in cloud.tensors().items()}
    tensors["steps"] += 1
    tensors["pulls"][:, 0], tensors["pulls"][:, 1] = 3.0 * torch.tensor(pull), 3.0
    rows = control(tensors, config, 0.5, torch.Generator().manual_seed(0))
    if rows is None:
        return config.load(tensors), torch.arange(len(cloud))
    assert set(rows) == {*LEARNT, "probe", "pulls"}
    assert all(torch.equal(each, rows["means"]) for each in rows.values())
    return config.load(tensors), rows["means"]


def same(length: float, count: int = 4) -> SplatCloud:
    cloud = few(count)
    tensors = cloud.tensors()
    tensors["scales"] = torch.full((count, 3), length).log()
    tensors["opacities"] = torch.zeros(count)
    return cloud.settings.load(tensors)


def test_small_splats_are_copied_and_long_ones_parted() -> None:
    cloud, rows = controlled(same(0.01), [0.0, 5.0, 0.0, 0.0], split_above=0.05)
    assert rows.tolist() == [0, 1, 2, 3, -1]
    assert torch.equal(cloud.means[4], cloud.means[1])
    assert torch.equal(cloud.lengths[4], cloud.lengths[1])
    before = same(0.1)
    cloud, rows = controlled(before, [0.0, 5.0, 0.0, 0.0], split_above=0.05)
    assert rows.tolist() == [0, 2, 3, -1, -1]
    torch.testing.assert_close(cloud.lengths[3:], torch.full((2, 3), 0.1 / 1.6))
    away = (cloud.means[3:] - before.means[1]).norm(dim=-1)
    assert bool(((away > 0) & (away < 0.5)).all())
    assert not torch.equal(cloud.means[3], cloud.means[4])
    assert not bool(cloud.tensors()["pulls"].any())


def test_halves_are_drawn_from_the_splat_they_are_parts_of() -> None:
    """Their spread has its covariance."""
    count = 4000
    cloud = few(count, max_points=2 * count)
    tensors = cloud.tensors()
    tensors["means"] = torch.zeros(count, 3)
    tensors["opacities"] = torch.zeros(count)
    tensors["scales"] = torch.tensor([0.2, 0.1, 0.05]).log().expand(count, 3)
    tensors["rotations"] = torch.tensor([0.9, 0.1, -0.3, 0.2]).expand(count, 4)
    before = cloud.settings.load(tensors)
    parted, rows = controlled(before, [1.0] * count, densify_above=0.5)
    assert len(parted) == 2 * count
    assert bool((rows == -1).all())
    spread = parted.means.T @ parted.means / len(parted)
    axes = before.axes[0]
    torch.testing.assert_close(
        spread, axes @ torch.diag(torch.tensor([0.04, 0.01, 0.0025])) @ axes.T, atol=2e-3, rtol=0
    )


def test_faint_and_huge_splats_go_and_there_are_never_too_many() -> None:
    cloud = same(0.01, 6)
    tensors = cloud.tensors()
    tensors["opacities"][1], tensors["scales"][4] = -9.0, 2.0
    cloud = cloud.settings.load(tensors)
    assert controlled(cloud, [0.0] * 6)[1].tolist() == [0, 2, 3, 5]
    # Room for one more: the one that is pulled at most.
    assert controlled(cloud, [4.0, 0.0, 0.0, 5.0, 0.0, 0.0], max_points=6, densify_above=1.0)[1].tolist() == [
        0, 2, 3, 5, -1, -1,
    ]  # fmt: skip
    crowded = controlled(same(0.01, 6), [1.0, 1.0, 1.0, 9.0, 8.0, 1.0], max_points=7, densify_above=1.0)
    assert crowded[1].tolist() == [0, 1, 2, 3, 4, 5, -1]
    assert torch.equal(crowded[0].means[6], crowded[0].means[3])
    gone = dataclasses.replace(cloud.settings, prune_opacity=0.4)
    tensors["opacities"][:] = -9.0
    assert len(controlled(gone.load(tensors), [0.0] * 6)[0]) == 6


def test_opacities_are_reset() -> None:
    cloud = few(8, reset_every=2, densify_every=0)
    tensors = cloud.tensors()
    tensors["opacities"][:4] = 3.0
    assert control(tensors, cloud.settings, 0.5, torch.Generator()) is not None  # step 0 is a multiple too
    tensors["opacities"][:4] = 3.0
    tensors["steps"] += 1
    assert control(tensors, cloud.settings, 0.5, torch.Generator()) is None
    tensors["steps"] += 1
    rows = control(tensors, cloud.settings, 0.5, torch.Generator())
    assert rows is not None
    assert {name: each.tolist() for name, each in rows.items()} == {"opacities": [-1] * 8}
    assert float(tensors["opacities"].sigmoid().max()) == pytest.approx(0.02)


class Imitate(Fit):
    """Splats fitted to pictures of the egg."""

    name = "imitate"

    def __init__(self, config: GaussiansConfig, num_steps: int) -> None:
        self.config, self.num_steps = config, num_steps
        self.cameras = ring(6, elevation_deg=20.0)
        self.truth = render_mesh(egg(), self.cameras, 32, 32, background=GREY, mode="albedo").images

    def start(self, state: State, generator: torch.Generator) -> None:
        self.config.begin().save(state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        own = load(self.config, state).rates(step / self.num_steps)
        return {f"{GROUP}/{name}": 0.1 * rate for name, rate in own.items()}

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        chosen = torch.randperm(6, generator=generator)[:3]
        cloud = load(self.config, state)
        drawn = cloud.render(self.cameras[chosen], 32, GREY.expand(3, 3), generator=generator)
        return {"color": (drawn.images - self.truth[chosen]).square().mean()} | cloud.regularisers(generator)

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        finish_step(self.config, state, step / self.num_steps, generator)
        return {"splats": float(len(state[f"{GROUP}/means"]))}


IMITATE = GaussiansConfig(
    num_points=400, radius=0.7, densify_every=5, densify_from=0.1, densify_until=0.9, reset_every=13, scale_weight=0.01,
    flat_weight=0.01, max_points=700,
)  # fmt: skip


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    """Through steps that double, prune and reset; from every save."""
    saves: dict[int, tuple[dict[str, Tensor], dict[str, str]]] = {}
    numbers: list[float] = []
    fit = Imitate(IMITATE, 20)
    whole = optimize(
        [fit],
        State(),
        generator=torch.Generator().manual_seed(1),
        on_step=lambda progress: numbers.append(progress.metrics["splats"]),
        save=lambda step, tensors, metadata: saves.update({step: (tensors, metadata)}),
        checkpoint_every=3,
    )
    assert len(set(numbers)) > 2
    assert max(numbers) <= 700
    for step, saved in saves.items():
        again = optimize([fit], State(), generator=torch.Generator().manual_seed(9), resume=saved)
        assert set(again) == set(whole)
        for name, tensor in whole.items():
            assert torch.equal(again[name], tensor), (step, name)


@pytest.mark.slow
def test_pictures_are_learnt() -> None:
    config = dataclasses.replace(
        IMITATE, num_points=1000, radius=0.8, reset_every=0, densify_every=20, max_points=2000
    )
    fit = Imitate(config, 150)
    state = optimize([fit], State(), generator=torch.Generator().manual_seed(0))
    cloud = load(fit.config, state)
    shown = cloud.render(fit.cameras, 32, GREY.expand(6, 3)).images
    assert psnr(shown, fit.truth) > 32.0
    assert len(state[f"{GROUP}/means"]) != 1000
    mesh = cloud.to_mesh(SurfaceConfig(level=1.0, target_faces=3000), None)
    assert is_watertight(mesh)
    ours, truth = mesh_occupancy(mesh, 48), mesh_occupancy(egg(), 48)
    assert (ours & truth).sum() / (ours | truth).sum() > 0.75
    assert 0.7 < volume(mesh) / volume(egg()) < 1.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_points": 3}, "num_points must be at least 4"),
        ({"num_points": 50, "max_points": 40}, "at most max_points"),
        ({"degree": 4}, "degree must lie in 0..3"),
        ({"opacity": 1.0}, "opacity must lie in 0.005..0.99"),
        ({"radius": float("nan")}, "radius must lie in"),
        ({"feature_rate": -1.0}, "feature_rate must lie in 0..1000"),
        ({"densify_every": -1}, "densify_every must not be negative"),
        ({"densify_from": 0.9}, "shares of a run"),
        ({"densify_every": 0, "split_above": 0.5}, "split_above is 0.5, which has no effect"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussiansConfig(**settings)  # pyright: ignore[reportArgumentType]


def test_tensors_are_checked() -> None:
    tensors = few(5).tensors()
    with pytest.raises(ValueError, match=r"missing: \['scales'\]"):
        GaussiansConfig().load({name: each for name, each in tensors.items() if name != "scales"})
    with pytest.raises(ValueError, match=r"gaussians features must have shape \[5, 4, 3\], got \[5, 1, 3\]"):
        GaussiansConfig(degree=1).load(tensors)
