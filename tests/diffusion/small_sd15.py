"""A small random model in Stable Diffusion 1.5's layout, written by diffusers' own pipeline as the public ones are.

One view, no camera, four latent channels, epsilon prediction under PNDM, a CLIP text encoder without projection,
vocab.json and merges.txt, no settings of ours in model_index.json. Its blocks have 64 channels and more: with groups
of one channel, as 32 groups of 32, a GroupNorm would remove what the timestep adds.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from experiments.training.tokenizer import train_tokenizer
from tests.diffusion.models import CAPTIONS

MAX_TOKENS = 77


def save_small_sd15(folder: Path, *, sample_size: int = 8, seed: int = 0) -> Path:
    """Writes the model into `folder` and returns it; its pictures have 8 `sample_size` pixels a side (64 makes 512)."""
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=540, max_length=MAX_TOKENS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionPipeline(
            vae=_vae(8 * sample_size),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(sample_size),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,  # pyright: ignore[reportArgumentType]
            feature_extractor=None,  # pyright: ignore[reportArgumentType]
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    file = folder / "tokenizer" / "tokenizer.json"
    words = json.loads(file.read_text(encoding="utf-8"))["model"]
    file.unlink()
    (file.parent / "vocab.json").write_text(json.dumps(words["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in words["merges"])
    (file.parent / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return folder


def _unet(sample_size: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=(64, 128, 128, 128),
        layers_per_block=1,
        cross_attention_dim=48,
        attention_head_dim=8,
    )


def _vae(size: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=size,
    )


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=2,  # as OpenAI's configs have it; the end is then the greatest token id
            pad_token_id=1,
        )
    )
