"""The text prior, with small random backbones that come through the public door, and Perp-Neg."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.backbone import Backbone, load, save_backbone
from experiments.priors.config import TruthConfig
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.base import Scores
from gen3d.distillation.sds import SDS
from gen3d.optimize import optimize
from gen3d.priors.base import Request
from gen3d.priors.config import Contradictions, SamplingConfig, TextPriorConfig
from gen3d.priors.perp_neg import perp_neg_direction, view_words, weights_of
from gen3d.priors.text import TextPrior
from gen3d.prompts import on_background
from gen3d.recipe import build_stages, check_backbone, check_order, check_recipe, made_by_model, quickstart
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, Given, StageConfig
from gen3d.stages.config import (
    DistillConfig,
    ExtractConfig,
    Guidance,
    ReconstructConfig,
    RedrawConfig,
    RefineConfig,
)
from gen3d.state import State
from tests.diffusion.models import make_parts

CONFIG = TextPriorConfig(sampling=SamplingConfig(num_steps=2, guidance_scale=2.0))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = tmp_path_factory.mktemp("model")
    save_backbone(path, **make_parts(), num_views=4, image_size=64)
    return load(path)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """One view, no camera."""
    path = tmp_path_factory.mktemp("single")
    save_backbone(path, **make_parts(camera=False), num_views=1, image_size=64)
    return load(path)


def prior(backbone: Backbone, prompt: str = "a red mushroom", config: TextPriorConfig = CONFIG) -> TextPrior:
    return config.build(Request(backbone=backbone, prompt=prompt))


def test_views_of_two_groups_depend_on_the_generator_alone(backbone: Backbone) -> None:
    asked = prior(backbone)
    cameras = orbit([0, 90, 180, 270, 45, 135, 225, 315], 10)
    first, again = (asked.sample(cameras, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (8, 3, 64, 64)
    assert torch.equal(first, again)
    generator = torch.Generator().manual_seed(1)
    improved = asked.sample(cameras, generator, init_images=first, start_timestep=500)
    assert improved.shape == first.shape
    assert not torch.equal(improved, first)
    with pytest.raises(ValueError, match="4 views at once, got 3"):
        asked.sample(cameras[:3], torch.Generator())


def test_views_of_one_set_see_each_other_and_sets_do_not(backbone: Backbone) -> None:
    first = [0.0, 90.0, 180.0, 270.0]
    here, there = (orbit([*first, *(turn + angle for angle in first)], 10) for turn in (45.0, 20.0))

    def views(joint_views: int, cameras: Cameras) -> Tensor:
        asked = prior(backbone, "a cat", replace(CONFIG, joint_views=joint_views))
        return asked.sample(cameras, torch.Generator().manual_seed(0))[:4]

    torch.testing.assert_close(views(4, here), views(4, there), atol=1e-5, rtol=0)
    assert float((views(8, here) - views(8, there)).abs().max()) > 1e-3
    # Four views cannot fill a set of eight.
    torch.testing.assert_close(views(8, here[:4]), views(4, here[:4]), atol=1e-5, rtol=0)


def test_conditions_in_one_pass_are_what_they_are_one_by_one(backbone: Backbone) -> None:
    request = Request(backbone=backbone, prompt="a red mushroom", negative_prompt="a blue cube")
    asked = replace(CONFIG, source_prompt="a dog").build(request)
    cameras, t = orbit(torch.arange(8) * 45.0, 10.0), torch.tensor([300, 800])
    latents = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    which = ["cond", "uncond", "negative", "source"]
    together = asked.predict(latents, t, cameras, which)
    assert together.shape == (4, *latents.shape)
    for name, predicted in zip(which, together, strict=True):
        torch.testing.assert_close(
            asked.predict(latents, t, cameras, [name])[0], predicted, atol=1e-4, rtol=1e-4
        )
    assert all(float((together[0] - other).abs().max()) > 1e-3 for other in together[1:])
    assert asked.guidance_conditions(cameras) == ("negative", "cond")
    with pytest.raises(ValueError, match="no condition 'condd'; there are cond"):
        asked.predict(latents, t, cameras, ["condd"])


def test_views_that_are_alone_are_told_in_words_which_they_are(single: Backbone) -> None:
    asked = prior(single)
    assert asked.num_views == 1
    latents = torch.randn(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).expand(3, 1, 4, 8, 8)
    t = torch.full((3,), 500)
    made = asked.predict(latents, t, orbit([0.0, 90.0, 0.0], [0.0, 0.0, 5.0]), ["cond", "uncond"])
    assert float((made[0, 0] - made[0, 1]).abs().max()) > 1e-4, "front and side"
    torch.testing.assert_close(made[0, 0], made[0, 2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made[1, 0], made[1, 1], atol=1e-5, rtol=1e-5)


def test_a_multiview_backbone_can_be_asked_for_views_that_are_alone(backbone: Backbone) -> None:
    asked = prior(backbone, config=replace(CONFIG, joint_views=1))
    assert asked.num_views == 1
    assert asked.sample(orbit([0.0, 50.0, 70.0], 0.0), torch.Generator().manual_seed(0)).shape[0] == 3
    with pytest.raises(ValueError, match=r"joint_views is 3, but backbone .* 4 views"):
        prior(backbone, config=replace(CONFIG, joint_views=3))
    with pytest.raises(ValueError, match="perp_neg is for views that are alone"):
        prior(backbone, config=replace(CONFIG, perp_neg=True))


@pytest.mark.parametrize(
    ("azimuth", "positive", "negative"),
    [
        # r is 1 in front and beside, 0 just before the side and behind; a exp(-b r) + c by hand.
        (0.0, {"front": 1.0, "side": 0.0}, {"front": -0.0001, "side": -1.574}),
        (45.0, {"front": 0.5, "side": 0.5}, {"front": -0.689, "side": -0.689}),
        (-45.0, {"front": 0.5, "side": 0.5}, {"front": -0.689, "side": -0.689}),
        (90.0, {"side": 1.0, "back": 0.0}, {"side": -0.0005, "front": -1.574}),
        (135.0, {"side": 0.5, "back": 0.5}, {"side": -0.173, "front": -1.746}),
        (180.0, {"side": 0.0, "back": 1.0}, {"side": -0.394, "front": -1.967}),
    ],
)
def test_perp_neg_weights(azimuth: float, positive: dict[str, float], negative: dict[str, float]) -> None:
    words = view_words(azimuth)
    assert dict(words.positive) == pytest.approx(positive)
    assert dict(words.negative) == pytest.approx(negative, abs=6e-4)
    assert view_words(azimuth, overhead=True).negative == ()


def test_perp_neg_of_a_batch_is_that_of_each_view_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negatives = (
        torch.randn(3, 4, 2, 2, generator=generator),
        torch.randn(2, 3, 4, 2, 2, generator=generator),
    )
    weights = weights_of(
        [view_words(10.0), view_words(120.0), view_words(0.0, overhead=True)], torch.device("cpu")
    )
    whole = perp_neg_direction(positive, negatives, weights)
    for view in range(3):
        alone = perp_neg_direction(
            positive[view : view + 1], negatives[:, view : view + 1], weights[:, view : view + 1]
        )
        torch.testing.assert_close(whole[view : view + 1], alone)
    torch.testing.assert_close(whole[2], positive[2])
    # What is added has nothing of the positive direction.
    added = (whole - positive).flatten(1)
    assert float((added * positive.flatten(1)).sum(1).abs().max()) < 1e-4


def test_perp_neg_through_the_model(single: Backbone) -> None:
    asked = prior(single, config=replace(CONFIG, perp_neg=True))
    cameras, t = orbit([20.0, 160.0], 0.0), torch.tensor([500, 500])
    noisy = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = Scores(
        prior=asked, noisy=noisy, timestep=t, cameras=cameras, together=SDS().conditions(asked, cameras)
    )
    guided = scores.guided_prediction(7.5)
    plain = prior(single)
    simple = Scores(prior=plain, noisy=noisy, timestep=t, cameras=cameras).guided_prediction(7.5)
    assert guided.shape == noisy.shape
    assert float((guided - simple).abs().max()) > 1e-3
    # A negative prompt stands in for no words, as it does without Perp-Neg.
    request = Request(backbone=single, prompt="a red mushroom", negative_prompt="a blue cube")
    negative = replace(CONFIG, perp_neg=True).build(request)
    assert negative.guidance_conditions(cameras)[:2] == ("negative", "cond")
    other = Scores(prior=negative, noisy=noisy, timestep=t, cameras=cameras)
    assert float((guided - other.guided_prediction(7.5)).abs().max()) > 1e-3
    for one in ("negative", "uncond"):
        assert float((other.guided_prediction(0.0) - other.prediction(one)).abs().max() > 1e-6) == (
            one == "uncond"
        )


def given(
    backbone: Backbone, prompt: str = "a red mushroom", config: TextPriorConfig = CONFIG, **chosen: object
) -> Given:
    volume = VolumeConfig(resolutions=(12,), num_samples=16)
    about = {"prior": config, "representation": volume, **chosen}
    return Given(chosen=Chosen(**about), request=Request(backbone=backbone, prompt=prompt))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [SDS(), SDS(guidance_scale=1.0)])
def test_distillation_moves_the_volume_and_repeats_exactly(backbone: Backbone, loss: SDS) -> None:
    def run() -> State:
        stage = DistillConfig(num_steps=2, render_size=(16,)).build(given(backbone, distillation=loss))
        return optimize([stage], State(), generator=torch.Generator().manual_seed(0))

    first, again = run(), run()
    assert torch.equal(first["representation/grid"], again["representation/grid"])
    moved = (first["representation/grid"] - VolumeConfig(resolutions=(12,)).begin().grid).abs()
    assert float(moved[..., 0].max()) > 0.01
    assert float(moved[..., 1:].max()) > 0.01


def test_recipes_are_checked_against_what_was_chosen_and_loaded(backbone: Backbone) -> None:
    names = [
        stage.name
        for stage in build_stages(
            quickstart(), given(backbone, config=replace(CONFIG, sampling=SamplingConfig()))
        )
    ]
    assert names == ["reconstruct", "extract", "refine", "redraw", "texture"]
    without = {**quickstart(), "refine": RefineConfig(num_steps=0), "redraw": RedrawConfig(timestep=0)}
    plain = replace(CONFIG, sampling=SamplingConfig())
    assert [s.name for s in build_stages(without, given(backbone, config=plain))] == [
        "reconstruct",
        "extract",
        "texture",
    ]
    with pytest.raises(ValueError, match="prompt is empty"):
        build_stages(quickstart(), given(backbone, "  "))
    chosen = given(backbone).chosen
    with pytest.raises(
        ValueError, match=r"recipe.distill needs a loss; choose one, such as distillation=sds"
    ):
        check_recipe({"distill": DistillConfig()}, chosen)
    with pytest.raises(ValueError, match="no stage of the recipe uses distillation"):
        check_recipe(quickstart(), replace(chosen, distillation=SDS()))
    with pytest.raises(ValueError, match="no stage with something to do"):
        check_recipe({"refine": RefineConfig(num_steps=0)}, chosen)
    dense = replace(chosen, representation=VolumeConfig(density_scale=10.0))
    with pytest.raises(ValueError, match=r"recipe.extract: extract level must lie below half"):
        check_recipe(quickstart(), dense)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (ReconstructConfig(group_size=3), "group_size must be a multiple of the 4 views"),
        (ReconstructConfig(timesteps=(600, 20)), r"timesteps\[1\] does not go with the prior"),
        (RedrawConfig(num_views=3), "num_views must be a multiple of the 4 views"),
        (RedrawConfig(timestep=1), "redraw timestep does not go with the prior"),
        (DistillConfig(num_views=6), "num_views must be a multiple of the 4 views"),
        (
            DistillConfig(guidances={"one": Guidance(prior=TextPriorConfig(joint_views=2))}),
            "joint_views is 2, but backbone",
        ),
    ],
)
def test_a_backbone_s_facts_say_what_the_backbone_says(
    backbone: Backbone, stage: StageConfig, words: str
) -> None:
    loss: dict[str, Any] = {"distillation": SDS()} if "distillation" in stage.needs() else {}
    about = given(backbone, config=replace(CONFIG, sampling=SamplingConfig()), **loss)
    with pytest.raises(ValueError, match=rf"recipe.mine: .*{words}") as after:
        build_stages({"mine": stage}, about)
    with pytest.raises(ValueError, match="recipe") as before:
        check_backbone({"mine": stage}, about.chosen, backbone.facts)
    assert str(before.value) == str(after.value)


def test_stages_come_after_what_they_need() -> None:
    check_order(quickstart())
    check_order({"distill": DistillConfig(), "extract": ExtractConfig()})
    with pytest.raises(ValueError, match=r"recipe.refine needs views, which no stage before it leaves"):
        check_order({"distill": DistillConfig(), "extract": ExtractConfig(), "refine": RefineConfig()})
    with pytest.raises(
        ValueError, match=r"recipe.extract needs representation, .*; distill must come before it"
    ):
        check_order({"extract": ExtractConfig(), "distill": DistillConfig()})
    with pytest.raises(ValueError, match="makes a mesh"):
        check_order({"distill": DistillConfig()})


def test_a_model_took_part_where_a_guidance_asks_one() -> None:
    truth = Chosen(prior=TruthConfig(), representation=VolumeConfig(), distillation=SDS())
    assert not made_by_model(quickstart(), truth)
    assert made_by_model(quickstart(), replace(truth, prior=CONFIG))
    own = DistillConfig(guidances={"words": Guidance(prior=CONFIG)})
    assert made_by_model({"distill": own, "extract": ExtractConfig()}, truth)


@pytest.mark.parametrize("joint_views", [1, 4])
def test_a_long_prompt_does_not_push_the_clauses_out_of_what_is_read(joint_views: int) -> None:
    backbone = load("tiny")
    prompt = "a red mushroom on a yellow box, " * 12
    asked = prior(backbone, prompt, replace(CONFIG, joint_views=joint_views))
    for view in ("", ", overhead view") if joint_views == 1 else ("",):
        assert backbone.shorten(asked.prompt + view) == (asked.prompt + view, "")
    assert "on a light blue background" in asked.prompt or "on a pale" in asked.prompt
    assert asked.background is not None
    wordy = replace(CONFIG, background="very " * 40 + "grey")
    with pytest.raises(ValueError, match="leaves no room for the prompt in the 32 tokens"):
        prior(backbone, "a red mushroom", wordy)
    # What fits is told as it always was.
    assert prior(backbone).prompt == on_background("a red mushroom")


def test_a_folder_is_no_part_of_a_request(backbone: Backbone) -> None:
    assert isinstance(backbone.folder, Path)
    assert given(backbone).prior() is not given(backbone).prior()
    same = given(backbone)
    assert same.prior() is same.prior(replace(CONFIG))


CORGI, ALONE = "a smiling face of a corgi", replace(CONFIG, joint_views=1, background="")


@pytest.fixture(scope="module")
def roomy() -> Backbone:
    """Whose text encoder has room for all of a prompt and its clauses."""
    return load("tiny")


@pytest.mark.parametrize("perp_neg", [False, True])
def test_words_that_contradict_a_view_are_not_said_of_it(roomy: Backbone, perp_neg: bool) -> None:
    words = Contradictions(back=("smiling face of a",))
    told = prior(roomy, CORGI, replace(ALONE, contradictions=words, perp_neg=perp_neg, source_suffix=", red"))
    cameras = orbit([0.0, 180.0], 0.0)
    for name, suffix in (("cond", ""), ("source", ", red")):
        rows = told._conditioning(name, cameras).embeds
        said = [f"{CORGI}{suffix}, front view", f"a corgi{suffix}, back view"]
        for row, text in zip(rows, said, strict=True):
            torch.testing.assert_close(row, roomy.encode_prompt([text]).embeds[0])
    plain = prior(roomy, CORGI, replace(ALONE, perp_neg=perp_neg))._conditioning("cond", cameras).embeds
    assert torch.equal(plain[0], told._conditioning("cond", cameras).embeds[0])
    assert not torch.equal(plain[1], told._conditioning("cond", cameras).embeds[1])


def test_a_language_model_may_tell_what_contradicts_a_view(roomy: Backbone) -> None:
    asked: list[tuple[str, str]] = []

    def contradicts(prompt: str, view: str) -> list[str]:
        asked.append((prompt, view))
        return ["smiling"] if view != "front" else []

    told = TextPrior(ALONE, Request(backbone=roomy, prompt=CORGI), contradicts)
    rows = told._conditioning("cond", orbit([0.0, 90.0], 0.0)).embeds
    torch.testing.assert_close(rows[1], roomy.encode_prompt(["a face of a corgi, side view"]).embeds[0])
    assert asked == [(CORGI, "front"), (CORGI, "side")]


def test_a_background_is_asked_for_whatever_is_left_out(roomy: Backbone) -> None:
    config = replace(ALONE, background="auto", contradictions=Contradictions(back=("light",)))
    told = prior(roomy, "a red light", config)
    said = "a red, on a light blue background, back view"
    torch.testing.assert_close(
        told._conditioning("cond", orbit(180.0, 0.0)).embeds, roomy.encode_prompt([said]).embeds
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (Contradictions(back=("tail",)), "contradictions back: 'tail' is not in the prompt"),
        (Contradictions(side=(" ",)), "contradictions side: ' ' is not in the prompt"),
        (Contradictions(overhead=(CORGI,)), "contradictions overhead leave nothing of the prompt"),
    ],
)
def test_contradictions_are_words_of_the_prompt(roomy: Backbone, words: Contradictions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior(roomy, CORGI, replace(ALONE, contradictions=words))


def test_contradictions_are_for_views_that_are_alone(backbone: Backbone) -> None:
    words = replace(CONFIG, contradictions=Contradictions(back=("smiling",)))
    with pytest.raises(ValueError, match="prior contradictions is for views that are alone"):
        prior(backbone, CORGI, words)
    prior(backbone, CORGI, replace(words, joint_views=1))
