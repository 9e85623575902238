"""A backbone whose UNet knows nothing: the control that everything else of the backbone has to be beaten with."""

from __future__ import annotations

import copy

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.backbone import Backbone
from diffusion.denoisers.unet import UNetDenoiser


def untrained(backbone: Backbone, seed: int) -> Backbone:
    """`backbone` with a UNet of the same architecture and random weights; all other parts are shared with it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's layers take no generator for their initial weights
        unet = UNet2DConditionModel.from_config(backbone.unet.config)
    assert isinstance(unet, UNet2DConditionModel)
    # diffusers' own `to` warns of a cast, even one to the same dtype.
    nn.Module.to(unet, device=backbone.device, dtype=backbone.unet.dtype)
    unet.eval().requires_grad_(False)
    twin = copy.copy(backbone)
    twin.denoiser = UNetDenoiser(unet, multiview=backbone.num_views > 1, domains=backbone.domains)
    return twin
