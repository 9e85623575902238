"""The architectures of `tiny`: ordinary transformers and diffusers classes at toy size.

Pictures are 128 x 128; latents are 4 x 16 x 16; text is at most 32 tokens of width 128.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

IMAGE_SIZE = 128
NUM_VIEWS = 4
TEXT_LENGTH = 32
TEXT_WIDTH = 128
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], vocab_size: int = 1024) -> CLIPTokenizer:
    """A byte-level BPE trained on ``captions``; every text is legal input, since every byte is a token."""
    import json

    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer(lowercase=True, end_of_word_suffix="</w>")
    bpe.train_from_iterator(
        (" ".join(c.lower().split()) for c in captions), vocab_size=vocab_size - 2, min_frequency=2, show_progress=False
    )
    state = json.loads(bpe.to_str())["model"]
    raise NotImplementedError(state)


def build_vae() -> AutoencoderKL:
    """f = 8, 4 channels. No attention in the middle: the VAE then trains on crops and encodes any size alike."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def build_unet(channels: tuple[int, ...] = (96, 160)) -> UNet2DConditionModel:
    """Text- and camera-conditioned denoiser on 16 x 16 latents; multiview attention is put on by an adapter."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )
