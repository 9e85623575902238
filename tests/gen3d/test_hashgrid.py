"""The hash grid: its encoding against a brute-force reference, gradients against finite differences, what it skips."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gen3d import meshing
from gen3d.asset import Mesh
from gen3d.cameras import orbit
from gen3d.metrics import volume_iou
from gen3d.render.rays import near_far, render_field, render_rays
from gen3d.representations import base
from gen3d.representations.hash_encoding import Level, encode, encode_reference, geometric, levels
from gen3d.representations.hash_field import HashField
from gen3d.representations.hashgrid import HashgridConfig
from gen3d.representations.neural_field import NeuralField
from gen3d.representations.sdf import SdfConfig
from gen3d.representations.sdf_field import SdfField
from gen3d.state import State
from gen3d.surface import SurfaceConfig
from gen3d.views import Views
from tests.gen3d import analytic

SMALL: dict[str, Any] = {
    "num_levels": 3, "base_resolution": 3, "finest_resolution": 11, "log2_hashmap_size": 7,
    "hidden_width": 8, "occupancy_resolution": 16,
}  # fmt: skip
FIELDS: list[HashgridConfig | SdfConfig] = [
    HashgridConfig(**SMALL),
    HashgridConfig(**SMALL, density_activation="exp", blob="dreamfusion", blob_strength=0.4),
    SdfConfig(**SMALL, sharpness=20.0),
    SdfConfig(**SMALL, density="volsdf", sharpness=20.0),
    SdfConfig(encoding="grid", finest_resolution=8, features=4, hidden_width=8, occupancy_resolution=16),
]


def rough(settings: HashgridConfig | SdfConfig, dtype: torch.dtype = torch.float32) -> HashField | SdfField:
    """A field whose tables say something, with the density bounds that belong to it."""
    kind: Any = HashField if isinstance(settings, HashgridConfig) else SdfField
    field: HashField | SdfField = kind.fresh(settings, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    for name, tensor in field.named.items():
        if name.startswith("table_"):
            drawn = torch.randn(tensor.shape, generator=generator)
            field.named[name] = (drawn * 0.1).to(dtype)
    field.named["looks"].zero_()
    field.refresh()
    return field


def brute_force(point: list[float], tables: list[torch.Tensor], of: list[Level]) -> list[float]:
    """Instant-NGP, section 3, one corner after the other in whole numbers."""
    found = []
    for table, level in zip(tables, of, strict=True):
        at = [min(max((x + 1) / 2 * level.resolution, 0.0), level.resolution) for x in point]
        cell = [min(math.floor(x), level.resolution - 1) for x in at]
        total = torch.zeros(table.shape[1], dtype=torch.float64)
        for corner in range(8):
            bits = [corner >> 2 & 1, corner >> 1 & 1, corner & 1]
            x, y, z = (c + b for c, b in zip(cell, bits, strict=True))
            weight = math.prod(a - c if b else 1 - (a - c) for a, c, b in zip(at, cell, bits, strict=True))
            side = level.resolution + 1
            if side**3 <= len(table):
                row = (x * side + y) * side + z
            else:
                row = (x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % len(table)
            total += weight * table[row].double()
        found += total.tolist()
    return found


@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_encoding_is_instant_ngps(features: int) -> None:
    of = levels(geometric(4, 2, 40), 1 << 9)
    assert [level.dense for level in of] == [True, True, False, False]
    generator = torch.Generator().manual_seed(features)
    tables = [torch.randn(level.rows, features, generator=generator) for level in of]
    points = torch.rand(64, 3, generator=generator) * 2.4 - 1.2  # some beyond the cube
    points[0], points[1] = -1.0, 1.0
    expected = torch.tensor([brute_force(point, tables, of) for point in points.tolist()])
    torch.testing.assert_close(encode(points, tables, of), expected, rtol=1e-4, atol=1e-4)
    wide = [table.double() for table in tables]
    torch.testing.assert_close(
        encode_reference(points.double(), wide, of), expected.double(), rtol=1e-5, atol=1e-5
    )


def test_both_encodings_have_the_same_gradient() -> None:
    of = levels(geometric(3, 2, 24), 1 << 8)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 3, generator=generator) * 2 - 1
    pull = torch.randn(200, 6, generator=generator)
    got = []
    for function in (encode, encode_reference):
        tables = [torch.ones(level.rows, 2, requires_grad=True) for level in of]
        tables[1].requires_grad_(False)
        (function(points, tables, of) * pull).sum().backward()
        assert tables[1].grad is None
        got.append([tables[index].grad for index in (0, 2)])
    for kernel, reference in zip(*got, strict=True):
        torch.testing.assert_close(kernel, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", FIELDS)
def test_gradient_of_a_picture_matches_finite_differences(settings: HashgridConfig | SdfConfig) -> None:
    field = rough(settings, torch.float64)
    field.num_samples = 24
    cameras = orbit([20.0], [10.0])
    cameras = dataclasses.replace(cameras, c2w=cameras.c2w.double(), fovy_deg=cameras.fovy_deg.double())
    generator = torch.Generator().manual_seed(1)
    background = torch.tensor([[0.1, 0.5, 0.7]], dtype=torch.float64)
    pull = torch.randn(1, 3, 8, 8, generator=generator).double()

    def value() -> torch.Tensor:
        own = torch.Generator().manual_seed(0)
        rendered = render_field(field, cameras, 8, background, generator=own, shade=None)
        return (rendered.images * pull).sum() + rendered.opacity.square().sum()

    learning = list(field.rates(1.0))
    for name in learning:
        field.named[name].requires_grad_(True)
    value().backward()
    for name in learning:
        tensor, gradient = field.named[name].requires_grad_(False), field.named[name].grad
        assert gradient is not None
        # Along the gradient: a single number of a table may touch no pixel.
        step = 1e-5 * gradient / gradient.norm()
        results = []
        for sign in (1, -1):
            field.named[name] = tensor + sign * step
            results.append(float(value().detach()))
        field.named[name] = tensor
        slope = (results[0] - results[1]) / 2e-5
        assert math.isclose(slope, float(gradient.norm()), rel_tol=1e-3), name


@pytest.mark.parametrize("settings", FIELDS)
def test_normals_have_a_gradient_and_face_away_from_the_middle(settings: HashgridConfig | SdfConfig) -> None:
    kind: Any = HashField if isinstance(settings, HashgridConfig) else SdfField
    field = kind.fresh(settings)
    points = F.normalize(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), dim=-1) * 0.5
    normals = field.normals_at(points)
    assert ((normals * F.normalize(points, dim=-1)).sum(dim=-1) > 0.99).all()
    field.named["table_0"].requires_grad_(True)
    (field.normals_at(points) * points.flip(0)).sum().backward()
    gradient = field.named["table_0"].grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0.0


def test_skipping_changes_nothing_visible() -> None:
    """Against the plain sum over every sample."""
    settings = HashgridConfig(density_scale=30.0, blob_strength=1.0, blob_radius=0.4, occupancy_resolution=32)
    for field in (
        rough(settings),
        rough(SdfConfig(sphere_radius=0.5, sharpness=60.0, occupancy_resolution=32)),
    ):
        generator = torch.Generator().manual_seed(1)
        origins = F.normalize(torch.randn(200, 3, generator=generator), dim=-1) * 3.0
        targets = torch.rand(200, 3, generator=generator) - 0.5
        directions = F.normalize(targets - origins, dim=-1)
        background = torch.tensor([0.2, 0.4, 0.9])
        rendered = render_rays(field, origins, directions, background, num_samples=64)
        near, far = near_far(origins, directions, *field.bounds())
        step = (far - near) / 64
        t = near[:, None] + step[:, None] * (torch.arange(64) + 0.5)
        points = origins[:, None] + directions[:, None] * t[..., None]
        density, color = field.density_and_color(points.view(-1, 3))
        thickness = density.view(200, 64) * step[:, None]
        weights = torch.exp(thickness - thickness.cumsum(1)) * (1 - torch.exp(-thickness))
        through = (1 - weights.sum(1))[:, None] * background
        rgb = (weights[..., None] * color.view(200, 64, 3)).sum(1) + through
        assert len(rendered.kept) < 0.6 * 200 * 64
        assert (rendered.rgb - rgb).abs().max() < 5e-3
        assert (rendered.opacity - weights.sum(1)).abs().max() < 5e-3


def test_what_grows_is_found_and_what_goes_fades() -> None:
    field = HashgridConfig(
        **SMALL, blob_radius=0.3, blob_strength=0.5, density_scale=20.0, occupancy_decay=0.5
    ).begin()
    inside, outside = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[0.7, 0.7, 0.7]])
    assert float(field.density_bounds(inside)[1]) > 1.0
    assert float(field.density_bounds(outside)[1]) < 1e-2
    field.named["bias_1"] = field.named["bias_1"] + torch.tensor([2.0, 0.0, 0.0, 0.0])
    field.refresh()
    assert float(field.density_bounds(outside)[1]) > 1.0
    before = float(field.density_bounds(outside)[1])
    field.named["bias_1"] = field.named["bias_1"] - torch.tensor([9.0, 0.0, 0.0, 0.0])
    field.refresh()
    assert float(field.density_bounds(outside)[1]) == pytest.approx(0.5 * before)
    for _ in range(20):
        field.refresh()
    low, high = field.bounds()
    assert torch.equal(low, high)  # nothing is left


@pytest.mark.parametrize("settings", FIELDS)
def test_a_state_holds_all_of_it(settings: HashgridConfig | SdfConfig) -> None:
    """Saved and loaded between two steps, it goes on bit for bit."""

    def fit(field: NeuralField, seeds: range, again: Callable[[NeuralField], NeuralField]) -> State:
        from gen3d.adam import Adam, adam_step

        state = State()
        field.save(state)
        for seed in seeds:
            live = base.load(settings, state)
            assert isinstance(live, NeuralField)
            if seed % 2 == 0:
                live.refresh()
            live.save(state)
            again(live).save(state)
            names = {f"representation/{name}": 0.01 * rate for name, rate in live.rates(1.0).items()}
            for name in names:
                state[name].requires_grad_(True)
            live = base.load(settings, state)
            generator = torch.Generator().manual_seed(seed)
            picture = live.render(orbit([30.0], [10.0]), 12, torch.ones(1, 3), generator=generator)
            (picture.images.mean() + sum(live.regularisers(generator).values())).backward()
            adam_step(state, names, Adam())
            state = State.from_tensors(state.tensors())
        return state

    def stored(field: NeuralField) -> NeuralField:
        tensors = State(field.tensors()).tensors()
        other = settings.load(tensors)
        assert isinstance(other, NeuralField)
        return other

    straight = fit(rough(settings), range(4), lambda field: field)
    resumed = fit(rough(settings), range(4), stored)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not torch.equal(straight["representation/table_0"], rough(settings).named["table_0"])


def test_only_active_levels_learn() -> None:
    settings = HashgridConfig(num_levels=4, active_levels=((0.2, 0.5), (0.6, 1.0)))
    assert [settings.num_active(progress) for progress in (0.0, 0.2, 0.4, 0.6, 1.0)] == [2, 2, 3, 4, 4]
    names = settings.begin().rates(0.0).keys()
    assert "table_1" in names
    assert "table_2" not in names
    assert HashgridConfig(active_levels=0.0).num_active(0.5) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [HashgridConfig, SdfConfig])
def test_begins_with_a_mesh(kind: type[HashgridConfig | SdfConfig]) -> None:
    """A box with a ball, of two colours."""
    grid = torch.linspace(-1, 1, 64)
    x, y, z = torch.meshgrid(grid, grid, grid, indexing="ij")
    places = torch.stack([x, y, z], dim=-1)
    mesh = meshing.extract_mesh(-analytic.sdf(places).numpy(), level=0.0)
    mesh = Mesh(mesh.vertices, mesh.faces, vertex_colors=analytic.albedo(mesh.vertices))
    settings = kind()
    field = settings.begin_from(mesh)
    surface = SurfaceConfig(level=None if kind is SdfConfig else 3.0, resolution=64, smooth=0)
    back = field.to_mesh(surface, None)
    assert meshing.is_watertight(back)
    assert volume_iou(back, analytic.sdf) > 0.91
    assert back.vertex_colors is not None
    far = (back.vertices[:, 1] - 0.05).abs() > 0.15
    assert (back.vertex_colors - analytic.albedo(back.vertices)).abs()[far].mean() < 0.06


@pytest.mark.slow
def test_carves_a_hull() -> None:
    cameras = orbit([0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0], [15.0] * 8)
    views = Views.from_images(analytic.views(cameras), cameras, threshold=0.06)
    field = HashgridConfig().begin()
    field.carve(views, tolerance=0.0)
    field.refresh()
    shown = field.render(cameras, 64, views.backgrounds)
    assert float((shown.opacity - views.masks).abs().mean()) < 0.04
    assert float((shown.images - views.images).abs().mean()) < 0.08


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": 3}, "features must be 1, 2, 4 or 8, got 3"),
        ({"num_levels": 0}, "num_levels must lie in 1..32, got 0"),
        ({"log2_hashmap_size": 30}, "log2_hashmap_size must lie in 4..24, got 30"),
        ({"base_resolution": 80}, "finest_resolution must be at least base_resolution, 80, got 48"),
        ({"hidden_layers": 0}, "hidden_layers must lie in 1..8, got 0"),
        ({"active_levels": 2.0}, "active_levels must lie in 0..1, got 2"),
        ({"occupancy_decay": 1.0}, "occupancy_decay must lie in"),
        ({"table_rate": -1.0}, "table_rate must lie in 0..100, got -1"),
        ({"table_decay": -1.0}, "table_decay must lie in 0..1000, got -1"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    for kind in (HashgridConfig, SdfConfig):
        with pytest.raises(ValueError, match=message):
            kind(**wrong)


def test_wrong_settings_of_each_are_refused() -> None:
    with pytest.raises(ValueError, match="blob_radius must lie in"):
        HashgridConfig(blob_radius=0.0)
    with pytest.raises(ValueError, match="smoothness must lie in"):
        HashgridConfig(smoothness=-1.0)
    with pytest.raises(ValueError, match=r"sharpness must lie in 1\.\.10000, got 0"):
        SdfConfig(sharpness=0.0)
    with pytest.raises(ValueError, match="num_levels is 4, which has no effect while encoding is grid"):
        SdfConfig(encoding="grid", num_levels=4)
    with pytest.raises(ValueError, match=r"finest_resolution must lie in 1\.\.256 with encoding=grid"):
        SdfConfig(encoding="grid", finest_resolution=300)


def test_levels_of_the_surface() -> None:
    with pytest.raises(ValueError, match="has no effect on a signed distance"):
        SdfConfig().check_level(10.0)
    SdfConfig().check_level(None)
    HashgridConfig(blob_strength=0.5, density_scale=40.0).check_level(10.0)
    with pytest.raises(ValueError, match="must lie below 10"):
        HashgridConfig(blob_strength=0.5, density_scale=20.0).check_level(11.0)
    with pytest.raises(ValueError, match="must be a density"):
        HashgridConfig().check_level(None)


def test_a_state_of_other_settings_is_refused() -> None:
    tensors = HashgridConfig(**SMALL).begin().tensors()
    with pytest.raises(ValueError, match="table_1 has shape"):
        HashgridConfig(**{**SMALL, "log2_hashmap_size": 6}).load(tensors)
    with pytest.raises(ValueError, match="missing: \\['table_3'\\]"):
        HashgridConfig(**{**SMALL, "num_levels": 4}).load(tensors)


def test_a_blob_that_never_is_is_refused() -> None:
    HashgridConfig().check_beginning("it begins with the hull of views")
    with pytest.raises(
        ValueError, match=r"blob_radius is 0.3, which has no effect while it begins with the hull"
    ):
        HashgridConfig(blob_radius=0.3).check_beginning("it begins with the hull of views")
