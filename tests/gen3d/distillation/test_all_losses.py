"""What holds for every shipped loss: found by its module, run by the stage, with narrow weights too."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import pytest
import torch

import gen3d.distillation
from diffusion.backbone import Backbone, load
from gen3d.distillation.base import Loss
from gen3d.distillation.x0 import X0
from gen3d.optimize import optimize
from gen3d.priors.base import Request
from gen3d.priors.config import TextPriorConfig
from gen3d.representations.config import VolumeConfig
from gen3d.rewards.clip import Clip
from gen3d.stages.base import Chosen, Given
from gen3d.stages.config import DistillConfig
from gen3d.state import State


def _losses() -> dict[str, Loss]:
    """Every loss by its name, with its defaults; what it holds is x0 and CLIP."""
    found: dict[str, Loss] = {}
    for each in pkgutil.iter_modules(gen3d.distillation.__path__):
        for cls in vars(importlib.import_module(f"gen3d.distillation.{each.name}")).values():
            if isinstance(cls, type) and issubclass(cls, Loss) and getattr(cls, "name", None) == each.name:
                named = {field.name for field in dataclasses.fields(cls)}
                held: dict[str, Any] = {"loss": X0(), "reward": Clip()}
                if "reward" in named:
                    held["num_steps"] = 1  # of fifteen, to be quick
                found[each.name] = cls(**{name: value for name, value in held.items() if name in named})
    return found


LOSSES = _losses()


@pytest.fixture(scope="module")
def narrow() -> Backbone:
    return load("tiny", dtype=torch.bfloat16)


def test_all_are_found() -> None:
    assert {
        "sds",
        "sjc",
        "x0",
        "vsd",
        "hifa",
        "rfds",
        "rfds_rev",
        "bsd",
        "reward_sds",
        "dream_dpo",
    } <= LOSSES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_half_precision_give_steps_of_full(name: str, narrow: Backbone) -> None:
    prior = TextPriorConfig(background="", joint_views=4)
    chosen = Chosen(
        prior=prior,
        representation=VolumeConfig(resolutions=(8,), num_samples=8),
        distillation=LOSSES[name],
        negative_prompt="blurry",
    )
    request = Request(backbone=narrow, prompt="a red mushroom", negative_prompt="blurry")
    stage = DistillConfig(num_steps=1, num_views=4, render_size=(16,)).build(
        Given(chosen=chosen, request=request)
    )
    metrics: dict[str, float] = {}
    state = optimize(
        [stage],
        State(),
        generator=torch.Generator().manual_seed(0),
        on_step=lambda progress: metrics.update(progress.metrics),
    )
    assert metrics["guidance"] > 0
    floating = [each for each in state.values() if each.is_floating_point()]
    assert {each.dtype for each in floating} == {torch.float32}
