"""The talking denoiser: a diffusers UNet with reference, audio and motion adapters, face locator and speed.

Shapes: B clips, F frames, R pictures of a person, M motion frames, C latent channels, h = H / downscale,
T audio tokens of width A per frame, W frames of a window of sound, E width of the identity embedding, K branches.
Frames are an axis of their own everywhere; only the denoiser folds them into a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from avatar.blink import BlinkEmbedding
from avatar.conditions import Conditions
from avatar.config import Config
from avatar.identity import IdentityProjection
from avatar.locator import FaceLocator
from avatar.speed import SpeedEmbedding
from diffusion.adapters.audio import AudioModule, AudioProjection, audio_modules, mask_pyramid
from diffusion.adapters.bank import KVBank
from diffusion.adapters.camera import has_camera_embedding
from diffusion.adapters.motion import MotionModule, motion_modules
from diffusion.adapters.reference import (
    BankProjection,
    fill_bank,
    module_key,
    reference_layers,
)
from diffusion.adapters.unet_hooks import add_input_features
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.unet import UNetDenoiser


class TalkingModel(nn.Module):
    """Predicts the noise (or v, or x0: the UNet's own parameterisation) of talking clips.

    The order within a layer is EMO's and Hallo's: the UNet's attention, then audio, then motion. An untrained
    model computes what the UNet with reference attention computes, and without a reference what the bare UNet does.

    unet: of diffusers; its file stays as it is. It gets processors, hooks and a `conv_in` that takes features
        (see `diffusion.adapters.unet_hooks`), all of which leave ordinary calls as they were.
    """

    def __init__(self, unet: UNet2DConditionModel, config: Config):
        super().__init__()
        width = unet.config["cross_attention_dim"]
        if not isinstance(width, int):
            raise ValueError(f"the UNet's cross_attention_dim must be one number, got {width!r}")
        self.config = config
        reference_net = copy.deepcopy(unet) if config.reference_net == "copy" else None
        self.unet = copy.deepcopy(unet) if config.tune_unet != "none" else unet
        self.reference_net = reference_net
        add_input_features(self.unet)
        # Frames are strangers to each other in the UNet's own attention; the motion modules join them.
        self.denoiser = UNetDenoiser(self.unet)
        self.reference_denoiser = self.denoiser if reference_net is None else UNetDenoiser(reference_net)

        speed_width = config.speed.width if config.use_speed else 0
        audio_width = config.audio_projection.width
        self.audio = _module_dict(audio_modules(self.unet, audio_width, config.audio))
        self.motion = _module_dict(motion_modules(self.unet, config.motion, speed_width))
        self.audio_projection = AudioProjection(config.audio_projection)
        self.identity = IdentityProjection(width, config.identity)
        self.locator = FaceLocator(self.unet.config["block_out_channels"][0], config.locator)
        self.speed = SpeedEmbedding(config.speed) if config.use_speed else None
        self.blink = BlinkEmbedding(config.speed.width) if config.use_speed else None
        self.reference_projection = (
            BankProjection(reference_layers(self.unet), config.reference_expansion)
            if config.reference_expansion
            else None
        )
        self.gradient_checkpointing = False

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Trades time for memory in the backward pass; results do not change, in train and eval mode alike."""
        self.gradient_checkpointing = enabled
        for network in (self.unet, self.reference_net):
            if network is not None and enabled:
                network.enable_gradient_checkpointing(_recomputed)
            elif network is not None:
                network.disable_gradient_checkpointing()

    def encode_reference(
        self,
        latents: torch.Tensor,
        identity: torch.Tensor | None = None,
        *,
        camera: torch.Tensor | None = None,
    ) -> KVBank:
        """Pictures of a person -> the bank that self-attention reads; once per video.

        Args:
            latents: [B, R, C, h, w], clean latents of one or more pictures.
            identity: [B, E] embedding, as in `Conditions`.
            camera: [B, R, 4, 4] c2w of the pictures; in front by default.
        """
        bank = self._run_reference(latents, identity, camera)
        return bank if self.reference_projection is None else self.reference_projection(bank)

    def encode_motion(
        self,
        latents: torch.Tensor,
        identity: torch.Tensor | None = None,
        *,
        camera: torch.Tensor | None = None,
    ) -> KVBank:
        """Latents [B, M, C, h, w] of the last frames of a clip, oldest first -> motion frames of the next."""
        return self._run_reference(latents, identity, camera)

    def encode_audio(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows of sound features [B, F, W, ...] -> tokens [B, F, T, A]."""
        return self.audio_projection(windows.to(self.audio_projection.proj1.weight))

    def encode_location(self, masks: torch.Tensor) -> torch.Tensor:
        """Face regions [B, F or 1, 1, H, W] in [0, 1] -> features [B, F or 1, C0, h, w]."""
        return self.locator(masks)

    def encode_masks(
        self, masks: torch.Tensor, height: int, width: int
    ) -> dict[tuple[int, int], torch.Tensor]:
        """Regions [B, (F,) K, H, W] in [0, 1], one per audio branch in the config's order -> `Conditions.masks`.

        height, width: of the latents.
        """
        branches = self.config.audio.branches
        if masks.ndim not in (4, 5) or masks.shape[-3] != len(branches):
            raise ValueError(
                f"masks must be [B, K, H, W] or [B, F, K, H, W] with one of {branches} each, got {list(masks.shape)}"
            )
        return mask_pyramid(masks, height, width, len(self.unet.config["block_out_channels"]))

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor | int,
        conditions: Conditions,
        *,
        still: bool = False,
    ) -> torch.Tensor:
        """The UNet's prediction for noisy clips, same shape as `latents`.

        Args:
            latents: [B, F, C, h, w].
            timestep: int, [], [B] or [B, F], long.
            conditions: of the same B clips (or of one, where a bank is concerned) and F frames.
            still: leave audio and motion modules out, as in the first lesson, where frames are pictures
                of their own.
        """
        batch, frames = self._check_latents(latents, "F")
        inputs = Inputs(
            conditioning=self._identity_tokens(conditions.identity, batch),
            camera=self._camera(conditions.camera, batch, frames),
            features=self._location(conditions.location, latents),
            bank=conditions.reference,
            after_attention=None if still else self._layer_pass(conditions, batch, frames),
        )
        return self.denoiser(latents, timestep, inputs)

    def _run_reference(
        self, latents: torch.Tensor, identity: torch.Tensor | None, camera: torch.Tensor | None
    ) -> KVBank:
        batch, images = self._check_latents(latents, "R")
        inputs = Inputs(
            conditioning=self._identity_tokens(identity, batch), camera=self._camera(camera, batch, images)
        )
        return fill_bank(self.reference_denoiser, latents, inputs)

    def _check_latents(self, latents: torch.Tensor, axis: str) -> tuple[int, int]:
        """B and F (or R, as `axis` is called) of latents [B, F, C, h, w]."""
        if latents.ndim != 5 or latents.shape[2] != self.denoiser.in_channels:
            raise ValueError(
                f"latents must be [B, {axis}, {self.denoiser.in_channels}, h, w], got {list(latents.shape)}"
            )
        return latents.shape[0], latents.shape[1]

    def _identity_tokens(self, identity: torch.Tensor | None, batch: int) -> Conditioning:
        """What stands in the place of words: tokens [B, L, C] of the person."""
        weight = self.identity.proj.weight
        if identity is None:
            identity = weight.new_zeros(batch, self.config.identity.embedding)
        if len(identity) != batch:
            raise ValueError(f"identity must have {batch} rows, one per clip, got {len(identity)}")
        return Conditioning(embeds=self.identity(identity))

    def _location(self, location: torch.Tensor | None, latents: torch.Tensor) -> torch.Tensor | None:
        if location is None:
            return None
        batch, frames = latents.shape[:2]
        if location.shape[0] != batch or location.shape[1] not in (1, frames):
            raise ValueError(f"location must be [{batch}, {frames} or 1, ...], got {list(location.shape)}")
        if location.shape[-2:] != latents.shape[-2:]:
            raise ValueError(
                f"location is for latents of {list(location.shape[-2:])}, these are {list(latents.shape[-2:])}: "
                "the mask must have the picture's size"
            )
        return location

    def _camera(self, camera: torch.Tensor | None, batch: int, frames: int) -> torch.Tensor | None:
        """In front, on +Z, where a camera is asked for and none was given; the embedding ignores the distance."""
        if camera is not None or not has_camera_embedding(self.unet):
            return camera
        front = torch.eye(4, device=self.unet.device)
        front[2, 3] = 1.0
        return front.expand(batch, frames, 4, 4)

    def _layer_pass(self, conditions: Conditions, batch: int, frames: int) -> LayerPass:
        audio = conditions.audio
        settings = self.config.audio_projection
        if audio is None:
            audio = self.audio_projection.norm.weight.new_zeros(
                batch, frames, settings.tokens, settings.width
            )
        if audio.ndim != 4 or audio.shape[:2] != (batch, frames) or audio.shape[3] != settings.width:
            raise ValueError(
                f"audio must be {[batch, frames, 'T', settings.width]}: the tokens of encode_audio, "
                f"got {list(audio.shape)}"
            )
        if conditions.motion is not None and len(conditions.motion) != batch:
            raise ValueError(f"motion must have {batch} clips, got {len(conditions.motion)}")
        return LayerPass(
            model=self,
            num_frames=frames,
            conditions=conditions,
            audio=audio,
            pace=self._pace(conditions, batch, frames),
        )

    def _pace(self, conditions: Conditions, batch: int, frames: int) -> torch.Tensor | None:
        """Speed and lids as one embedding of every frame, [B, F, S]."""
        total = None
        for name, value, embed in (
            ("speed", conditions.speed, self.speed),
            ("blink", conditions.blink, self.blink),
        ):
            if value is None:
                continue
            if embed is None:
                raise ValueError(f"{name} was given, but this model was built without it (use_speed=False)")
            if value.shape != (batch, frames):
                raise ValueError(
                    f"{name} must be {[batch, frames]}, a number a frame, got {list(value.shape)}"
                )
            total = embed(value) if total is None else total + embed(value)
        return total


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerPass:
    """What one call does after each attention layer: the audio module, then the motion module of that layer.

    audio: [B, F, T, A]; pace: [B, F, S] embeddings of speed and lids, or None.
    """

    model: TalkingModel
    num_frames: int
    conditions: Conditions
    audio: torch.Tensor
    pace: torch.Tensor | None

    def __call__(self, name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        key = module_key(name)
        audio, motion = self.model.audio[key], self.model.motion[key]
        assert isinstance(audio, AudioModule)
        assert isinstance(motion, MotionModule)
        hidden_states = self._run(
            audio, hidden_states, self.audio, self._masks(hidden_states), self.conditions.weights
        )
        return self._run(motion, hidden_states, self.num_frames, self._past(name), self.pace)

    def _run(self, module: nn.Module, *arguments: object) -> torch.Tensor:
        if self.model.gradient_checkpointing and torch.is_grad_enabled():
            return _recomputed(module, *arguments)
        return module(*arguments)

    def _masks(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        masks, size = self.conditions.masks, tuple(hidden_states.shape[-2:])
        if masks is None:
            return None
        if size not in masks:
            raise ValueError(
                f"masks are for sizes {sorted(masks)}, but a layer has {size}: make them for these latents"
            )
        return masks[size[0], size[1]]

    def _past(self, name: str) -> torch.Tensor | None:
        """[B, M, N, C]: what the ReferenceNet's layer of the same name saw of the motion frames."""
        bank = self.conditions.motion
        return None if bank is None else bank.layer(f"{name}.transformer_blocks.0.attn1")


def _recomputed(module: nn.Module, *arguments: Any) -> Any:
    """A module's result, of which nothing inside is kept for the way back. (diffusers' own cannot be pickled.)"""
    return checkpoint(module.__call__, *arguments, use_reentrant=False)


def _module_dict(modules: dict[str, AudioModule] | dict[str, MotionModule]) -> nn.ModuleDict:
    items: Iterable[tuple[str, nn.Module]] = modules.items()
    return nn.ModuleDict({module_key(name): module for name, module in items})
