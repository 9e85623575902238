"""Adapters on disk: round trip, what is not written, and files that do not belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from avatar.storage import adapter_state, fingerprint, load_adapters, save_adapters
from tests.avatar.talking import clips, make_conditions, make_model
from tests.diffusion.models import make_unet


@torch.no_grad()
@pytest.mark.parametrize("copies", [False, True])
def test_round_trip(tmp_path: Path, copies: bool) -> None:
    changes = {"reference_net": "copy", "tune_unet": "all"} if copies else {}
    model = make_model(**changes).requires_grad_(
        False
    )  # torch takes other kernels where gradients are wanted
    expected = model(clips(), 300, make_conditions(model))
    save_adapters(tmp_path / "sub" / "talk.safetensors", model, dtype=torch.float32)
    again = load_adapters(tmp_path / "sub" / "talk.safetensors", make_unet(camera=False))
    assert again.config == model.config
    assert torch.equal(again(clips(), 300, make_conditions(again)), expected)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["talk.safetensors"]


@torch.no_grad()
def test_half_precision_is_the_default_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = make_model()
    save_adapters(tmp_path / "talk.safetensors", model)
    assert {value.dtype for value in load_file(tmp_path / "talk.safetensors").values()} == {torch.float16}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    again = load_adapters(tmp_path / "talk.safetensors", make_unet(camera=False))
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(
        again(clips(), 300, make_conditions(again)),
        model(clips(), 300, make_conditions(model)),
        rtol=0.02,
        atol=0.02,
    )


def test_a_shared_unet_is_not_written(tmp_path: Path) -> None:
    model = make_model()
    save_adapters(tmp_path / "talk.safetensors", model)
    with safe_open(str(tmp_path / "talk.safetensors"), framework="pt") as file:
        names = list(file.keys())
    assert names
    assert not any(name.startswith(("unet.", "reference_net.")) for name in names)
    assert set(names) == set(adapter_state(model))


@torch.no_grad()
def test_tuned_attention_is_written_and_the_rest_comes_from_the_backbone(tmp_path: Path) -> None:
    base = make_unet(camera=False)
    model = make_model(unet=base, tune_unet="attention").requires_grad_(False)
    file = tmp_path / "talk.safetensors"
    name = next(name for name in model.unet.state_dict() if ".attentions." in name)
    model.unet.get_parameter(name).add_(1.0)
    save_adapters(file, model, dtype=torch.float32)
    written = [key.removeprefix("unet.") for key in load_file(file) if key.startswith("unet.")]
    assert written
    assert all(".attentions." in key for key in written)
    again = load_adapters(file, base)
    assert torch.equal(again.unet.get_parameter(name), model.unet.get_parameter(name))
    assert not torch.equal(
        base.get_parameter(name), model.unet.get_parameter(name)
    )  # the backbone's own is kept
    assert torch.equal(
        again(clips(), 300, make_conditions(again)), model(clips(), 300, make_conditions(model))
    )
    other = make_unet(camera=False)
    other.conv_in.weight.add_(1.0)
    with pytest.raises(ValueError, match="another UNet"):
        load_adapters(file, other)


def test_the_unet_must_be_the_one_trained_with(tmp_path: Path) -> None:
    file = tmp_path / "talk.safetensors"
    save_adapters(file, make_model())
    with pytest.raises(ValueError, match="was trained on another UNet"):
        load_adapters(file, make_unet(camera=False, seed=1))
    other = make_unet(camera=False, seed=1)
    onto = load_adapters(file, other, any_weights=True)
    assert torch.equal(onto.unet.conv_in.weight, other.conv_in.weight)
    unet = make_unet(camera=False)
    names = {fingerprint(unet.to(dtype)) for dtype in (torch.float16, torch.bfloat16, torch.float32)}
    assert len(names) == 1
    assert names != {fingerprint(make_unet(camera=False, seed=1))}


def test_bad_files(tmp_path: Path) -> None:
    file, unet = tmp_path / "talk.safetensors", make_unet(camera=False)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_adapters(file, unet)
    file.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_adapters(file, unet)
    save_file({"x": torch.zeros(1)}, str(file))
    with pytest.raises(ValueError, match="holds no talking model"):
        load_adapters(file, unet)
    save_adapters(file, make_model())
    with safe_open(str(file), framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file({key: value for key, value in tensors.items() if key != name}, str(file), metadata)
    with pytest.raises(ValueError, match=f"1 tensors are missing and 0 unknown, such as {name}"):
        load_adapters(file, unet)
    save_file({**tensors, name: torch.zeros(3)}, str(file), metadata)
    with pytest.raises(ValueError, match=f"{name} is \\[3\\], must be"):
        load_adapters(file, unet)
    save_file(tensors, str(file), {**metadata, "config": metadata["config"].replace("tune_unet", "tuned")})
    with pytest.raises(ValueError, match=r"no readable config \(config has no key 'tuned'"):
        load_adapters(file, unet)
