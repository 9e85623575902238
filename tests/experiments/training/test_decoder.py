"""Training the decoder alone: what learns and what stays, when the critic has a say, exact resume, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.backbone import load
from diffusion.registry import find
from experiments.training.config import DecoderConfig
from experiments.training.decoder import DecoderRecipe, Pictures
from experiments.training.optimizers import Optimizers
from video.pixels import from_uint8

VAE = "vae/diffusion_pytorch_model.safetensors"
FROZEN = ("encoder.", "quant_conv.")
SMALL = ("experiment=train/tiny_decoder", "budget=smoke", "threads=1", "workers=1", "checkpoint_every=2")


def recipe(**settings: Any) -> DecoderRecipe:
    """Of tiny's VAE, on squares of one colour on another."""
    backbone = load("tiny")
    images = torch.full((4, 3, 64, 64), 200, dtype=torch.uint8)
    for row in range(4):
        images[row, row % 3, 16 + row : 40, 20:50] = 30
    with torch.no_grad():
        latents = backbone.encode(from_uint8(images))
    torch.manual_seed(0)
    pictures = Pictures(images=images, latents=latents)
    return DecoderRecipe(
        backbone.vae, [pictures], {"squares": pictures}, DecoderConfig(**settings), torch.device("cpu")
    )


def test_the_decoder_learns_and_the_encoder_stays() -> None:
    one = recipe(critic_weight=0.0)
    assert one.critic is None
    before = {name: value.clone() for name, value in one.vae.state_dict().items()}
    first = one.validate()
    weights = {name: p for name, p in one.modules.named_parameters() if p.requires_grad}
    optimizer = Optimizers(weights, muon_scale=None, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(15):
        for p in weights.values():
            p.grad = None
        one.loss(2, generator)[0].backward()
        optimizer.step(1e-4)
    after, last = one.vae.state_dict(), one.validate()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith(FROZEN), name
    assert last["psnr_squares_db"] > first["psnr_squares_db"] + 0.5
    assert last.keys() == {"psnr_squares_db", "sharpness_squares"}


def test_the_critic_has_a_say_from_its_step_on() -> None:
    one = recipe(critic_from=5)

    def slopes(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        one.begin(step)
        one.modules.zero_grad()
        one.loss(2, torch.Generator().manual_seed(0))[0].backward()
        assert one.critic is not None
        found = one.vae.decoder.conv_out.weight.grad, one.critic.layers[0].weight.grad
        return found[0].clone(), found[1].clone()

    (early, critic_early), (late, critic_late) = slopes(4), slopes(5)
    assert not torch.allclose(early, late)
    # It learns alike before and after, and what it says of a picture teaches the decoder only.
    assert float(critic_early.abs().max()) > 0
    assert torch.equal(critic_early, critic_late)


@pytest.mark.slow
def test_only_the_decoder_changes_and_a_continued_run_ends_in_the_same_bytes(
    galatea: Callable[..., Any], tmp_path: Path
) -> None:
    folder = find("tiny").folder
    assert folder is not None
    outcome = galatea(*SMALL, "data_folder=data", "out=whole", "model=model")
    assert outcome.status == 0, outcome.err
    written = tmp_path / "model" / VAE
    old, new = load_file(folder / VAE), load_file(written)
    assert old.keys() == new.keys()
    for name, value in old.items():
        same = value.dtype == new[name].dtype and torch.equal(value, new[name])
        assert same or not name.startswith(FROZEN), name
    assert not torch.equal(old["decoder.conv_out.weight"], new["decoder.conv_out.weight"])
    # All else is a copy, the talking portrait included.
    for file in ("unet/diffusion_pytorch_model.safetensors", "talking/model.safetensors"):
        assert (folder / file).read_bytes() == (tmp_path / "model" / file).read_bytes()
    held_out = json.loads((tmp_path / "whole/report.json").read_text())["metrics"]["held_out"]
    kinds = ("portraits", "closeups", "scenes", "made_views", "made_frames")
    assert held_out.keys() == {f"psnr_{kind}_db" for kind in kinds} | {f"sharpness_{kind}" for kind in kinds}

    # As if killed after the checkpoint of step 2, from which on the critic has its say.
    broken, before, whole = tmp_path / "broken", written.stat(), written.read_bytes()
    shutil.copytree(tmp_path / "whole", broken)
    for name in ("report.json", "report.html", "provenance.json"):
        (broken / name).unlink(missing_ok=True)
    shutil.rmtree(broken / "checkpoints" / "step_00000004")
    assert galatea(*SMALL, "data_folder=data", "out=broken", "model=model").status == 0
    assert written.stat().st_mtime_ns > before.st_mtime_ns
    assert written.read_bytes() == whole
    state = load_file(tmp_path / "broken/checkpoints/step_00000004/state.safetensors")
    assert any(name.startswith("weights.critic.") for name in state)
    assert any(name.startswith("optimizer.critic.") for name in state)

    # A folder whose UNet knows other latents is not touched.
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "model", other)
    save_file({**new, "quant_conv.weight": new["quant_conv.weight"] + 1}, other / VAE)
    bytes_before = (other / VAE).read_bytes()
    outcome = galatea(*SMALL, "data_folder=data", "out=refused", "model=other")
    assert outcome.status == 2
    assert "the latents of other are others than those of backbone 'tiny'" in outcome.err[-1]
    assert (other / VAE).read_bytes() == bytes_before


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("decoder.pyramid_weight=-1", "decoder pyramid_weight must lie in 0..1000, got -1"),
        ("decoder.critic_weight=nan", "decoder.critic_weight is nan; it must be a finite number"),
        ("decoder.critic_from=-3", "decoder critic_from must not be negative, got -3"),
        ("decoder.made_share=1", "decoder made_share must lie in [0, 1), got 1"),
        ("decoder.portrait_share=1.5", "decoder portrait_share must lie in [0, 1), got 1.5"),
        ("decoder.closeups=0", "decoder closeups must be at least 1, got 0"),
        ("decoder.fovy_deg=[30,20]", "decoder.fovy_deg must rise, got 30 ... 20"),
        ("decoder.fovy_deg=[0.5,20]", "decoder.fovy_deg must lie in 1..170 degrees, got 0.5"),
        ("held_out_clips=0", "held_out_clips must be at least 1, got 0"),
        ("data.held_out=true", "data.held_out is true"),
        ("people.held_out=true", "people.held_out is true"),
        ("people.size=64", "data.size is 128 and people.size 64; they must be the same"),
    ],
)
def test_what_is_refused(galatea: Callable[..., Any], tmp_path: Path, setting: str, words: str) -> None:
    outcome = galatea(*SMALL, setting, "out=run", "model=model")
    assert outcome.status == 2
    assert words in outcome.err[-1]
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "model").exists()
