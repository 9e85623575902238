"""Folders in diffusers layout that hold another kind of model, told apart by their JSON files before weights load.

A backbone turns noise in its VAE's own latents into a picture, led by one CLIP text encoder. Public models that are
made for something else, or are led otherwise, have the same layout, and their weights would load or not load with
messages about tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion.adapters.camera import CAMERA_DIM
from diffusion.errors import BackboneError

_WANTED = (
    "a backbone is a text-to-image model with one CLIP text encoder and a UNet, such as Stable Diffusion 1.5 or 2.1, "
    "in diffusers layout"
)
# What a UNet takes beside its latents is concatenated to their four channels.
_BY_CHANNELS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "a model that starts from a picture (InstructPix2Pix, Zero123, an upscaler)",
    9: "an inpainting model",
}
# Beginnings of `_class_name` in model_index.json. A longer one stands before a shorter one that it begins with.
_BY_PIPELINE = {
    "StableDiffusionXLInpaint": "Stable Diffusion XL for inpainting",
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionInpaint": "an inpainting model",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionLatentUpscale": "an upscaler",
    "StableDiffusionDepth2Img": "a depth-to-image model",
    "StableDiffusionInstructPix2Pix": "a model that edits pictures (InstructPix2Pix)",
    "StableDiffusionImageVariation": "a model of image variations, which takes no text",
    "StableVideoDiffusion": "Stable Video Diffusion",
    "StableUnCLIP": "an unCLIP model, which is led by image embeddings",
    "Flux": "a Flux model",
    "PixArt": "a PixArt model",
    "Sana": "a Sana model",
    "Kandinsky": "a Kandinsky model",
    "IF": "DeepFloyd IF, which works on pixels",
    "DDPM": "a DDPM, which takes no text",
}
# Defaults of diffusers' and transformers' classes, for a config.json that leaves a value out.
_IN_CHANNELS, _LATENT_CHANNELS, _CROSS_ATTENTION_DIM, _TEXT_WIDTH = 4, 4, 1280, 512


def refuse_other_kinds(
    folder: Path, index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> None:
    """BackboneError for a folder whose model is of another kind, or whose parts do not belong together.

    Args:
        index: what model_index.json holds; empty if there is none.
        configs: part -> its config.json, of the parts that are there.
    """
    kind = _kind(folder, index, configs)
    if kind is not None:
        raise BackboneError(f"{folder} holds {kind}; {_WANTED}")
    unet, text = configs.get("unet"), configs.get("text_encoder")
    if unet is None or text is None or unet.get("encoder_hid_dim") is not None:
        return
    reads, makes = unet.get("cross_attention_dim", _CROSS_ATTENTION_DIM), text.get("hidden_size", _TEXT_WIDTH)
    if reads != makes:
        raise BackboneError(
            f"text_encoder in {folder} makes tokens of width {makes}, but its unet reads width {reads}: they do not "
            "belong together; take both from one model"
        )


def _kind(folder: Path, index: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What a folder holds instead of a backbone, in words; None for a backbone, or for what cannot be told."""
    # Our own, perhaps between two trainings: what does not fit yet is told where it is used.
    if "galatea" in index:
        return None
    pipeline, unet = str(index.get("_class_name", "")), configs.get("unet", {})
    named = next((words for name, words in _BY_PIPELINE.items() if pipeline.startswith(name)), None)
    if named is not None:
        return named
    if index.get("transformer") or (folder / "transformer").is_dir():
        return f"a model with a transformer in place of the UNet ({pipeline or 'unnamed'})"
    if index.get("text_encoder_2") or unet.get("addition_embed_type") == "text_time":
        return "a model with two text encoders, as Stable Diffusion XL"
    if not index:
        return _part_of_a_model(folder)
    channels = unet.get("in_channels", _IN_CHANNELS)
    latent_channels = configs.get("vae", {}).get("latent_channels", _LATENT_CHANNELS)
    if unet and channels != latent_channels:
        words = _BY_CHANNELS.get(channels, "a model for another task")
        return f"{words}: its UNet takes {channels} channels, and its VAE makes {latent_channels}"
    labels = unet.get("class_embed_type") or unet.get("num_class_embeds")
    no_camera = labels and unet.get("projection_class_embeddings_input_dim") != CAMERA_DIM
    if no_camera or unet.get("addition_embed_type"):
        return f"a model whose UNet wants more than text ({pipeline or 'unnamed'})"
    return None


def _part_of_a_model(folder: Path) -> str | None:
    """For a folder without model_index.json."""
    if (folder / "config.json").is_file():
        return "one part of a model, without model_index.json"
    if any(folder.glob("pytorch_lora_weights.*")) or (folder / "adapter_config.json").is_file():
        return "a LoRA, which is no model of its own"
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.ckpt")):
        return (
            "a checkpoint in a single file, which diffusers' from_single_file() and save_pretrained() convert"
        )
    return None
