"""Stages that ask a diffusion backbone, with a small random one that comes through the public door."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.backbone import Backbone, load, save_backbone
from gen3d.cameras import Cameras, orbit
from gen3d.distillation.config import AnnealingConfig
from gen3d.optimize import State, optimize
from gen3d.pipeline import quickstart_stages
from gen3d.prompts import on_background, view_prompts
from gen3d.representations.config import VolumeConfig
from gen3d.stages.config import (
    DistillConfig,
    MultiviewConfig,
    QuickstartConfig,
    RedrawConfig,
    RefineConfig,
    SamplingConfig,
)
from gen3d.stages.fit import load_volume, save_volume
from gen3d.stages.multiview import BackboneViews
from tests.diffusion.models import make_parts

SAMPLING = SamplingConfig(num_steps=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = tmp_path_factory.mktemp("model")
    save_backbone(path, **make_parts(), num_views=4, image_size=64)
    return load(path)


def test_views_of_two_groups_depend_on_the_generator_alone(backbone: Backbone) -> None:
    provider = BackboneViews(backbone, "a red mushroom", SAMPLING)
    cameras = orbit([0, 90, 180, 270, 45, 135, 225, 315], 10)
    first, again = (provider(cameras, None, None, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (8, 3, 64, 64)
    assert torch.equal(first, again)
    improved = provider(cameras, first, 500, torch.Generator().manual_seed(1))
    assert improved.shape == first.shape
    assert not torch.equal(improved, first)
    with pytest.raises(ValueError, match="4 views at once, got 3"):
        provider(cameras[:3], None, None, torch.Generator())


def test_views_of_one_set_see_each_other_and_sets_do_not(backbone: Backbone) -> None:
    first = [0.0, 90.0, 180.0, 270.0]
    here, there = (orbit([*first, *(turn + angle for angle in first)], 10) for turn in (45.0, 20.0))

    def views(joint_views: int, cameras: Cameras) -> Tensor:
        provider = BackboneViews(backbone, "a cat", replace(SAMPLING, joint_views=joint_views))
        return provider(cameras, None, None, torch.Generator().manual_seed(0))[:4]

    torch.testing.assert_close(views(4, here), views(4, there), atol=1e-5, rtol=0)
    assert float((views(8, here) - views(8, there)).abs().max()) > 1e-3
    # Four views cannot fill a set of eight.
    torch.testing.assert_close(views(8, here[:4]), views(4, here[:4]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", ["x0", "sds"])
def test_distillation_moves_the_volume_and_repeats_exactly(backbone: Backbone, loss: str) -> None:
    config = DistillConfig(
        num_steps=2,
        loss=loss,  # type: ignore[arg-type]
        render_size=16,
        num_samples=16,
        annealing=AnnealingConfig(min_start=0.3, max_start=0.6, min_end=0.3, max_end=0.5),
    )

    def run() -> State:
        state = State({"views/backgrounds": torch.full((1, 3), 0.5)})
        save_volume(state, VolumeConfig(resolution=12).build())
        stage = config.build(backbone, "a red mushroom")
        return optimize([stage], state, generator=torch.Generator().manual_seed(0))

    first, again = run(), run()
    assert torch.equal(first["volume/grid"], again["volume/grid"])
    moved = (load_volume(first).grid.detach() - VolumeConfig(resolution=12).build().grid).abs()
    assert float(moved[..., 0].max()) > 0.01
    assert float(moved[..., 1:].max()) > 0.01


def test_quickstart_lists_its_stages_and_checks_the_backbone(backbone: Backbone) -> None:
    views = MultiviewConfig(render_size=64)
    config = QuickstartConfig(multiview=views, distill=DistillConfig(num_steps=3))
    names = [stage.name for stage in quickstart_stages(config, backbone, "a cat")]
    assert names == ["reconstruct", "distill", "extract", "refine", "redraw", "texture"]
    without = QuickstartConfig(multiview=views, refine=RefineConfig(num_steps=0))
    assert [s.name for s in quickstart_stages(without, backbone, "a cat")] == [
        "reconstruct",
        "extract",
        "redraw",
        "texture",
    ]
    with pytest.raises(ValueError, match="image size 64, got 128"):
        quickstart_stages(QuickstartConfig(), backbone, "a cat")
    with pytest.raises(ValueError, match="prompt is empty"):
        quickstart_stages(config, backbone, "  ")
    odd = QuickstartConfig(multiview=MultiviewConfig(render_size=64, group_size=3))
    with pytest.raises(ValueError, match="group_size must be a multiple of the backbone's 4"):
        quickstart_stages(odd, backbone, "a cat")
    uneven = QuickstartConfig(multiview=views, redraw=RedrawConfig(num_views=3))
    with pytest.raises(
        ValueError, match=r"redraw.num_views must be a multiple of the backbone's 4 views, got 3"
    ):
        quickstart_stages(uneven, backbone, "a cat")
    left_out = QuickstartConfig(multiview=views, redraw=RedrawConfig(num_views=3, timestep=0))
    assert "redraw" not in [stage.name for stage in quickstart_stages(left_out, backbone, "a cat")]
    with pytest.raises(ValueError, match="num_views must be a multiple"):
        DistillConfig(num_views=6).build(backbone, "a cat")


@pytest.mark.parametrize("num_views", [1, 4])
def test_a_long_prompt_does_not_push_the_clauses_out_of_what_is_read(num_views: int) -> None:
    backbone = load("tiny")
    backbone.num_views = num_views  # the words for 1 are those that Stable Diffusion gets
    prompt = "a red mushroom on a yellow box, " * 12
    provider = BackboneViews(backbone, prompt, SAMPLING)
    for text in view_prompts(provider.prompt, [0, 90, 180, 0], [0, 0, 0, 80], num_views):
        assert backbone.shorten(text) == (text, "")
        assert "on a light blue background" in text or "on a pale" in text
        assert num_views > 1 or text.endswith(" view")
    wordy = QuickstartConfig(sampling=SamplingConfig(background="very " * 40 + "grey"))
    with pytest.raises(ValueError, match="leaves no room for the prompt in the 32 tokens"):
        quickstart_stages(wordy, load("tiny"), "a red mushroom")
    # What fits is told as it always was.
    assert BackboneViews(backbone, "a red mushroom", SAMPLING).prompt == on_background("a red mushroom")
