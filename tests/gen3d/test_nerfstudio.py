"""Nerfstudio's field: against its own forward pass, gradients against finite differences, where its samples lie."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from gen3d import meshing
from gen3d.adam import Adam, adam_step
from gen3d.asset import Mesh
from gen3d.cameras import orbit
from gen3d.metrics import volume_iou
from gen3d.render.rays import render_rays
from gen3d.representations import base
from gen3d.representations.nerfstudio import NerfstudioConfig
from gen3d.stages.config import FitConfig
from gen3d.stages.fitting import fit_losses
from gen3d.state import State
from gen3d.surface import SurfaceConfig
from gen3d.views import Views
from tests.gen3d import analytic

if TYPE_CHECKING:
    from gen3d.representations.nerfstudio_field import NerfstudioField

needs_nerfstudio = pytest.mark.skipif(find_spec("nerfstudio") is None, reason="needs nerfstudio")
SMALL: dict[str, Any] = {
    "num_levels": 3, "base_resolution": 4, "finest_resolution": 12, "log2_hashmap_size": 8, "hidden_width": 8,
    "color_width": 8, "proposal_samples": (12, 10), "num_samples": 8, "proposal_resolutions": (6, 10),
    "proposal_levels": 2, "proposal_log2_hashmap_size": 7,
}  # fmt: skip


def rough() -> NerfstudioField:
    """A field whose tables say something."""
    field = NerfstudioConfig(**SMALL).begin()
    generator = torch.Generator().manual_seed(5)
    for name, tensor in field.named.items():
        if name.endswith("hash_table"):
            field.named[name] = torch.randn(tensor.shape, generator=generator)
    return field


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rays(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(1)
    origins = F.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3.0
    return origins, F.normalize(torch.rand(count, 3, generator=generator) - 0.5 - origins, dim=-1)


@needs_nerfstudio
def test_it_is_what_nerfstudio_computes() -> None:
    """Times the blob; beyond the cube there is nothing."""
    from nerfstudio.cameras.rays import Frustums, RaySamples  # pyright: ignore[reportMissingImports]
    from nerfstudio.field_components.field_heads import FieldHeadNames  # pyright: ignore[reportMissingImports]
    from torch.func import functional_call

    field = rough()
    points = torch.rand(50, 3, generator=seeded(0)) * 2.4 - 1.2
    density, color = field.density_and_color(points)
    one = torch.ones(50, 1)
    frustums = Frustums(
        origins=points, directions=torch.tensor([[0.0, 0.0, 1.0]]).expand(50, 3), starts=0 * one, ends=0 * one,
        pixel_area=one,
    )  # fmt: skip
    samples = RaySamples(frustums=frustums, camera_indices=torch.zeros(50, 1, dtype=torch.int64))
    own = {
        name.removeprefix("field."): each for name, each in field.named.items() if name.startswith("field.")
    }
    found = functional_call(field.networks.field, own, samples)
    blob = torch.exp(4.0 * (1.0 - points.norm(dim=-1) / 0.6))
    torch.testing.assert_close(density, found[FieldHeadNames.DENSITY][:, 0] * blob)
    torch.testing.assert_close(color, found[FieldHeadNames.RGB])
    inside = (points.abs() < 1.0).all(dim=-1)
    assert bool((density[inside] > 0.0).all())
    assert bool((density[~inside] == 0.0).all())
    torch.testing.assert_close(field.value_at(points)[inside].exp(), density[inside])


@needs_nerfstudio
def test_gradient_of_a_picture_matches_finite_differences() -> None:
    field = rough()
    learning = [name for name in field.named if name.startswith("field.")]
    for name in learning:  # where the samples lie stays as it is, in single precision
        field.named[name] = field.named[name].double().requires_grad_(True)
    pull = torch.randn(1, 3, 8, 8, generator=seeded(1)).double()

    def value() -> torch.Tensor:
        background = torch.tensor([[0.1, 0.5, 0.7]])
        rendered = field.render(orbit([20.0], [10.0]), 8, background, generator=seeded(0), normals=True)
        field.regularisers(seeded(0))
        assert rendered.depth is not None
        assert rendered.normals is not None
        both = rendered.depth.mean() + (rendered.normals * pull).sum()
        return (rendered.images * pull).sum() + rendered.opacity.square().sum() + both

    value().backward()
    for name in learning:
        tensor, gradient = field.named[name].requires_grad_(False), field.named[name].grad
        assert gradient is not None
        # Along the gradient: a single number of a table may touch no pixel.
        step = 1e-6 * gradient / gradient.norm()
        results = []
        for sign in (1, -1):
            field.named[name] = tensor + sign * step
            results.append(float(value().detach()))
        field.named[name] = tensor
        slope = (results[0] - results[1]) / 2e-6
        assert math.isclose(slope, float(gradient.norm()), rel_tol=1e-3), name


@needs_nerfstudio
def test_samples_are_drawn_from_the_given_generator_alone() -> None:
    field, (origins, directions) = rough(), rays(20)

    def look(seed: int | None) -> base.RayRender:
        generator = None if seed is None else seeded(seed)
        return render_rays(field, origins, directions, torch.zeros(3), num_samples=8, generator=generator)

    before = torch.random.get_rng_state()
    first, again, other, plain, plainly = (look(seed) for seed in (1, 1, 2, None, None))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("rgb", "t", "weights"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(plain, name), getattr(plainly, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
        assert not torch.equal(getattr(first, name), getattr(plain, name))
    # Begun in another process, or once more in this one, it is the same.
    torch.rand(7)
    fresh = NerfstudioConfig(**SMALL, interlevel=0.5).begin()
    assert all(torch.equal(fresh.named[k], v) for k, v in NerfstudioConfig(**SMALL).begin().named.items())


@needs_nerfstudio
def test_samples_lie_where_something_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the blob that all begin with; and they fill the ray, without gaps."""
    field = NerfstudioConfig(blob_radius=0.3, blob_strength=8.0).begin()
    origins, directions = rays(50)
    directions = F.normalize(-origins, dim=-1)
    seen = render_rays(field, origins, directions, torch.zeros(3), num_samples=24)
    points = origins[:, None] + directions[:, None] * seen.t[..., None]
    assert float((points.norm(dim=-1) < 0.4).float().mean()) > 0.8
    torch.testing.assert_close(seen.t[:, 1:] - seen.t[:, :-1], (seen.step[:, 1:] + seen.step[:, :-1]) / 2)
    # The same as by the plain sum over ten times as many samples everywhere.
    monkeypatch.setattr(field, "samples", lambda *_: None)
    plain = render_rays(field, origins, directions, torch.zeros(3), num_samples=400)
    assert float((seen.opacity - plain.opacity).abs().max()) < 0.02
    assert float((seen.depth - plain.depth).abs().mean()) < 0.03


@needs_nerfstudio
def test_the_interlevel_loss_teaches_the_proposals_alone() -> None:
    field = rough()
    for tensor in field.named.values():
        tensor.requires_grad_(True)
    field.render(orbit([20.0], [10.0]), 8, torch.zeros(1, 3), generator=seeded(0))
    losses = field.regularisers(seeded(0))
    assert list(losses) == ["interlevel"]
    losses["interlevel"].backward()
    for name, tensor in field.named.items():
        if name.startswith("proposals."):
            assert tensor.grad is not None, name
            assert float(tensor.grad.abs().max()) > 0.0, name
        else:
            assert tensor.grad is None, name
    assert field.regularisers(seeded(0)) == {}  # of what was rendered since
    field.render(orbit([20.0], [10.0]), 8, torch.zeros(1, 3))
    assert field.regularisers(seeded(0)) == {}  # pictures teach nothing
    field = NerfstudioConfig(**SMALL, interlevel=0.0).begin()
    field.render(orbit([20.0], [10.0]), 8, torch.zeros(1, 3), generator=seeded(0))
    assert field.regularisers(seeded(0)) == {}


def train(state: State, settings: NerfstudioConfig, seeds: range, stored: bool) -> tuple[State, list[float]]:
    """Fit to views of a known scene, by the losses of the stage."""
    cameras = orbit([0.0, 90.0, 180.0, 270.0], [15.0] * 4)
    views = Views.from_images(analytic.views(cameras, size=24), cameras, threshold=0.06)
    missed = []
    for seed in seeds:
        live = base.load(settings, state)
        names = {f"representation/{name}": 0.05 * rate for name, rate in live.rates(0.0).items()}
        for name in names:
            state[name].requires_grad_(True)
        losses = fit_losses(base.load(settings, state), views, FitConfig(num_rays=64), 0.0, seeded(seed))
        missed.append(float(losses["interlevel"].detach()))
        torch.stack(list(losses.values())).sum().backward()
        adam_step(state, names, Adam())
        for name in names:
            state[name].requires_grad_(False)
            state[name].grad = None
        if stored:
            state = State.from_tensors(state.tensors())
    return state, missed


@needs_nerfstudio
def test_a_state_holds_all_of_it() -> None:
    """Saved and loaded between two steps, it goes on bit for bit; and the proposals learn."""
    settings = NerfstudioConfig(**SMALL)
    states = []
    for stored in (False, True):
        state = State()
        settings.begin().save(state)
        states.append(train(state, settings, range(40), stored))
    (straight, missed), (resumed, _) = states
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert all(not torch.equal(straight[f"representation/{k}"], v) for k, v in settings.begin().named.items())
    assert sum(missed[-5:]) < 0.7 * max(missed) * 5


@needs_nerfstudio
@pytest.mark.slow
def test_begins_with_a_mesh() -> None:
    """A box with a ball, of two colours."""
    grid = torch.linspace(-1, 1, 64)
    places = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij"), dim=-1)
    mesh = meshing.extract_mesh(-analytic.sdf(places).numpy(), level=0.0)
    mesh = Mesh(mesh.vertices, mesh.faces, vertex_colors=analytic.albedo(mesh.vertices))
    field = NerfstudioConfig().begin_from(mesh)
    back = field.to_mesh(SurfaceConfig(level=3.0, resolution=64, smooth=0), None)
    assert meshing.is_watertight(back)
    assert volume_iou(back, analytic.sdf) > 0.9
    assert back.vertex_colors is not None
    far = (back.vertices[:, 1] - 0.05).abs() > 0.15
    assert (back.vertex_colors - analytic.albedo(back.vertices)).abs()[far].mean() < 0.03
    # Its proposals know of it too: few samples show it as it is.
    cameras = orbit([30.0], [10.0])
    views = Views.from_images(analytic.views(cameras), cameras, threshold=0.06)
    shown = field.render(cameras, 64, views.backgrounds, normals=True)
    assert float((shown.opacity - views.masks).abs().mean()) < 0.04
    assert shown.normals is not None
    assert float(shown.normals.norm(dim=1).max()) <= 1.001


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_levels": 0}, r"nerfstudio num_levels must lie in 1\.\.32, got 0"),
        ({"proposal_log2_hashmap_size": 30}, "proposal_log2_hashmap_size must lie in"),
        ({"finest_resolution": 4}, "finest_resolution must be at least base_resolution, 8, got 4"),
        ({"proposal_samples": ()}, r"proposal_samples must be one to four numbers in 1\.\.4096, got \[\]"),
        ({"proposal_samples": (64, 32)}, r"a number for each proposal network, got \[64, 32\] and \[64\]"),
        ({"interlevel": -1.0}, "interlevel must lie in"),
        ({"blob_strength": 20.0}, "blob_strength must lie in"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NerfstudioConfig(**wrong)


def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r'needs the package nerfstudio; pip install "galatea\[nerfstudio\]"'
    ):
        NerfstudioConfig()


@needs_nerfstudio
def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a density"):
        NerfstudioConfig().check_level(None)
    with pytest.raises(ValueError, match=r"must lie below 7\.38906, the density"):
        NerfstudioConfig(blob_strength=2.0).check_level(8.0)
    with pytest.raises(
        ValueError, match=r"blob_radius is 0\.3, which has no effect while it begins with views"
    ):
        NerfstudioConfig(blob_radius=0.3).check_beginning("it begins with views")
    small = NerfstudioConfig(**SMALL)
    tensors = small.begin().tensors()
    other: Callable[..., NerfstudioConfig] = lambda **changed: dataclasses.replace(small, **changed)  # noqa: E731
    with pytest.raises(ValueError, match=r"hash_table has shape \[768, 2\], and they ask for \[1024, 2\]"):
        other(num_levels=4).load(tensors)
    with pytest.raises(ValueError, match=r"proposals\.2\.encoding\.hash_table is missing"):
        other(proposal_samples=(8, 8, 8), proposal_resolutions=(8, 8, 8)).load(tensors)
