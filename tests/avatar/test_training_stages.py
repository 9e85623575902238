"""Which parameters train in which stage, and that gradients go there and nowhere else."""

from __future__ import annotations

import pytest
import torch

from avatar.training_stages import GROUPS, STAGES, groups_of, parameter_groups, set_trainable
from tests.avatar.talking import clips, make_conditions, make_model

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
    chosen = set_trainable(model, STAGES["image"])
    assert not any(name.startswith("unet.") for name in chosen)
    assert {name.split(".")[0] for name in chosen} == {"reference_projection", "identity", "locator"}


def test_attention_layers_train_alone() -> None:
    model = make_model(tune_unet="attention")
    names = set(parameter_groups(model)["unet"])
    assert names == {f"unet.{name}" for name, _ in model.unet.named_parameters() if ".attentions." in name}
    assert 0 < len(names) < len(list(model.unet.parameters()))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("stage", list(STAGES))
def test_gradients_reach_the_parameters_of_the_stage_and_no_others(stage: str, copies: bool) -> None:
    model = make_model(**(COPIES if copies else {}))
    chosen = set_trainable(model, STAGES[stage])
    out = model(clips(), 300, make_conditions(model), still=stage == "image")
    out.square().mean().backward()
    with_grad = {
        name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert with_grad == set(chosen)


def test_the_stages_of_emo() -> None:
    model = make_model(**COPIES)
    tops = {
        stage: {name.split(".")[0] for name in set_trainable(model, groups)}
        for stage, groups in STAGES.items()
    }
    assert tops["image"] == {"unet", "reference_net", "reference_projection", "identity", "locator"}
    assert tops["video"] == {"audio", "audio_projection", "motion"}
    assert tops["motion"] == {"motion", "speed", "blink"}
    assert not any(".speed." in name for name in set_trainable(model, STAGES["video"]))
    assert any(".speed." in name for name in set_trainable(model, STAGES["motion"]))
    assert set(groups_of("video")) - set(groups_of("video", freeze_sound=True)) == {"sound"}
    assert groups_of("motion", freeze_sound=True) == STAGES["motion"]
    both = set_trainable(model, ("audio", "unet"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(both)
    with pytest.raises(ValueError, match="there is no group 'lips'; the groups are unet, reference"):
        set_trainable(model, ("lips",))


def test_conditions_made_without_gradient_stay_without() -> None:
    model = make_model()
    set_trainable(model, STAGES["motion"])
    conditions = make_conditions(model)
    assert conditions.audio is not None
    assert not conditions.audio.requires_grad
    assert conditions.reference is not None
    assert not any(value.requires_grad for value in conditions.reference.tokens.values())
    assert torch.is_grad_enabled()
