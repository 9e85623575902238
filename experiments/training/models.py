"""The architectures of `tiny`: ordinary transformers and diffusers classes at toy size.

Pictures are 128 x 128; latents are 5 x 16 x 16; text is at most 32 tokens of width 128.
"""

from __future__ import annotations

from typing import Any, Literal

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from diffusion.adapters.camera import CAMERA_DIM
from diffusion.attention import add_context_attention
from experiments.training.config import DOWNSCALE, IMAGE_SIZE, LATENT_CHANNELS, check_channels

NUM_VIEWS = 4
TEXT_LENGTH = 32
TEXT_WIDTH = 128
EMBEDDING = 128


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """CLIP's text tower: 4 layers of width 128."""
    special: dict[str, Any] = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=EMBEDDING,
            **special,
        )
    )


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """CLIP's image tower: patches of 16 pixels, 4 layers of width 128."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=IMAGE_SIZE,
            patch_size=16,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=EMBEDDING,
        )
    )


def build_vae(latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """f = 8. No attention in the middle: it then trains on crops and encodes any size alike."""
    settings: dict[str, Any] = {  # diffusers' annotations allow tuples of one entry only
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (16, 32, 64, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": latent_channels,
        "sample_size": IMAGE_SIZE,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    }
    return AutoencoderKL(**settings)


def build_unet(
    channels: tuple[int, ...] = (64, 128, 128), latent_channels: int = LATENT_CHANNELS
) -> UNet2DConditionModel:
    """Text- and camera-conditioned denoiser of 16 x 16 latents, with multiview attention put on.

    channels: of each level, multiples of 32. Attention heads are 64 wide: on a CPU two of 32 take twice the time.
    """
    check_channels(channels)
    levels = len(channels)
    settings: dict[str, Any] = {
        "sample_size": IMAGE_SIZE // DOWNSCALE,
        "in_channels": latent_channels,
        "out_channels": latent_channels,
        "down_block_types": ("CrossAttnDownBlock2D",) * levels,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("CrossAttnUpBlock2D",) * levels,
        "block_out_channels": channels,
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": tuple(
            max(1, c // 64) for c in channels
        ),  # the number of heads, in spite of the name
        "norm_num_groups": 16,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": CAMERA_DIM,
    }
    unet = UNet2DConditionModel(**settings)
    add_context_attention(unet)
    return unet


def build_scheduler(
    prediction_type: Literal["v_prediction", "epsilon"] = "v_prediction", zero_terminal_snr: bool = True
) -> DDIMScheduler:
    """Stable Diffusion's schedule; with ``zero_terminal_snr`` rescaled to end in pure noise (arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_terminal_snr,
        timestep_spacing="trailing",
    )
