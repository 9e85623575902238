"""Components of a complete random backbone, small enough to build in a second, and cameras for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from experiments.training.tokenizer import train_tokenizer

CAPTIONS = ["a red mushroom", "a blue cube on a green sphere", "the head of a woman with red hair, smiling"]
MAX_TOKENS = 16


def make_unet(
    *, camera: bool = True, seed: int = 0, channels: tuple[int, int] = (32, 64)
) -> UNet2DConditionModel:
    extra: dict[str, Any] = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=16,
            norm_num_groups=8,
            **(extra if camera else {}),
        )


def make_scheduler(prediction_type: str = "v_prediction", zero_terminal: bool = True) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_terminal,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def make_parts(*, camera: bool = True, projection: bool = True, seed: int = 0) -> dict[str, Any]:
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=540, max_length=MAX_TOKENS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            projection_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
            scaling_factor=0.5,
            shift_factor=0.1,
        )
        return {
            "tokenizer": tokenizer,
            "text_encoder": (CLIPTextModelWithProjection if projection else CLIPTextModel)(text),
            "image_encoder": CLIPVisionModelWithProjection(vision),
            "vae": vae,
            "unet": make_unet(camera=camera, seed=seed),
            "scheduler": make_scheduler(),
        }


def orbit(batch: int, num_views: int) -> torch.Tensor:
    """Cameras [B, V, 4, 4] around the Y axis at distance 2, the first in front."""
    angle = torch.arange(num_views) * (2 * torch.pi / num_views)
    c2w = torch.zeros(num_views, 4, 4)
    c2w[:, 0, 0], c2w[:, 0, 2] = angle.cos(), angle.sin()
    c2w[:, 2, 0], c2w[:, 2, 2] = -angle.sin(), angle.cos()
    c2w[:, 1, 1] = c2w[:, 3, 3] = 1.0
    c2w[:, :3, 3] = 2.0 * c2w[:, :3, 2]
    return c2w.expand(batch, -1, -1, -1).clone()
