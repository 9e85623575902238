"""The training loop: exact resume, and weights that end up in a model folder which loads."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.backbone import load
from diffusion.errors import BackboneError
from experiments.training.config import LoopConfig
from experiments.training.cuda_graphs import CudaGraphs
from experiments.training.loop import processes_of, train
from experiments.training.optimizers import KernelMuon, Optimizers
from experiments.training.parallel import Group, group, is_further_process
from gen3d.cameras import ring

SMALL = (
    "budget=smoke", "data.num_scenes=3", "data.scenes_per_shard=3", "held_out_scenes=2", "workers=1", "threads=1",
    "loop.batch_size=2", "checkpoint_every=2",
)  # fmt: skip


def _train(galatea: Callable[..., Any], part: str, out: str, *more: str) -> Any:
    narrow = part == "multiview" and not any(one.startswith("channels=") for one in more)
    return galatea(
        f"experiment=train/tiny_{part}",
        f"out={out}",
        "model=tiny",
        "data_folder=data",
        *SMALL,
        *(("channels=[32,32]",) if narrow else ()),
        *more,
    )


@pytest.mark.slow
def test_three_recipes_make_a_model_that_loads(galatea: Callable[..., Any], tmp_path: Path) -> None:
    for part in ("clip", "vae", "multiview"):
        outcome = _train(galatea, part, f"run_{part}")
        assert outcome.status == 0, outcome.err
    backbone = load(tmp_path / "tiny")
    assert backbone.num_views == 4
    assert backbone.has_camera
    views = backbone.decode(torch.zeros(1, 4, backbone.latent_channels, 16, 16))
    assert views.shape == (1, 4, 3, 128, 128)
    # The tokenizer's limit and the towers' width are those the UNet reads.
    assert backbone.encode_prompt(["a red mushroom"]).embeds.shape == (1, 32, 128)


@pytest.mark.slow
def test_a_new_model_has_its_other_parts_from_what_it_continues(
    galatea: Callable[..., Any], tmp_path: Path
) -> None:
    outcome = galatea(
        "experiment=train/tiny_clip", "out=run", "model=new", "continue_from=tiny", "data_folder=data", *SMALL
    )
    assert outcome.status == 0, outcome.err
    old, new = load("tiny"), load(tmp_path / "new")
    assert new.tokenizer.get_vocab() == old.tokenizer.get_vocab()
    assert (new.num_views, new.image_size) == (old.num_views, old.image_size)
    assert new.revision == f"{old.revision}, continued"
    for part, same in (("unet", True), ("vae", True), ("text_encoder", True), ("image_encoder", False)):
        before, after = (getattr(backbone, part).state_dict() for backbone in (old, new))
        assert all(torch.equal(value, after[name]) for name, value in before.items()) == same
    prompt = ["a portrait of a woman with a black bun"]
    assert torch.equal(old.encode_prompt(prompt).embeds, new.encode_prompt(prompt).embeds)


@pytest.mark.slow
def test_a_unet_that_predicts_epsilon(galatea: Callable[..., Any], tmp_path: Path) -> None:
    noise = ("noise.prediction_type=epsilon", "noise.zero_terminal_snr=false", "noise.min_snr_gamma=5")
    outcome = _train(galatea, "multiview", "run", *noise)
    assert outcome.status == 0, outcome.err
    schedule = load(tmp_path / "tiny").schedule
    assert schedule.prediction_type == "epsilon"
    assert not schedule.zero_terminal_snr
    outcome = _train(galatea, "multiview", "more", "continue_from=tiny")
    assert outcome.status == 2
    assert "the UNet of tiny predicts epsilon; give noise.prediction_type=epsilon" in outcome.err[-1]


@pytest.mark.slow
def test_what_the_text_transformer_starts_from(galatea: Callable[..., Any], tmp_path: Path) -> None:
    weights = []
    for seed, text in enumerate(("frozen", "trained", "anew")):
        start = () if text == "frozen" else ("continue_from=tiny",)
        settings = (f"text={text}", f"seed={seed}", "loop.steps=2")
        outcome = _train(galatea, "multiview", f"run_{text}", *settings, *start)
        assert outcome.status == 0, outcome.err
        weights.append(load_file(tmp_path / "tiny/text_encoder/model.safetensors"))
    frozen, trained, anew = (w["text_model.embeddings.token_embedding.weight"] for w in weights)
    # Two steps change little; a new start changes everything.
    assert 0 < (trained - frozen).abs().max() < 0.01 < (anew - trained).abs().max()


@pytest.mark.slow
def test_a_vae_gets_more_channels_and_the_unet_follows(galatea: Callable[..., Any], tmp_path: Path) -> None:
    # As wide as the untrained UNet that training a VAE leaves beside it.
    width = "channels=[64,128,128]"

    def train(part: str, out: str, *more: str) -> Any:
        return _train(galatea, part, out, "loop.steps=1", *((width,) if part == "multiview" else ()), *more)

    assert train("vae", "narrow", "latent_channels=4").status == 0
    outcome = train("vae", "decoder", "latent_channels=4", "continue_from=tiny", "keep_unet_valid=true")
    assert outcome.status == 0, outcome.err
    outcome = train("vae", "wide", "continue_from=tiny", "latent_channels=8")
    assert outcome.status == 0, outcome.err
    backbone = load(tmp_path / "tiny")
    assert backbone.latent_channels == 8
    noise, words = torch.zeros(1, 4, 8, 16, 16), backbone.encode_prompt(["a red mushroom"])
    camera = ring(4).c2w[None]
    with pytest.raises(
        BackboneError, match=r"takes latents of 4 channels, these have 8.*train the UNet onto it"
    ):
        backbone.predict(noise, 500, words, camera=camera)
    outcome = _train(galatea, "multiview", "other", "continue_from=tiny")
    assert outcome.status == 2
    assert "channels is [32, 32], but the UNet of tiny has" in "\n".join(outcome.err)
    assert train("multiview", "follows", "continue_from=tiny").status == 0
    assert load(tmp_path / "tiny").predict(noise, 500, words, camera=camera).shape == noise.shape
    outcome = train("vae", "refused", "continue_from=tiny", "latent_channels=12", "keep_unet_valid=true")
    assert outcome.status == 2
    assert "but the VAE of tiny has 8" in "\n".join(outcome.err)
    shutil.copytree(tmp_path / "tiny", tmp_path / "wide8")
    outcome = train("vae", "fewer", "continue_from=wide8", "latent_channels=5", "keep_unet_valid=true")
    assert outcome.status == 0, outcome.err
    assert train("multiview", "fewer_too", "continue_from=wide8").status == 0
    fewer, wide = load(tmp_path / "tiny"), load(tmp_path / "wide8")
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    old, new = (backbone.encode(images).detach() for backbone in (wide, fewer))
    for channel in new.unbind(1):  # each is one of those that were there
        assert any(torch.allclose(channel, other, atol=2e-2) for other in old.unbind(1))
    assert fewer.predict(noise[:, :, :5], 500, words, camera=camera).shape == noise[:, :, :5].shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "settings", "file"),
    [
        ("vae", (), "vae/diffusion_pytorch_model"),
        (
            "multiview",
            ("loop.optimizer=muon", "loop.processes=2", "threads=2", "channels=[64,64]"),
            "unet/diffusion_pytorch_model",
        ),
    ],
)
def test_an_interrupted_training_ends_in_the_same_weights(
    galatea: Callable[..., Any], tmp_path: Path, part: str, settings: tuple[str, ...], file: str
) -> None:
    assert _train(galatea, part, "whole", *settings).status == 0
    written = tmp_path / f"tiny/{file}.safetensors"
    whole, before = load_file(written), written.stat()
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    # As if killed after the checkpoint of step 2: nothing that came later is there.
    folder = tmp_path / "broken"
    for name in ("report.json", "report.html", "provenance.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints" / "step_00000004")
    assert _train(galatea, part, "broken", *settings).status == 0
    assert written.stat().st_mtime_ns > before.st_mtime_ns
    again = load_file(written)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    curves = [_held_out(tmp_path / name) for name in ("whole", "broken")]
    assert curves[0] == curves[1]
    assert curves[0][-1][0] == 4


def _held_out(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """What a training measured on held-out data, by step."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = [(r["step"], {k: v for k, v in r.items() if k.startswith("held_out/")}) for r in records]
    return [(step, values) for step, values in measured if values]


def _share(group: Group, layer: nn.Linear, inputs: torch.Tensor) -> None:
    loss = layer(inputs[group.rank :: group.size]).square().mean()
    loss.backward()
    group.average(layer.parameters(), loss.detach())


@pytest.mark.slow
def test_processes_take_the_gradient_of_the_whole_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, inputs = nn.Linear(3, 2), torch.randn(8, 3, generator=generator)
    layer(inputs).square().mean().backward()
    alone = layer.weight.grad
    layer.zero_grad()
    with group(2, _share, layer, inputs) as processes:
        loss = layer(inputs[::2]).square().mean()
        loss.backward()
        mean = processes.average(layer.parameters(), loss.detach())
    assert alone is not None
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, alone, atol=1e-6)
    assert float(mean) == pytest.approx(float(layer(inputs).detach().square().mean()), rel=1e-5)


def _use(group: Group, parts: nn.ModuleDict) -> Tensor:
    """Only the first process uses "first"; nobody uses "none"."""
    loss = parts["all"](torch.ones(1, 2)).sum()
    if group.rank == 0:
        loss = loss + parts["first"](torch.ones(1, 3)).sum()
    parts.zero_grad()
    loss.backward()
    return group.average(parts.parameters(), loss.detach())


@pytest.mark.slow
def test_a_part_that_one_process_drops_still_takes_the_mean() -> None:
    parts = nn.ModuleDict(
        {"first": nn.Linear(3, 1), "all": nn.Linear(2, 1, bias=False), "none": nn.Linear(5, 1)}
    )
    with group(2, _use, parts) as processes:
        _use(processes, parts)
    grads = {name: None if p.grad is None else p.grad.tolist() for name, p in parts.named_parameters()}
    assert grads == {
        "first.weight": [[0.5, 0.5, 0.5]],
        "first.bias": [0.5],
        "all.weight": [[1.0, 1.0]],
        "none.weight": None,
        "none.bias": None,
    }


@dataclass
class _NoRun:
    """All that is looked at of a run that is refused."""

    device: torch.device


class _Line:
    """A recipe that says nothing of what it draws."""

    def __init__(self) -> None:
        self.modules = nn.ModuleDict({"line": nn.Linear(3, 2)})

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        raise AssertionError("no step is taken")

    def validate(self) -> dict[str, float]:
        raise AssertionError("nothing is measured")


class _Drawn(_Line):
    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randn(batch_size, 3, generator=generator),)

    def loss_of(self, *drawn: torch.Tensor) -> torch.Tensor:
        return self.modules["line"](drawn[0]).square().mean()


def test_muon_takes_the_steps_of_torch() -> None:
    """Of kernels as the matrices they are, and of several matrices of a shape at once."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 2, 3, 3), (4, 18), (24, 8), (24, 8), (5, 5)]
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in weights]
    ours = KernelMuon(weights, lr=0.1, weight_decay=0.1)
    theirs = torch.optim.Muon(matrices, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for index, (weight, matrix) in enumerate(zip(weights, matrices, strict=True)):
            gradient = torch.randn(weight.shape, generator=generator)
            used = (step, index) != (1, 2)  # one is left out once, and keeps its momentum
            weight.grad, matrix.grad = (gradient, gradient.flatten(1)) if used else (None, None)
        ours.step()
        theirs.step()
    for weight, matrix in zip(weights, matrices, strict=True):
        torch.testing.assert_close(weight.flatten(1), matrix)


def test_only_hidden_matrices_go_to_muon() -> None:
    layers = nn.ModuleDict({"conv_in": nn.Conv2d(1, 2, 3), "hidden": nn.Linear(2, 3)})
    weights = dict(layers.named_parameters())
    optimizers = Optimizers(weights, muon_scale=1.0, weight_decay=0.0)
    for p in weights.values():
        p.grad = torch.ones_like(p)
    optimizers.step(0.1)
    by_muon = {name.split(".momentum")[0] for name in optimizers.state() if name.endswith("momentum_buffer")}
    assert by_muon == {"hidden.weight"}


def test_rate_rises_and_falls() -> None:
    config = LoopConfig(steps=100, batch_size=1, learning_rate=1.0, warmup=10)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) > 0.9
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("ema_decay", 1.0),
        ("processes", 3),
        ("muon_scale", 0.0),
    ],
)
def test_settings_that_cannot_be(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        LoopConfig(**{"steps": 1, "batch_size": 4, "learning_rate": 0.1, key: value})  # type: ignore[arg-type]


def test_cuda_graphs_are_for_a_gpu_and_for_what_can_be_recorded() -> None:
    config = LoopConfig(steps=1, batch_size=4, learning_rate=0.1, cuda_graphs=True)
    with pytest.raises(ValueError, match=r"loop\.cuda_graphs is true, which is for device=cuda, got cpu"):
        processes_of(config, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"loop\.cuda_graphs is true, but this training cannot be recorded"):
        train(cast(Any, _NoRun(torch.device("cuda"))), _Line(), config, generator=torch.Generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_give_the_gradients_of_the_loss() -> None:
    recipe = _Drawn()
    recipe.modules.cuda()
    weights = list(recipe.modules.parameters())
    graphs, generator = CudaGraphs(recipe, weights, bf16=False), torch.Generator().manual_seed(0)
    for batch_size in (4, 8, 4, 8):
        drawn = recipe.draw(batch_size, generator)
        loss = float(graphs.backward(drawn))
        found = [p.grad.clone() for p in weights if p.grad is not None]
        expected = recipe.loss_of(*(each.cuda() for each in drawn))
        assert loss == pytest.approx(float(expected), rel=1e-5)
        for got, wanted in zip(found, torch.autograd.grad(expected, weights), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("settings", "device", "words"),
    [
        ({"batch_size": 4}, "cpu", "loop.batch_size is 4, which the 3 processes"),
        ({"batch_size": 6, "processes": 2}, "cpu", "loop.processes is 2, but the launcher started 3"),
        ({"batch_size": 6}, "cuda", "3 processes train together, which is for device=cpu"),
    ],
)
def test_what_a_launcher_cannot_have(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], device: str, words: str
) -> None:
    config = LoopConfig(**{"steps": 1, "learning_rate": 0.1, **settings})  # type: ignore[arg-type]
    assert processes_of(config, torch.device("cpu")) == config.processes
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert not is_further_process()
    with pytest.raises(ValueError, match=words):
        processes_of(config, torch.device(device))
