"""Priors that are asked for depth and normals, and that are given views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diffusion.backbone import Backbone, load, save_backbone
from diffusion.domains import DOMAINS, Domain
from diffusion.samplers import sample_views
from experiments.priors.config import TruthConfig
from gen3d.cameras import orbit, ring
from gen3d.domain_pictures import depth_of, normals_of
from gen3d.priors.base import NoRules, Request
from gen3d.priors.config import SamplingConfig, TextPriorConfig
from gen3d.priors.text import TextPrior
from tests.diffusion.models import make_parts

CONFIG = TextPriorConfig(sampling=SamplingConfig(num_steps=2, guidance_scale=2.0))
MIXED: list[Domain] = ["color", "color", "depth", "normals"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = tmp_path_factory.mktemp("model")
    save_backbone(path, **make_parts(), num_views=4, image_size=64, domains=DOMAINS)
    return load(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Of colours alone."""
    path = tmp_path_factory.mktemp("plain")
    save_backbone(path, **make_parts(), num_views=4, image_size=64)
    return load(path)


def prior(backbone: Backbone, config: TextPriorConfig = CONFIG) -> TextPrior:
    return config.build(Request(backbone=backbone, prompt="a red mushroom"))


def test_what_can_be_asked_for_is_known_before_a_model_is_loaded(backbone: Backbone, plain: Backbone) -> None:
    assert CONFIG.rules(backbone.facts).domains == prior(backbone).domains == DOMAINS
    assert CONFIG.rules(plain.facts).domains == prior(plain).domains == ("color",)
    truth = TruthConfig()
    assert truth.rules(plain.facts).domains == NoRules().domains == DOMAINS
    assert truth.build(Request(backbone=plain, prompt="a red mushroom")).domains == DOMAINS


def test_each_view_shows_what_it_is_asked_for(backbone: Backbone, plain: Backbone) -> None:
    cameras = orbit([0.0, 90.0, 0.0, 90.0], 10.0)
    asked = prior(backbone)
    colors = asked.sample(cameras, generator())
    said = asked.sample(cameras, generator(), domains=["color"] * 4)
    assert torch.equal(said, colors)
    assert torch.equal(prior(plain).sample(cameras, generator(), domains=["color"] * 4), colors)
    mixed = asked.sample(cameras, generator(), domains=MIXED)
    assert float((mixed - colors).abs().amax((1, 2, 3)).min()) > 1e-5


def test_sets_hold_the_views_in_the_order_given(backbone: Backbone) -> None:
    """Of eight views in sets of four, each set is what it would be by itself, with the same noise."""
    cameras, given = orbit(torch.arange(8) * 45.0, 10.0), torch.rand(8, 3, 64, 64, generator=generator(1))
    domains, fixed = (
        [*MIXED, *MIXED[::-1]],
        torch.tensor([True, False, False, False, False, True, False, True]),
    )
    asked = prior(backbone, replace(CONFIG, joint_views=4))
    made = asked.sample(cameras, generator(), domains=domains, init_images=given, fixed=fixed)
    assert torch.equal(made[fixed], given[fixed])
    indices = torch.tensor([DOMAINS.index(domain) for domain in domains]).view(2, 4)
    alone = sample_views(
        backbone, [asked.prompt], cameras.c2w.view(2, 4, 4, 4), generator=generator(), guidance_scale=2.0,
        num_steps=2, domains=indices, init_images=given.view(2, 4, 3, 64, 64), fixed=fixed.view(2, 4),
    )  # fmt: skip
    assert torch.equal(made, alone.flatten(0, 1))
    joint = prior(backbone).sample(cameras, generator(), domains=domains, init_images=given, fixed=fixed)
    assert float((joint - made)[~fixed].abs().max()) > 1e-5, "all eight see each other"


def test_what_is_drawn_to_given_colours_has_settings_of_its_own(backbone: Backbone) -> None:
    cameras, given = orbit([0.0, 0.0, 90.0, 90.0], 10.0), torch.rand(4, 3, 64, 64, generator=generator(1))
    domains: list[Domain] = ["color", "depth", "color", "normals"]
    own = SamplingConfig(num_steps=3, guidance_scale=1.0, guidance_rescale=0.0)
    asked = prior(backbone, replace(CONFIG, domain_sampling=own))
    indices = torch.tensor([DOMAINS.index(domain) for domain in domains])[None]
    for fixed, settings in (
        ([True, False, True, False], own),
        ([True, False, False, False], CONFIG.sampling),
    ):
        held = torch.tensor(fixed)
        made = asked.sample(cameras, generator(), domains=domains, init_images=given, fixed=held)
        alone = sample_views(
            backbone, [asked.prompt], cameras.c2w[None], generator=generator(), domains=indices,
            guidance_scale=settings.guidance_scale, guidance_rescale=settings.guidance_rescale,
            num_steps=settings.num_steps, init_images=given[None], fixed=held[None],
        )  # fmt: skip
        assert torch.equal(made, alone[0])


def test_views_that_are_alone_have_domains_too(backbone: Backbone) -> None:
    asked, cameras = prior(backbone, replace(CONFIG, joint_views=1)), orbit([0.0, 0.0], 10.0)
    colors = asked.sample(cameras, generator())
    mixed = asked.sample(cameras, generator(), domains=["color", "depth"])
    torch.testing.assert_close(mixed[0], colors[0], atol=1e-5, rtol=0)
    assert float((mixed[1] - colors[1]).abs().max()) > 1e-5


def test_the_world_knows_depth_and_normals() -> None:
    asked = TruthConfig().build(Request(backbone=load("tiny"), prompt="a red sphere"))
    cameras = ring(4)
    domains: list[Domain] = ["depth", "normals", "color", "depth"]
    images = asked.sample(cameras, generator(), domains=domains)
    assert images.shape == (4, 3, 128, 128)
    colors = asked.sample(cameras, generator())
    assert torch.equal(images[2], colors[2])
    seen = asked.views.scene.render(cameras, 128)
    inside = seen.mask[0, 0] > 0.99
    depth = depth_of(images, cameras)[0, 0]
    torch.testing.assert_close(depth[inside], seen.depth[0, 0][inside], atol=0.05, rtol=0)
    cosines = (normals_of(images)[1] * seen.normals[1]).sum(dim=0)[seen.mask[1, 0] > 0.99]
    assert float(cosines.min()) > 0.999
    given, fixed = (
        torch.rand(4, 3, 128, 128, generator=generator()),
        torch.tensor([False, True, False, False]),
    )
    held = asked.sample(cameras, generator(), domains=domains, init_images=given, fixed=fixed)
    assert torch.equal(held[1], given[1])
    assert torch.equal(held[~fixed], images[~fixed])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"domains": ["color"] * 3}, "domains must be one for each of the 4 cameras, got 3"),
        ({"domains": ["color"] * 3 + ["smell"]}, "domain is 'smell', allowed: color, depth, normals"),
        ({"fixed": torch.ones(4, dtype=torch.bool)}, "fixed needs init_images"),
        (
            {"fixed": torch.ones(1, 4, dtype=torch.bool), "init_images": torch.zeros(4, 3, 64, 64)},
            r"fixed must be one for each of the 4 cameras, got \[1, 4\]",
        ),
    ],
)
def test_what_no_prior_can_do(backbone: Backbone, asked: dict[str, Any], words: str) -> None:
    truth = TruthConfig().build(Request(backbone=backbone, prompt="a red mushroom"))
    for each in (prior(backbone), truth):
        with pytest.raises(ValueError, match=words):
            each.sample(ring(4), generator(), **asked)


def test_what_a_text_prior_cannot_do(backbone: Backbone, plain: Backbone) -> None:
    with pytest.raises(ValueError, match="domain is 'depth', allowed: color"):
        prior(plain).sample(ring(4), generator(), domains=MIXED)
    given: dict[str, Any] = {"init_images": torch.zeros(4, 3, 64, 64)}
    alone = prior(backbone, replace(CONFIG, joint_views=1))
    with pytest.raises(ValueError, match="views that are alone see no others"):
        alone.sample(ring(4), generator(), fixed=torch.tensor([True, False, False, False]), **given)
    with pytest.raises(ValueError, match="all views of an object are fixed"):
        prior(backbone).sample(ring(4), generator(), fixed=torch.ones(4, dtype=torch.bool), **given)
