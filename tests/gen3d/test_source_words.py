"""Words beside the prompt: what losses ask for, what the text prior makes of it, and what nothing would follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffusion.backbone import Backbone, load, save_backbone
from gen3d.distillation.base import Loss
from gen3d.distillation.csd import CSD
from gen3d.distillation.dds import DDS
from gen3d.distillation.linear import Linear
from gen3d.distillation.nfsd import NFSD
from gen3d.distillation.sds import SDS
from gen3d.distillation.sds_bridge import SDSBridge
from gen3d.priors.base import Request
from gen3d.priors.config import TextPriorConfig
from gen3d.priors.text import TextPrior
from gen3d.prompts import Said, say, say_source
from gen3d.recipe import check_recipe
from gen3d.representations.config import VolumeConfig
from gen3d.stages.base import Chosen, StageConfig
from gen3d.stages.config import DistillConfig, Guidance, ReconstructConfig
from tests.diffusion.models import make_parts

PLAIN = TextPriorConfig()
TOLD = TextPriorConfig(source_prompt="a blue cup")
SUFFIXED = TextPriorConfig(source_suffix=", blurry")


def check(
    loss: Loss | None, prior: TextPriorConfig = PLAIN, negative_prompt: str = "", **stages: StageConfig
) -> None:
    recipe = stages or {"distill": DistillConfig()}
    chosen = Chosen(
        prior=prior, representation=VolumeConfig(), distillation=loss, negative_prompt=negative_prompt
    )
    check_recipe(recipe, chosen)


@pytest.mark.parametrize("loss", [CSD(), NFSD(), Linear(negative=-1.0)])
def test_a_loss_that_is_steered_by_a_negative_prompt_is_refused_without_one(loss: Loss) -> None:
    with pytest.raises(ValueError, match="is steered by a negative_prompt; give one"):
        check(loss)
    check(loss, negative_prompt="blurry")


@pytest.mark.parametrize("loss", [Linear(), CSD(negative=0.0, uncond=-1.0), NFSD(low_noise=1.0), SDSBridge()])
def test_a_negative_prompt_that_nothing_looks_at_is_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="negative_prompt has no effect, for distillation"):
        check(loss, negative_prompt="blurry")
    check(loss)
    # Where views are sampled too, those are steered by it.
    check(loss, negative_prompt="blurry", reconstruct=ReconstructConfig(), distill=DistillConfig())
    check(SDS(), negative_prompt="blurry")
    check(DDS(), negative_prompt="blurry")


@pytest.mark.parametrize("prior", [TOLD, SUFFIXED])
def test_source_words_that_no_loss_asks_for_are_refused(prior: TextPriorConfig) -> None:
    for loss in (SDS(), Linear(), CSD(negative=0.0, uncond=-1.0)):
        with pytest.raises(ValueError, match=r"prior source_\w+ is .* no loss of the recipe asks for source"):
            check(loss, prior)
    for loss in (SDSBridge(), DDS()):
        check(loss, prior)
    with pytest.raises(ValueError, match=r"leave it at ('', |, oversaturated)"):
        check(None, prior, reconstruct=ReconstructConfig())


def test_each_guidance_has_source_words_of_its_own() -> None:
    def two(first: Guidance, second: Guidance) -> DistillConfig:
        return DistillConfig(guidances={"first": first, "second": second})

    check(SDS(), distill=two(Guidance(), Guidance(prior=TOLD, loss=DDS())))
    with pytest.raises(ValueError, match="no loss of the recipe asks"):
        check(SDS(), distill=two(Guidance(prior=TOLD), Guidance(loss=DDS())))


def test_settings_that_would_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="source_suffix is , bad, which has no effect while source_prompt"):
        TextPriorConfig(source_prompt="a cup", source_suffix=", bad")
    with pytest.raises(ValueError, match="source_prompt shows nothing"):
        TextPriorConfig(source_prompt=" ")
    with pytest.raises(ValueError, match="source_suffix shows nothing"):
        TextPriorConfig(source_suffix="")


def fit(room: int):
    """Shortens to `room` characters."""

    def shorten(prompt: str, suffix: str) -> tuple[str, str]:
        kept = prompt[: max(0, room - len(suffix))]
        return kept, prompt[len(kept) :]

    return shorten


def test_the_source_is_seen_on_the_same_background() -> None:
    said = say("a red cup", fit(200), num_views=4)
    assert said.clause == ", on a light blue background"
    words = say_source("a blue cup", "", said, fit(200), num_views=4)
    assert words == Said(
        text="a blue cup, on a light blue background", left_out="", clause=", on a light blue background"
    )
    own = say_source("a cup before a grey background", "", said, fit(200), num_views=4)
    assert own.text == "a cup before a grey background"
    suffixed = say_source("", ", blurry", said, fit(200))
    assert suffixed == replace(said, text="a red cup, on a light blue background, blurry")
    cut = say_source("", ", blurry, hazy, foggy", said, fit(47 + len(", overhead view")))
    assert cut == suffixed, "by whole words in truth, here by characters"
    assert say_source("", ", blurry", said, fit(37), num_views=4).left_out == ", blurry"
    assert say_source("a blue cup of tea", "", said, fit(40), num_views=4).left_out == "f tea"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path: Path = tmp_path_factory.mktemp("model")
    save_backbone(path, **make_parts(), num_views=4, image_size=64)
    return load(path)


def test_source_words_must_have_room(backbone: Backbone) -> None:
    def made(config: TextPriorConfig, prompt: str = "a red cup") -> TextPrior:
        return config.build(Request(backbone=backbone, prompt=prompt))

    made(TOLD).check_source()
    with pytest.raises(ValueError, match=r"prior source_prompt is longer than the \d+ tokens"):
        made(replace(PLAIN, source_prompt="a cup of tea " * 60))
    assert made(replace(PLAIN, source_suffix=", blurry" * 100)).said.left_out == ""
    made(replace(PLAIN, source_suffix=", blurry" * 100)).check_source()
    crowded = made(PLAIN, "a cup of tea " * 60)
    with pytest.raises(ValueError, match="the prompt leaves no room for source_suffix"):
        crowded.check_source()
