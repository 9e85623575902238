"""NaN and infinity from a model: refused when the weights are read, and named when a part makes them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.backbone import Backbone, load
from diffusion.errors import BackboneError
from diffusion.finite import NonFiniteError, check_finite, is_finite, non_finite_name
from diffusion.samplers import sample_views
from tests.diffusion.models import orbit

PARTS = ("text_encoder", "image_encoder", "vae", "unet")
# part -> what it is called, and how it is used
USES: dict[str, tuple[str, Callable[[Backbone], Any]]] = {
    "text_encoder": ("text encoder", lambda b: b.encode_prompt(["a red mushroom"])),
    "text tower": ("text encoder", lambda b: b.embed_text(["a red mushroom"])),
    "image_encoder": ("image encoder", lambda b: b.embed_image(torch.rand(1, 3, 32, 32))),
    "encoder": ("VAE encoder", lambda b: b.encode(torch.rand(1, 3, 64, 64))),
    "decoder": ("VAE decoder", lambda b: b.decode(torch.rand(1, 4, 8, 8))),
    "unet": (
        "UNet",
        lambda b: b.predict(torch.rand(1, 4, 4, 8, 8), 500, b.encode_prompt([""]), camera=orbit(1, 4)),
    ),
}


def test_a_sum_that_overflows_is_no_infinity() -> None:
    large = torch.full((4,), 3e38)
    assert not torch.isfinite(large.sum())
    assert is_finite(large)
    assert check_finite(large, "it", "try") is large
    for bad in (torch.nan, torch.inf, -torch.inf):
        assert not is_finite(torch.tensor([1.0, bad]))
        assert non_finite_name({"a": large, "ids": torch.arange(3), "b": torch.tensor(bad)}) == "b"
    with pytest.raises(NonFiniteError, match=r"^it holds NaN or infinity; try$"):
        check_finite(torch.tensor([torch.inf, -torch.inf]), "it", "try")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_damaged_weights_are_refused_when_they_are_read(
    folder: Path, tmp_path: Path, part: str, value: float
) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(folder, damaged)
    file = next((damaged / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(BackboneError, match=f"{file.name}: tensor {name} holds NaN or infinity"):
        load(damaged)


def test_weights_that_a_narrow_dtype_cannot_hold_are_refused(folder: Path, tmp_path: Path) -> None:
    wide = tmp_path / "model"
    shutil.copytree(folder, wide)
    file = next((wide / "vae").glob("*.safetensors"))
    tensors = {name: value.float() for name, value in load_file(file).items()}
    tensors["decoder.conv_out.weight"].fill_(1e5)
    save_file(tensors, file, {"format": "pt"})
    load(wide)
    with pytest.raises(
        BackboneError, match=r"decoder.conv_out.weight holds NaN.*as float16; load it as float32"
    ):
        load(wide, dtype=torch.float16)


@pytest.mark.parametrize("use", USES)
def test_what_a_part_makes_names_the_part(backbone: Backbone, use: str) -> None:
    spoilt = copy.deepcopy(backbone)
    called, of = USES[use]
    of(spoilt)
    module = {"text tower": spoilt.text_encoder, "encoder": spoilt.vae, "decoder": spoilt.vae}.get(use)
    for weight in (module or getattr(spoilt, use)).parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=f"the {called} of backbone .*NaN or infinity"):
        of(spoilt)


def test_what_was_given_is_blamed_where_it_was_no_number(backbone: Backbone) -> None:
    images, latents = torch.full((1, 3, 64, 64), torch.nan), torch.full((1, 4, 8, 8), torch.nan)
    for part, use in (
        ("VAE encoder", lambda: backbone.encode(images)),
        ("VAE decoder", lambda: backbone.decode(latents)),
        ("image encoder", lambda: backbone.embed_image(images)),
    ):
        with pytest.raises(NonFiniteError, match=f"what the {part} of backbone .* was given holds NaN"):
            use()


@pytest.mark.parametrize("scale", [1e30, 3e38, -3e38])
def test_a_guidance_scale_beyond_all_bounds_is_named(backbone: Backbone, scale: float) -> None:
    with pytest.raises(NonFiniteError, match=r"lower the guidance scale|too high a guidance_scale: lower it"):
        sample_views(
            backbone, ["a"], orbit(1, 4), generator=torch.Generator().manual_seed(0), num_steps=3,
            guidance_scale=scale,
        )  # fmt: skip
