"""Which parameters train in which lesson, and that gradients go there and nowhere else."""

from __future__ import annotations

import pytest
import torch

from avatar.lessons.base import Lesson
from avatar.lessons.config import Image, Motion, Video
from avatar.trainable import GROUPS, parameter_groups, set_trainable
from tests.avatar.talking import clips, make_conditions, make_model

LESSONS = (Image(), Video(), Motion())
COPIES = {"reference_net": "copy", "tune_unet": "all"}


def test_groups_hold_every_parameter_once() -> None:
    model = make_model(**COPIES)
    groups = parameter_groups(model)
    names = [name for group in groups.values() for name in group]
    assert len(names) == len(set(names))
    left = {name for name, _ in model.named_parameters()} - set(names)
    block = "reference_net.up_blocks.1.attentions.1."
    ends = (block, "reference_net.conv_norm_out", "reference_net.conv_out")
    assert left
    assert all(name.startswith(ends) for name in left)
    assert not any("norm1" in name for name in left)
    assert all(groups[group] for group in GROUPS)


def test_a_shared_unet_never_trains() -> None:
    model = make_model()
    assert not parameter_groups(model)["unet"]
    chosen = set_trainable(model, Image().groups())
    assert not any(name.startswith("unet.") for name in chosen)
    assert {name.split(".")[0] for name in chosen} == {"reference_projection", "identity", "locator"}


def test_attention_layers_train_alone() -> None:
    model = make_model(tune_unet="attention")
    names = set(parameter_groups(model)["unet"])
    assert names == {f"unet.{name}" for name, _ in model.unet.named_parameters() if ".attentions." in name}
    assert 0 < len(names) < len(list(model.unet.parameters()))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("lesson", LESSONS)
def test_gradients_reach_the_parameters_of_the_lesson_and_no_others(lesson: Lesson, copies: bool) -> None:
    model = make_model(**(COPIES if copies else {}))
    chosen = set_trainable(model, lesson.groups())
    out = model(clips(), 300, make_conditions(model), still=lesson.still)
    out.square().mean().backward()
    with_grad = {
        name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert with_grad == set(chosen)


def test_the_lessons_of_emo() -> None:
    model = make_model(**COPIES)
    tops = {
        lesson.name: {name.split(".")[0] for name in set_trainable(model, lesson.groups())}
        for lesson in LESSONS
    }
    assert tops["image"] == {"unet", "reference_net", "reference_projection", "identity", "locator"}
    assert tops["video"] == {"audio", "audio_projection", "motion"}
    assert tops["motion"] == {"motion", "speed", "blink"}
    assert not any(".speed." in name for name in set_trainable(model, Video().groups()))
    assert any(".speed." in name for name in set_trainable(model, Motion().groups()))
    assert set(Video().groups()) - set(Video(freeze_sound=True).groups()) == {"sound"}
    both = set_trainable(model, ("audio", "unet"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(both)
    with pytest.raises(ValueError, match="there is no group 'lips'; the groups are unet, reference"):
        set_trainable(model, ("lips",))


def test_conditions_made_without_gradient_stay_without() -> None:
    model = make_model()
    set_trainable(model, Motion().groups())
    conditions = make_conditions(model)
    assert conditions.audio is not None
    assert not conditions.audio.requires_grad
    assert conditions.reference is not None
    assert not any(value.requires_grad for value in conditions.reference.tokens.values())
    assert torch.is_grad_enabled()
