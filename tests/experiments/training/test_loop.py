"""The training loop: exact resume, and weights that end up in a model folder which loads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffusion.backbone import load
from experiments.training.loop import LoopConfig

SMALL = (
    "budget=smoke", "data.num_scenes=3", "data.scenes_per_shard=3", "held_out_scenes=2", "workers=1", "threads=1",
    "loop.batch_size=2", "checkpoint_every=2", "channels=[32,32]",
)  # fmt: skip


def _train(galatea: Callable[..., Any], part: str, out: str, *more: str) -> Any:
    return galatea(
        f"experiment=train/tiny_{part}", f"out={out}", "model=tiny", "data_folder=data", *SMALL, *more
    )


@pytest.mark.slow
def test_three_recipes_make_a_model_that_loads(galatea: Callable[..., Any], tmp_path: Path) -> None:
    for part in ("clip", "vae", "multiview"):
        outcome = _train(galatea, part, f"run_{part}")
        assert outcome.status == 0, outcome.err
    backbone = load(tmp_path / "tiny")
    assert backbone.num_views == 4
    assert backbone.has_camera
    views = backbone.decode(torch.zeros(1, 4, 4, 16, 16))
    assert views.shape == (1, 4, 3, 128, 128)
    # The tokenizer's limit and the towers' width are those the UNet reads.
    assert backbone.encode_prompt(["a red mushroom"]).embeds.shape == (1, 32, 128)


@pytest.mark.slow
def test_an_interrupted_training_ends_in_the_same_weights(
    galatea: Callable[..., Any], tmp_path: Path
) -> None:
    assert _train(galatea, "vae", "whole").status == 0
    whole = load_file(tmp_path / "tiny/vae/diffusion_pytorch_model.safetensors")
    assert _train(galatea, "vae", "broken").status == 0
    # As if killed after the checkpoint of step 2: nothing that came later is there.
    folder = tmp_path / "broken"
    for name in ("report.json", "report.html", "provenance.json"):
        (folder / name).unlink(missing_ok=True)
    import shutil

    shutil.rmtree(folder / "checkpoints" / "step_00000004")
    assert _train(galatea, "vae", "broken").status == 0
    again = load_file(tmp_path / "tiny/vae/diffusion_pytorch_model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_rate_rises_and_falls() -> None:
    config = LoopConfig(steps=100, batch_size=1, learning_rate=1.0, warmup=10)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) > 0.9
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("key", "value"), [("steps", 0), ("batch_size", 0), ("learning_rate", 0.0), ("ema_decay", 1.0)]
)
def test_settings_that_cannot_be(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        LoopConfig(**{"steps": 1, "batch_size": 1, "learning_rate": 0.1, key: value})  # type: ignore[arg-type]
