"""A representation fitted to views that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from experiments.world import scene_from_caption
from gen3d.cameras import Cameras, orbit, ring
from gen3d.metrics import volume_iou
from gen3d.optimize import Saved, optimize
from gen3d.priors.base import Request
from gen3d.priors.config import TextPriorConfig
from gen3d.rays import draw_rays
from gen3d.recipe import build_stages
from gen3d.representations.base import (
    Rendered,
    Representation,
    RepresentationConfig,
    load,
    load_field,
)
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import FitConfig, PictureConfig
from gen3d.state import State
from gen3d.views import Views
from tests.gen3d import analytic

SMALL = VolumeConfig(resolutions=(12, 16), num_samples=16)


def given(representation: RepresentationConfig, views: Views | None) -> Given:
    request = Request(backbone=None, prompt="")  # type: ignore[arg-type]
    chosen = Chosen(prior=TextPriorConfig(), representation=representation)
    return Given(chosen=chosen, request=request, views=views)


def true_views(cameras: Cameras, size: int = 32) -> Views:
    return Views.from_images(analytic.views(cameras, size), cameras)


def fit(config: FitConfig, about: Given, state: State | None = None) -> State:
    start = State() if state is None else state
    return optimize([config.build(about)], start, generator=torch.Generator().manual_seed(0))


def with_depth(views: Views, value: float = 2.0) -> Views:
    normals = torch.zeros_like(views.images)
    normals[:, 1] = views.masks[:, 0]
    return replace(views, depth=value * (views.masks > 0.5), normals=normals)


def test_depth_and_normals_of_views_come_back_from_a_state_and_go_with_their_views() -> None:
    plain = true_views(ring(2))
    known = with_depth(true_views(ring(3)))
    state = State()
    known.save(state)
    again = Views.load(state)
    assert again.depth is not None
    assert again.normals is not None
    assert torch.equal(again.depth, known.depth)
    assert torch.equal(again[1:2].normals, known.normals[1:2])
    both = Views.cat([plain, known])
    assert both.depth is not None
    assert torch.equal(both.depth[:2], torch.zeros(2, 1, 32, 32))
    assert torch.equal(both.depth[2:], known.depth)
    assert Views.cat([plain, plain]).normals is None
    plain.save(state)
    assert Views.load(state).depth is None
    rays = draw_rays(known, 200, torch.Generator().manual_seed(0))
    assert rays.depth is not None
    assert rays.normals is not None
    assert torch.equal(rays.depth, 2.0 * (rays.mask > 0.5))
    assert torch.equal(rays.normals[:, 1], rays.mask)
    assert draw_rays(plain, 5, torch.Generator().manual_seed(0)).depth is None


def test_it_fits_resumes_and_takes_the_resolutions_in_turn() -> None:
    config = FitConfig(num_steps=6, num_levels=2, num_rays=64, refresh_every=2)
    about = given(SMALL, with_depth(true_views(ring(4))))
    saves: list[Saved] = []

    def run(resume: Saved | None) -> dict[str, Tensor]:
        return optimize(
            [config.build(about)],
            State(),
            generator=torch.Generator().manual_seed(0),
            save=lambda step, tensors, metadata: saves.append((tensors, metadata)),
            checkpoint_every=1,
            resume=resume,
        ).tensors()

    final = run(None)
    assert [len(tensors["representation/grid"]) for tensors, _ in saves] == [12, 12, 12, 16, 16, 16]
    for save in (saves[1], saves[3], saves[4]):
        assert all(torch.equal(tensor, final[name]) for name, tensor in run(save).items())


def test_it_goes_on_with_what_is_there_and_with_the_views_of_an_earlier_stage() -> None:
    own, handed = true_views(ring(3)), true_views(ring(2))
    state = State()
    own.save(state)
    # What an earlier stage has made finer than the first resolution stays as fine.
    SMALL.begin().upsample(20).save(state)
    one = FitConfig(num_steps=1, num_rays=8)
    fit(one, given(SMALL, handed), state)
    assert len(Views.load(state)) == 3
    assert len(state["representation/grid"]) == 20
    # One of its own begins anew, though there is another.
    fit(replace(one, representation=replace(SMALL, resolutions=(9,))), given(SMALL, handed), state)
    assert len(state["representation/grid"]) == 9


def test_a_hull_is_a_good_beginning() -> None:
    about = given(replace(SMALL, resolutions=(24,)), true_views(ring(6)))
    density, _ = load_field(
        about.chosen.representation, fit(FitConfig(num_steps=1, num_rays=8, hull=True), about)
    ).density_and_color(torch.tensor([[0.0, -0.3, 0.0], [0.8, 0.8, 0.0]]))
    assert float(density[0]) > 10.0
    assert float(density[1]) < 0.1


def test_pictures_of_one_representation_are_the_views_of_another() -> None:
    ball = VolumeConfig(resolutions=(24,), num_samples=48, density_scale=300.0, blob_strength=20.0)
    other = VolumeConfig(resolutions=(20,), num_samples=32)
    recipe = {
        "first": FitConfig(num_steps=1, num_rays=8, learning_rate=0.0),
        "picture": PictureConfig(
            num_views=4, elevations_deg=(0.0, 40.0), size=32, domains=("depth", "normals")
        ),
        "second": FitConfig(num_steps=60, num_rays=256, representation=other, hull=True),
    }
    about = given(ball, true_views(ring(2)))
    state = optimize(build_stages(recipe, about), State(), generator=torch.Generator().manual_seed(0))
    views = Views.load(state)
    assert views.depth is not None
    assert views.normals is not None
    distance = views.cameras.positions[0].norm() - 0.5
    assert float(views.depth[0, 0, 15, 15]) == pytest.approx(float(distance), abs=0.05)
    assert float(views.normals[0, 2, 15, 15]) > 0.95
    seen = load(other, state).render(views.cameras[:1], 32, views.backgrounds[:1], normals=True)
    assert seen.depth is not None
    assert seen.normals is not None
    assert float(seen.depth[0, 0, 15, 15]) == pytest.approx(float(distance), abs=0.15)
    assert float(seen.normals[0, 2, 15, 15]) > 0.8


@dataclass(frozen=True, kw_only=True)
class CurtainConfig(RepresentationConfig):
    name: str = "curtain"

    def begin(self, device: torch.device | str = "cpu") -> Curtain:
        return Curtain({"color": torch.zeros(3), "far": torch.ones(1), "normal": torch.zeros(3)})

    def load(self, tensors: Mapping[str, Tensor]) -> Curtain:
        return Curtain(dict(tensors))


class Curtain(Representation):
    """No field: every camera sees one colour, one distance and one normal all over."""

    asked: list[int] = []  # noqa: RUF012

    def __init__(self, parts: dict[str, Tensor]) -> None:
        self.parts = parts

    @property
    def device(self) -> torch.device:
        return self.parts["color"].device

    def tensors(self) -> dict[str, Tensor]:
        return self.parts

    def rates(self, progress: float = 0.0) -> dict[str, float]:
        return dict.fromkeys(self.parts, 1.0)

    def render(self, cameras: Cameras, size: int, background: Tensor, **kwargs: object) -> Rendered:
        self.asked.append(len(cameras))

        def all_over(values: Tensor) -> Tensor:
            return values[None, :, None, None].expand(len(cameras), -1, size, size)

        return Rendered(
            images=all_over(self.parts["color"]),
            opacity=torch.full((len(cameras), 1, size, size), 0.5),
            depth=0.5 * all_over(self.parts["far"]),
            normals=0.5 * all_over(self.parts["normal"]) if kwargs["normals"] else None,
        )

    def to_mesh(self, settings: object, views: object) -> None:  # type: ignore[override]
        raise NotImplementedError


def test_what_is_no_field_is_fitted_by_whole_pictures() -> None:
    cameras = ring(4)
    images = torch.tensor([0.8, 0.2, 0.4])[None, :, None, None].expand(4, 3, 8, 8).contiguous()
    normals = torch.tensor([0.0, 0.3, 0.4])[None, :, None, None].expand(4, 3, 8, 8).contiguous()
    views = Views(
        images=images,
        masks=torch.ones(4, 1, 8, 8),
        backgrounds=torch.zeros(4, 3),
        cameras=cameras,
        depth=torch.full((4, 1, 8, 8), 2.5),
        normals=normals,
    )
    Curtain.asked.clear()
    state = fit(FitConfig(num_steps=150, num_rays=128), given(CurtainConfig(), views))
    assert set(Curtain.asked) == {2}
    assert state["representation/color"].tolist() == pytest.approx([0.8, 0.2, 0.4], abs=0.02)
    assert float(state["representation/far"]) == pytest.approx(2.5, abs=0.02)
    assert state["representation/normal"].tolist() == pytest.approx([0.0, 0.6, 0.8], abs=0.02)
    # Without depth and normals, nothing pulls these.
    plain = replace(views, depth=None, normals=None)
    state = fit(FitConfig(num_steps=2, num_rays=1), given(CurtainConfig(), plain))
    assert float(state["representation/far"]) == 1.0
    assert Curtain.asked[-1] == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (FitConfig(hull=True), "hull needs a field, which representation 'curtain' is not"),
        (FitConfig(distortion=0.1), "distortion needs a field, which representation 'curtain' is not"),
    ],
)
def test_what_needs_a_field_is_refused_before_work(config: FitConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config.check(given(CurtainConfig(), None).chosen)
    replace(config, representation=VolumeConfig()).check(given(CurtainConfig(), None).chosen)


@pytest.mark.parametrize("named", [{"depth": 1.0}, {"normals": 0.0}])
def test_weights_of_what_the_views_do_not_have_are_refused(named: dict[str, float]) -> None:
    (name,) = named
    about = given(SMALL, true_views(ring(2)))
    with pytest.raises(ValueError, match=rf"fit {name} .* has no effect while the views have no {name}"):
        fit(FitConfig(num_steps=1, num_rays=8, **named), about)  # type: ignore[arg-type]
    fit(FitConfig(num_steps=1, num_rays=8, **named), replace(about, views=with_depth(true_views(ring(2)))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_steps": -1}, "num_steps"),
        ({"num_levels": 0}, "num_levels"),
        ({"num_steps": 2, "num_levels": 3}, "num_levels"),
        ({"depth": -1.0}, "depth"),
        ({"normals": ((0.0, 1.0), (2.0, 1.0))}, "normals"),
        ({"learning_rate": 11.0}, "learning_rate"),
        ({"hull": True, "hull_tolerance": 1.0}, "hull_tolerance"),
        ({"hull_tolerance": 0.1}, "hull_tolerance"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FitConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_depth_and_normals_hollow_a_mug() -> None:
    """Silhouettes do not see into it, and colours hardly: IoU 0.34 without depth and normals, 0.61 with them."""
    scene = scene_from_caption("a red mug")
    azimuths, elevations = [0.0, 60.0, 120.0, 180.0, 240.0, 300.0] * 2, [50.0] * 6 + [10.0] * 6
    cameras, background = orbit(azimuths, elevations), (0.5, 0.6, 0.8)
    seen = scene.render(cameras, 64, background=background)
    full = Views(
        images=seen.images,
        masks=seen.mask,
        backgrounds=torch.tensor([background]).expand(12, 3).contiguous(),
        cameras=cameras,
        depth=seen.depth,
        normals=seen.normals * seen.mask,
    )
    volume = VolumeConfig(resolutions=(32,), num_samples=48)
    found = {}
    for name, views in (("plain", replace(full, depth=None, normals=None)), ("full", full)):
        state = fit(FitConfig(num_steps=150, hull=True, distortion=0.1), given(volume, views))
        field = load(volume, state)
        found[name] = volume_iou(
            lambda points, field=field: field.density_and_color(points)[0].detach() > 10.0,  # type: ignore[attr-defined]
            scene.sdf,
            resolution=64,
        )
    assert found["full"] > found["plain"] + 0.2
