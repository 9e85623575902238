"""Dropping and joining conditions, and guidance made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avatar.conditions import Conditions, dropout_rows
from avatar.guidance import predict_guided
from avatar.model import TalkingModel
from diffusion.guidance import cfg
from tests.avatar.talking import clips, make_conditions, make_model


@pytest.fixture(scope="module")
def model() -> TalkingModel:
    return make_model()


@torch.no_grad()
def test_dropped_rows_are_as_if_never_given(model: TalkingModel) -> None:
    conditions, latents = make_conditions(model), clips()
    dropped = conditions.drop(reference=[True, False], audio=[False, True])
    out = model(latents, 300, dropped)
    first = replace(make_conditions(model), reference=None, identity=None, location=None)
    torch.testing.assert_close(out[0], model(latents, 300, first)[0], rtol=0, atol=1e-5)
    second = replace(make_conditions(model), audio=None)
    torch.testing.assert_close(out[1], model(latents, 300, second)[1], rtol=0, atol=1e-5)
    assert torch.equal(model(latents, 300, conditions.drop()), model(latents, 300, conditions))
    with pytest.raises(ValueError, match="there are 2 clips, but 3 flags"):
        conditions.drop(audio=[True] * 3)


def test_dropping_what_is_absent_is_nothing() -> None:
    dropped = Conditions().drop(reference=True, audio=True)
    assert dropped.reference is None
    assert dropped.audio is None


def test_zeros_replace_even_what_is_not_finite() -> None:
    audio = torch.full((2, 1, 1, 4), torch.inf)
    kept = Conditions(audio=audio).drop(audio=[True, False]).audio
    assert kept is not None
    assert kept[0].abs().sum() == 0
    assert kept[1].isinf().all()


def test_joining_needs_the_same_parts(model: TalkingModel) -> None:
    conditions = make_conditions(model)
    with pytest.raises(ValueError, match="audio must be given in all conditions or in none"):
        Conditions.cat([conditions, replace(conditions, audio=None)])
    with pytest.raises(ValueError, match="weights must be the same"):
        Conditions.cat(
            [replace(conditions, weights=(1.0, 1.0, 1.0)), replace(conditions, weights=(0.0, 1.0, 1.0))]
        )
    both = Conditions.cat([conditions, conditions])
    assert both.masks is not None
    assert both.masks[8, 8].shape == (4, 1, 3, 64)


def test_dropout_is_drawn_from_the_generator() -> None:
    rows = dropout_rows(4000, 0.1, torch.Generator().manual_seed(0))
    assert sum(rows) == pytest.approx(400, abs=60)
    assert rows == dropout_rows(4000, 0.1, torch.Generator().manual_seed(0))
    assert not any(dropout_rows(100, 0.0, torch.Generator()))
    assert all(dropout_rows(100, 1.0, torch.Generator()))
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1.5"):
        dropout_rows(2, 1.5, torch.Generator())


@torch.no_grad()
def test_guidance_is_its_formula(model: TalkingModel) -> None:
    conditions, latents = make_conditions(model), clips()
    full = model(latents, 300, conditions)
    ref = model(latents, 300, conditions.drop(audio=True))
    u = model(latents, 300, conditions.drop(reference=True, audio=True))
    expected = u + 2.0 * (ref - u) + 3.0 * (full - ref)
    for batched in (False, True):
        got = predict_guided(
            model, latents, 300, conditions, reference_scale=2.0, audio_scale=3.0, batched=batched
        )
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    joint = predict_guided(model, latents, 300, conditions, reference_scale=3.5, audio_scale=3.5)
    torch.testing.assert_close(joint, cfg(u, full, 3.5), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("reference_scale", "audio_scale", "passes"),
    [(1.0, 1.0, 1), (3.5, 3.5, 2), (1.0, 2.5, 2), (2.0, 1.0, 3), (2.0, 3.0, 3), (1.0, 0.0, 1), (0.0, 0.0, 1)],
)
def test_void_branches_are_not_computed(
    model: TalkingModel, reference_scale: float, audio_scale: float, passes: int
) -> None:
    conditions = make_conditions(model)
    rows: list[int] = []
    handle = model.unet.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))
    try:
        for batched in (False, True):
            predict_guided(
                model,
                clips(),
                torch.tensor([300, 20]),
                conditions,
                reference_scale=reference_scale,
                audio_scale=audio_scale,
                batched=batched,
            )
    finally:
        handle.remove()
    assert rows == [6] * passes + [6 * passes]
