"""A diffusers UNet, as of Stable Diffusion and all that was made from it, with whatever adapters are on it."""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffusion.adapters.attach import has_input_features, has_layer_hooks
from diffusion.adapters.camera import camera_labels, has_camera_embedding
from diffusion.adapters.multiview import add_multiview_attention
from diffusion.adapters.reference import has_reference_attention
from diffusion.conditioning import Inputs
from diffusion.denoisers.base import Folding, check_inputs


class UNetDenoiser:
    """A `Denoiser` (see `diffusion.denoisers.base`) around a diffusers UNet, which stays an ordinary one.

    It holds nothing but the UNet, so several may be made of one: that of a backbone, whose views see each other, and
    that of a talking model on it, whose frames do not.

    unet: gets multiview attention, unless it has it (or an adapter made from it) already.
    joint_views: whether the views of an object see each other in self-attention; otherwise each view is on its own.
    """

    def __init__(self, unet: UNet2DConditionModel, *, joint_views: bool = False) -> None:
        self.unet, self.joint_views = unet, joint_views
        add_multiview_attention(unet)

    @property
    def in_channels(self) -> int:
        return int(self.unet.config["in_channels"])

    @property
    def takes(self) -> frozenset[str]:
        """What the UNet was built with (`camera`) and what the adapters on it read."""
        reads = {
            "camera": has_camera_embedding(self.unet),
            "features": has_input_features(self.unet),
            "bank": has_reference_attention(self.unet),
            "record": has_reference_attention(self.unet),
            "after_attention": has_layer_hooks(self.unet),
        }
        return frozenset(name for name, there in reads.items() if there)

    def __call__(self, latents: Tensor, timestep: Tensor | int, inputs: Inputs) -> Tensor:
        """As `Denoiser` says; a UNet with a camera embedding requires cameras."""
        folding = Folding.of(latents, self.in_channels)
        folding.check_camera(inputs.camera)
        labels = camera_labels(self.unet, inputs.camera)
        check_inputs(self, inputs)
        folding.check_conditioning(inputs.conditioning)
        dtype = self.unet.dtype
        sample = folding.fold("latents", latents).to(dtype)
        if inputs.features is not None:
            sample = torch.cat([sample, folding.fold("features", inputs.features).to(dtype)], dim=1)
        attention = {
            "num_views": folding.num_views if self.joint_views else 1,
            "bank": inputs.bank,
            "record": inputs.record,
            "after_attention": inputs.after_attention,
        }
        output = self.unet(
            sample,
            folding.timesteps(timestep, latents.device),
            inputs.conditioning.embeds.to(dtype),
            class_labels=None if labels is None else labels.to(dtype),
            # diffusers warns of what a layer does not know, even where it is None.
            cross_attention_kwargs={name: value for name, value in attention.items() if value is not None},
            return_dict=False,
        )[0]
        return folding.unfold(output.to(latents.dtype))
