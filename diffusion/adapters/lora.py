"""LoRA (arXiv 2106.09685) through peft on a UNet that stays as it is, its weights one vector given with each call.

The layers that peft changes stand in a second tree of modules, whose tensors are those of the UNet itself: no weight is
copied, and whoever calls the UNet gets what it gave before, to the bit. What LoRA adds has no storage there; it is put
in for the time of a call, so that whoever learns it keeps it where it likes.

A UNet without a camera embedding gets one (`diffusion.adapters.camera`), which learns with the rest.

Shapes: B objects, V views, C latent channels, N numbers that learn.
"""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffusion.adapters.camera import CAMERA_DIM, has_camera_embedding
from diffusion.conditioning import Inputs
from diffusion.denoisers.unet import UNetDenoiser

_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


class LowRank:
    """rank: of what is added to the four projections of every attention layer. num_weights: N.

    multiview: as of `UNetDenoiser`.
    """

    def __init__(self, unet: UNet2DConditionModel, *, rank: int, multiview: bool) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        memo: dict[int, Any] = {id(each): each for each in (*unet.parameters(), *unet.buffers())}
        tuned = copy.deepcopy(unet, memo)
        settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=_LAYERS)
        # Without storage, which draws no random numbers either.
        inject_adapter_in_model(settings, tuned, low_cpu_mem_usage=True)
        if not has_camera_embedding(tuned):
            _add_cameras(tuned)
        shared = {id(each) for each in memo.values()}
        self._call = _Call(tuned, multiview)
        self._shapes = {
            name: each.shape for name, each in self._call.named_parameters() if id(each) not in shared
        }
        self.num_weights = sum(shape.numel() for shape in self._shapes.values())

    def begin(self, generator: torch.Generator) -> Tensor:
        """`[N]` float32, with which it predicts what the UNet does: what comes last of every addition is zero."""
        parts = []
        for name, shape in self._shapes.items():
            if ".lora_B." in name or "class_embedding.linear_2" in name:
                parts.append(torch.zeros(shape.numel()))
                continue
            # As torch does for linear layers: uniform within 1 / sqrt(inputs); biases have the inputs of their layer.
            inputs = shape[1] if len(shape) == 2 else CAMERA_DIM
            drawn = torch.rand(shape.numel(), generator=generator, device=generator.device)
            parts.append((drawn.cpu() * 2.0 - 1.0) / math.sqrt(inputs))
        return torch.cat(parts)

    def __call__(self, weights: Tensor, latents: Tensor, timestep: Tensor | int, inputs: Inputs) -> Tensor:
        """What a `Denoiser` gives, differentiable in `weights [N]`. inputs: with cameras."""
        if weights.shape != (self.num_weights,):
            raise ValueError(f"weights must be [{self.num_weights}], got {list(weights.shape)}")
        weights = weights.to(self._call.unet.dtype)
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), weights.split(sizes), strict=True)
        }
        return torch.func.functional_call(self._call, parts, (latents, timestep, inputs))


class _Call(nn.Module):
    """A denoiser as a module, for `functional_call`."""

    def __init__(self, unet: UNet2DConditionModel, multiview: bool) -> None:
        super().__init__()
        self.unet, self._multiview = unet, multiview
        self._denoiser = UNetDenoiser(unet, multiview=multiview)

    def forward(self, latents: Tensor, timestep: Tensor | int, inputs: Inputs) -> Tensor:
        return self._denoiser(latents, timestep, inputs)


def _add_cameras(unet: UNet2DConditionModel) -> None:
    """An embedding of the 16 numbers of a camera, added to that of the timestep, in the place that diffusers has."""
    if unet.class_embedding is not None:
        raise ValueError(
            f"this UNet has an embedding of another kind ({unet.config['class_embed_type']}) where cameras would go; "
            "choose a backbone without one"
        )
    width = cast(int, unet.time_embedding.linear_2.out_features)
    with torch.device("meta"):
        unet.class_embedding = TimestepEmbedding(CAMERA_DIM, width)
    unet.register_to_config(class_embed_type="projection", projection_class_embeddings_input_dim=CAMERA_DIM)
