"""Folders in diffusers layout that hold another kind of model are told apart by their JSON files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffusion.backbone import load
from diffusion.errors import BackboneError


def changed(file: Path, changes: dict[str, Any]) -> None:
    """Sets entries of a JSON file; None removes one."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def public(folder: Path, tmp_path: Path) -> Path:
    """A backbone as others publish it: without our own entry, and with weights that are never to be read."""
    copy = Path(shutil.copytree(folder, tmp_path / "public"))
    changed(copy / "model_index.json", {"galatea": None, "_class_name": "StableDiffusionPipeline"})
    return copy


def without_weights(folder: Path) -> None:
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"not to be read")


def refusal(folder: Path) -> str:
    with pytest.raises(BackboneError) as excinfo:
        load(folder)
    message = str(excinfo.value)
    assert "\n" not in message
    assert str(folder) in message
    assert " train " not in message
    return message


def test_the_same_folder_loads_when_it_is_no_other_kind(public: Path) -> None:
    assert load(public).num_views == 1


@pytest.mark.parametrize(
    ("unet", "words"),
    [
        ({"in_channels": 9}, "an inpainting model: its UNet takes 9 channels, and its VAE makes 4"),
        ({"in_channels": 7, "class_embed_type": None, "num_class_embeds": 1000}, "an upscaler"),
        ({"in_channels": 5}, "a depth-to-image model"),
        ({"in_channels": 8}, "InstructPix2Pix"),
        ({"in_channels": 6}, "a model for another task: its UNet takes 6"),
        ({"addition_embed_type": "text_time"}, "two text encoders, as Stable Diffusion XL"),
        ({"addition_embed_type": "image"}, "wants more than text"),
        ({"projection_class_embeddings_input_dim": 2048}, "wants more than text"),
        ({"num_class_embeds": 10, "projection_class_embeddings_input_dim": None}, "wants more than text"),
    ],
)
def test_by_the_unet(public: Path, unet: dict[str, Any], words: str) -> None:
    changed(public / "unet" / "config.json", unet)
    without_weights(public)
    assert words in refusal(public)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "holds Stable Diffusion XL;"),
        ({"_class_name": "StableDiffusionXLInpaintPipeline"}, "Stable Diffusion XL for inpainting"),
        ({"_class_name": "StableDiffusionInpaintPipeline"}, "an inpainting model"),
        ({"_class_name": "StableDiffusionUpscalePipeline"}, "an upscaler"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "holds Stable Diffusion 3;"),
        ({"_class_name": "FluxPipeline"}, "a Flux model"),
        ({"_class_name": "IFPipeline"}, "DeepFloyd IF"),
        ({"transformer": ["diffusers", "SomeTransformer2DModel"], "unet": None}, "a transformer in place of"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "two text encoders"),
    ],
)
def test_by_the_index(public: Path, index: dict[str, Any], words: str) -> None:
    changed(public / "model_index.json", index)
    without_weights(public)
    assert words in refusal(public)


def test_a_text_encoder_of_another_width(public: Path, folder: Path) -> None:
    for copy in (public, Path(shutil.copytree(folder, public.parent / "own"))):
        changed(copy / "unet" / "config.json", {"cross_attention_dim": 768})
        without_weights(copy)
        assert "tokens of width 32, but its unet reads width 768" in refusal(copy)


def test_classes_are_looked_at_before_any_weights(public: Path) -> None:
    changed(public / "model_index.json", {"vae": ["diffusers", "VQModel"]})
    without_weights(public)
    assert "is a VQModel, allowed: AutoencoderKL" in refusal(public)


def test_what_is_no_whole_model(public: Path, tmp_path: Path) -> None:
    assert "one part of a model" in refusal(public / "unet")
    for name, words in (
        ("pytorch_lora_weights.safetensors", "a LoRA"),
        ("sd.safetensors", "in a single file"),
    ):
        (tmp_path / words).mkdir()
        (tmp_path / words / name).write_bytes(b"")
        assert words in refusal(tmp_path / words)


@pytest.mark.parametrize("content", ["[]", "3", '"x"'])
def test_json_that_is_no_object(public: Path, content: str) -> None:
    for file in (public / "model_index.json", public / "unet" / "config.json"):
        before = file.read_text()
        file.write_text(content)
        assert "must hold a JSON object" in refusal(public)
        file.write_text(before)
