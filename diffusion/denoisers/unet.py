"""A diffusers UNet, as of Stable Diffusion and all that was made from it, with whatever adapters are on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffusion.adapters.camera import camera_labels, has_camera_embedding
from diffusion.adapters.unet_hooks import add_layer_hooks, has_input_features
from diffusion.attention import AttentionContext, add_context_attention
from diffusion.conditioning import Inputs
from diffusion.denoisers.base import Folding, check_inputs
from diffusion.domains import DOMAINS, Domain, check_domains


class UNetDenoiser:
    """A `Denoiser` (see `diffusion.denoisers.base`) around a diffusers UNet, which stays an ordinary one.

    It holds nothing but the UNet, so several may be made of one: that of a backbone, whose views see each other, and
    that of a talking model on it, whose frames do not.

    unet: gets our attention processor and hooks, which leave ordinary calls as they were.
    multiview: whether the views of an object see each other in self-attention; otherwise each is on its own.
    domains: what it has learned to show; it takes `domain` if that is more than colours.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        multiview: bool = False,
        domains: Sequence[Domain] = ("color",),
    ) -> None:
        check_domains(domains)
        self.unet, self.multiview, self.domains = unet, multiview, tuple(domains)
        add_context_attention(unet)
        add_layer_hooks(unet)

    @property
    def in_channels(self) -> int:
        return int(self.unet.config["in_channels"])

    @property
    def takes(self) -> frozenset[str]:
        """What attention layers read; `camera` if it was built for it, and then `domain` if it has learned several;
        `features` after `add_input_features`."""
        takes = {"bank", "record", "after_attention"}
        if has_camera_embedding(self.unet):
            takes.add("camera")
            if self.domains != ("color",):
                takes.add("domain")
        if has_input_features(self.unet):
            takes.add("features")
        return frozenset(takes)

    def __call__(self, latents: Tensor, timestep: Tensor | int, inputs: Inputs) -> Tensor:
        """As `Denoiser` says; a UNet with a camera embedding requires cameras."""
        folding = Folding.of(latents, self.in_channels)
        folding.check_camera(inputs.camera)
        labels = camera_labels(self.unet, inputs.camera, inputs.domain)
        check_inputs(self, inputs)
        self._check_domain(inputs.domain)
        folding.check_conditioning(inputs.conditioning)
        dtype = self.unet.dtype
        sample = folding.fold("latents", latents).to(dtype)
        if inputs.features is not None:
            sample = torch.cat([sample, folding.fold("features", inputs.features).to(dtype)], dim=1)
        context = AttentionContext(
            num_views=folding.num_views if self.multiview else 1,
            bank=inputs.bank,
            record=inputs.record,
            after_attention=inputs.after_attention,
        )
        output = self.unet(
            sample,
            folding.timesteps(timestep, latents.device),
            inputs.conditioning.embeds.to(dtype),
            class_labels=None if labels is None else labels.to(dtype),
            cross_attention_kwargs={"context": context},
            return_dict=False,
        )[0]
        return folding.unfold(output.to(latents.dtype))

    def _check_domain(self, domain: torch.Tensor | None) -> None:
        """Refuse, by a ValueError, what it has not learned to show."""
        if domain is not None and self.domains != DOMAINS:
            check_domains([DOMAINS[index] for index in domain.unique().tolist()], self.domains)
