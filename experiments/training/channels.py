"""More or fewer latent channels for a VAE and a UNet that were trained with another number, and what each is worth.

A wider network starts out as the narrow one: what was there computes what it did, and new channels begin at random. A
narrower one keeps the channels it is told to and sees the others at their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffusion.backbone import Backbone

# Layers of AutoencoderKL and UNet2DConditionModel that latents go into or come out of. The encoder's end gives means
# and log-variances, one half after the other.
_LATENT = ("encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in", "conv_in", "conv_out")
_HALVES = ("encoder.conv_out", "quant_conv")
# Spread of the noise that channels are measured with, and the least weight of one, in means over all.
_NOISE, _LEAST = 0.3, 0.05


@torch.no_grad()
def pixel_cost(backbone: Backbone, images: Tensor) -> Tensor:
    """What an error in each latent channel costs in the picture: `[C]`, mean squared change of pixels in [0, 1] for a
    unit of variance in the latents' own scale.

    images: `[N, 3, H, W]` in [0, 1] about which it is measured, with small noise that is the same each time.
    """
    generator = torch.Generator().manual_seed(0)
    latents = backbone.encode(images.to(backbone.device))
    noise = _NOISE * torch.randn(latents[:, :1].shape, generator=generator).to(latents)
    plain, costs = backbone.decode(latents), []
    for channel in range(latents.shape[1]):
        disturbed = latents.clone()
        disturbed[:, channel : channel + 1] += noise
        costs.append((backbone.decode(disturbed) - plain).square().mean() / _NOISE**2)
    return torch.stack(costs)


def pixel_weights(backbone: Backbone, images: Tensor) -> Tensor:
    """Weights `[C]` of the latent channels in a loss, 1 on average: what errors in them cost in `images`.

    None is left alone, for what a UNet makes of a channel comes back to it as input.
    """
    costs = pixel_cost(backbone, images)
    weights = (costs / costs.mean()).clamp(min=_LEAST)
    return weights / weights.mean()


def widened(narrow: Mapping[str, Tensor], wide: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the shapes of `wide`, of which `narrow` has those with fewer latent channels.

    New inputs of old outputs are 0; new outputs stay as `wide` has them. Other layers are those of `narrow`,
    whatever their shape.
    """
    result = dict(narrow)
    for name, new in wide.items():
        layer, old = name.rpartition(".")[0], narrow.get(name)
        if layer in _LATENT and old is not None and old.shape != new.shape:
            result[name] = _placed(old, new, halves=layer in _HALVES)
    return result


def narrowed_unet(wide: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    """A UNet's weights with the latent channels `kept` only."""
    rows = list(kept)
    return {
        **wide,
        "conv_in.weight": wide["conv_in.weight"][:, rows],
        "conv_out.weight": wide["conv_out.weight"][rows],
        "conv_out.bias": wide["conv_out.bias"][rows],
    }


def narrowed_vae(wide: Mapping[str, Tensor], kept: Sequence[int], mean: Tensor) -> dict[str, Tensor]:
    """An AutoencoderKL's weights with the latent channels `kept` only.

    mean: `[C]` of all channels, before the scaling factor; what the decoder takes for those that are gone. Latents
    stay exactly what they were, and so does what is decoded but for its border, whose padding has no such constant.
    """
    rows, channels = list(kept), len(mean)
    gone = [c for c in range(channels) if c not in rows]
    result = dict(wide)
    # The 1 x 1 convolutions on either side of the latents go into their neighbours, which leaves identities.
    both = [*rows, *(channels + row for row in rows)]
    mix, bias = wide["quant_conv.weight"].flatten(1)[both], wide["quant_conv.bias"][both]
    result["encoder.conv_out.weight"] = torch.einsum("oc,cihw->oihw", mix, wide["encoder.conv_out.weight"])
    result["encoder.conv_out.bias"] = mix @ wide["encoder.conv_out.bias"] + bias
    mix, kernel = wide["post_quant_conv.weight"].flatten(1), wide["decoder.conv_in.weight"]
    constant = wide["post_quant_conv.bias"] + mix[:, gone] @ mean[gone]
    result["decoder.conv_in.weight"] = torch.einsum("ochw,ck->okhw", kernel, mix[:, rows])
    result["decoder.conv_in.bias"] = wide["decoder.conv_in.bias"] + kernel.sum((2, 3)) @ constant
    for name, size in (("quant_conv", 2 * len(rows)), ("post_quant_conv", len(rows))):
        result[f"{name}.weight"] = torch.eye(size).to(mix)[..., None, None]
        result[f"{name}.bias"] = torch.zeros(size).to(mix)
    return result


def _placed(old: Tensor, new: Tensor, *, halves: bool) -> Tensor:
    value = new.clone()
    rows = _places(old.shape[0], new.shape[0], halves)
    if old.ndim == 1:
        value[rows] = old.to(value)
        return value
    block = value[rows].zero_()
    block[:, _places(old.shape[1], new.shape[1], halves)] = old.to(value)
    value[rows] = block
    return value


def _places(old: int, new: int, halves: bool) -> list[int]:
    """Where `old` channels lie among `new` ones."""
    if old == new or not halves:
        return list(range(old))
    return [*range(old // 2), *range(new // 2, new // 2 + old // 2)]
