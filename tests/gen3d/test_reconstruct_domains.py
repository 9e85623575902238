"""Rounds that draw depth and normals to their colours, and what they do not believe of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.backbone import load as load_backbone
from diffusion.domains import DOMAINS, Domain
from experiments.priors.config import TruthConfig
from experiments.priors.truth import TruthPrior
from experiments.world import scene_from_caption
from gen3d.agreement import believed, contradicted
from gen3d.cameras import Cameras, orbit, ring
from gen3d.domain_pictures import depth_picture, normals_picture
from gen3d.metrics import volume_iou
from gen3d.optimize import optimize
from gen3d.priors.base import Request
from gen3d.priors.config import SamplingConfig, TextPriorConfig
from gen3d.recipe import check_recipe
from gen3d.representations.base import load
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import FittingConfig, ReconstructConfig
from gen3d.state import State
from gen3d.views import Views

MUG = "a red mug"


def true_views(caption: str = MUG, size: int = 64) -> Views:
    cameras = orbit([0.0, 60.0, 120.0, 180.0, 240.0, 300.0] * 2, [50.0] * 6 + [10.0] * 6)
    seen = scene_from_caption(caption).render(cameras, size, background=(0.5, 0.6, 0.8))
    return Views.from_images(
        seen.images,
        cameras,
        depth=depth_picture(seen.depth, seen.mask, cameras),
        normals=normals_picture(seen.normals, seen.mask),
    )


def test_pictures_of_depth_and_normals_become_those_of_views() -> None:
    cameras = ring(4, elevation_deg=15.0)
    seen = scene_from_caption("a red ball").render(cameras, 64, background=(0.5, 0.6, 0.8))
    views = Views.from_images(
        seen.images,
        cameras,
        depth=depth_picture(seen.depth, seen.mask, cameras),
        normals=normals_picture(seen.normals, seen.mask),
    )
    assert views.depth is not None
    assert views.normals is not None
    known = views.depth > 0.0
    assert float(known.sum() / (seen.mask > 0.9).sum()) > 0.85
    assert float(seen.mask[known].min()) > 0.95
    assert float((views.depth - seen.depth)[known].abs().max()) < 0.05
    assert float((views.normals - seen.normals).abs().mul(known).max()) < 0.05


def test_true_views_are_believed() -> None:
    views = true_views()
    assert views.depth is not None
    again = believed(views)
    assert again.depth is not None
    assert again.normals is not None
    assert float((again.depth > 0).sum() / (views.depth > 0).sum()) > 0.97
    lost = (views.normals != 0).any(1) & ~(again.normals != 0).any(1)  # type: ignore[union-attr]
    assert float(lost.sum() / (views.depth > 0).sum()) < 0.05


def test_depth_in_front_of_what_others_see_is_not_believed() -> None:
    views = true_views()
    assert views.depth is not None
    wrong = views.depth.clone()
    wrong[2] = torch.where(wrong[2] > 0, wrong[2] - 0.5, wrong[2])
    said = replace(views, depth=wrong)
    seen_through = contradicted(said, 0.08)
    assert float(seen_through[2][wrong[2] > 0].mean()) > 0.5
    again = believed(said)
    assert again.depth is not None
    assert again.normals is not None
    kept = (again.depth > 0).flatten(1).sum(1) / (views.depth > 0).flatten(1).sum(1)
    assert float(kept[2]) < 0.2
    assert float(kept[[0, 1, 3, 4, 5]].min()) > 0.9
    assert float((again.normals[2] != 0).any(0).sum()) < 0.2 * float((wrong[2] > 0).sum())


def test_normals_that_face_away_are_not_believed() -> None:
    views = true_views()
    assert views.normals is not None
    turned = replace(views, depth=None, normals=-views.normals)
    again = believed(turned)
    assert again.depth is None
    assert again.normals is not None
    assert float((again.normals != 0).any(1).sum() / (views.normals != 0).any(1).sum()) < 0.05


class Recorded(TruthPrior):
    """The truth, and what it was asked for."""

    asked: list[tuple[int, int | None, list[Domain] | None, list[bool] | None]]

    def sample(self, cameras: Cameras, generator: torch.Generator, **asked: Any) -> Tensor:
        fixed = asked.get("fixed")
        said = (asked.get("start_timestep"), asked.get("domains"), None if fixed is None else fixed.tolist())
        self.asked.append((len(cameras), *said))
        return super().sample(cameras, generator, **asked)


class RecordedConfig(TruthConfig):
    def build(self, request: Request) -> Recorded:
        prior = Recorded(self, request)
        prior.asked = []
        return prior


def about(volume: VolumeConfig) -> Given:
    request = Request(backbone=load_backbone("tiny"), prompt=MUG)
    return Given(chosen=Chosen(prior=RecordedConfig(), representation=volume), request=request)


def test_depth_and_normals_are_drawn_to_the_colours_of_each_round_view_by_view() -> None:
    given = about(VolumeConfig(resolutions=(16,), num_samples=16))
    config = ReconstructConfig(
        timesteps=(700, 500),
        steps_per_round=1,
        group_size=4,
        domains=DOMAINS,
        domain_rounds=2,
        keep_rounds=2,
        fit=FittingConfig(num_rays=64),
    )
    state = optimize([config.build(given)], State(), generator=torch.Generator().manual_seed(0))
    prior = given.prior()
    assert isinstance(prior, Recorded)
    pairs = [True, False] * 4
    once = [(8, None, ["color", name] * 4, pairs) for name in ("depth", "normals")]
    rounds = [(4, start, None, None) for start in (None, 700, 500)]
    assert prior.asked == [rounds[0], rounds[1], *once, rounds[2], *once]
    views = Views.load(state)
    assert views.depth is not None
    assert views.normals is not None
    true = scene_from_caption(MUG).render(views.cameras, 128)
    known = views.depth > 0.0  # pictures and views are in one order
    assert float(known.float().mean()) > 0.05
    missed = (views.depth - true.depth)[known].abs()
    assert float((missed > 0.02).float().mean()) < 0.05  # but where the mug hides a part of itself
    told = (views.normals != 0.0).any(dim=1)
    missed = (views.normals - true.normals).abs().amax(dim=1)[told]
    assert float((missed > 0.02).float().mean()) < 0.05


def test_the_first_round_carves_and_those_that_learn_of_depth_but_for_the_last() -> None:
    def carved(**own: object) -> list[int]:
        config = ReconstructConfig(**own)  # type: ignore[arg-type]
        return [index for index in range(config.num_rounds) if config.carves(index)]

    assert carved() == [0]
    assert carved(hull_rounds=2) == [0, 1]
    assert carved(domains=DOMAINS) == [0, 3, 4]
    assert carved(domains=("color", "normals")) == [0]
    assert carved(domains=DOMAINS, domain_rounds=9) == [0, 1, 2, 3, 4]
    assert carved(domains=DOMAINS, timesteps=()) == [0]


def recipe(config: ReconstructConfig, prior: TextPriorConfig | None = None) -> None:
    check_recipe(
        {"reconstruct": config},
        Chosen(prior=prior or TextPriorConfig(), representation=VolumeConfig()),
    )


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ReconstructConfig(domains=("depth",)), "color"),
        (lambda: ReconstructConfig(domain_rounds=2), "domain_rounds is 2"),
        (lambda: ReconstructConfig(domains=("color", "depth", "depth")), "once"),
        (lambda: ReconstructConfig(fit=FittingConfig(depth=3.0)), "fit depth is 3.0"),
        (lambda: ReconstructConfig(domains=("color", "depth"), fit=FittingConfig(normals=3.0)), "no normals"),
        (
            lambda: recipe(ReconstructConfig(), TextPriorConfig(domain_sampling=SamplingConfig(num_steps=3))),
            "domain_sampling",
        ),
        (
            lambda: ReconstructConfig(domains=DOMAINS).check_rules(
                lambda _: TextPriorConfig().rules(load_backbone("tiny").facts)
            ),
            "domains have depth, which the prior does not draw; it draws color",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(build, named: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=named):
        build()


def test_sampling_of_domains_may_be_set_where_they_are_asked_for() -> None:
    prior = TextPriorConfig(domain_sampling=SamplingConfig(num_steps=3))
    recipe(ReconstructConfig(domains=("color", "normals")), prior)


@pytest.mark.slow
def test_true_depth_and_normals_hollow_a_mug_over_the_rounds() -> None:
    volume = VolumeConfig(resolutions=(32,), num_samples=48)
    found = {}
    only_color: tuple[Domain, ...] = ("color",)
    for name, domains in (("plain", only_color), ("full", DOMAINS)):
        config = ReconstructConfig(
            timesteps=(500,), steps_per_round=80, group_size=6, elevations_deg=(55.0, 10.0), domains=domains
        )
        given = about(volume)
        state = optimize([config.build(given)], State(), generator=torch.Generator().manual_seed(0))
        field = load(volume, state)
        found[name] = volume_iou(
            lambda points, field=field: field.density_and_color(points)[0].detach() > 20.0,  # type: ignore[attr-defined]
            scene_from_caption(MUG).sdf,
            resolution=64,
        )
    assert found["full"] > found["plain"] + 0.2
